//! The writer of connections and events.
use super::datetime::DateFormat;
use super::flow_view::{EventInfo, FlowView};
use super::labels::LabelNames;
use super::output::{OutputFormat, OutputOptions};
use super::style::FormatStyle;
use super::text_buf::TextBuf;
use super::{engine_flow, json, line, save, xml};
use jiff::tz::TimeZone;
use keepstate_engine::{Entry, Event, ProtocolInfo, TcpSide, UnixTime};
use keepstate_linux::ctnetlink::CtFlow;
use std::io::{self, Write};

/// Writes entries or events in one format.
///
/// Its life: connections (or events) as they come, then [`finish`](FlowWriter::finish), which closes the document; after that a new one
/// may begin. Connections are collected and written in large pieces; an event of our engine is written at once.
///
/// ```
/// use keepstate_conntrack::format::{FlowWriter, OutputOptions};
/// let mut text = Vec::new();
/// FlowWriter::new(&mut text, OutputOptions::parse("json").unwrap()).finish().unwrap();
/// assert_eq!(text, b"[]\n");
/// ```
pub struct FlowWriter<W: Write> {
    out: W,
    style: FormatStyle,
    text: TextBuf,
    now: Option<UnixTime>,
    doc_state: DocState,
    events_only: bool,
    no_document: bool,
    deleted: bool,
}

/// How far the document is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DocState {
    Empty,
    Entries,
    Events,
}

/// The text is written when it is this long.
const FLUSH_BYTES: usize = 64 * 1024;

impl<W: Write> FlowWriter<W> {
    /// A writer to `out`, with times in the system's time zone.
    pub fn new(out: W, output: OutputOptions) -> Self {
        let style = FormatStyle { output, dates: DateFormat(TimeZone::system()), labels: LabelNames::default() };
        FlowWriter {
            out,
            style,
            text: TextBuf::default(),
            now: None,
            doc_state: DocState::Empty,
            events_only: false,
            no_document: false,
            deleted: false,
        }
    }

    /// Sets the time from which ages are computed. Default: the system's clock.
    #[must_use]
    pub fn at_time(mut self, now: UnixTime) -> Self {
        self.now = Some(now);
        self
    }

    /// Sets the time zone of dates.
    #[must_use]
    pub fn in_time_zone(mut self, zone: TimeZone) -> Self {
        self.style.dates = DateFormat(zone);
        self
    }

    /// Sets the names of labels.
    #[must_use]
    pub fn with_labels(mut self, names: LabelNames) -> Self {
        self.style.labels = names;
        self
    }

    /// Only events will be written: JSON without any is empty instead of an empty array.
    #[must_use]
    pub fn for_events(mut self) -> Self {
        self.events_only = true;
        self
    }

    /// Writes no document around the connections: in XML, one element after the other.
    #[must_use]
    pub fn without_document(mut self) -> Self {
        self.no_document = true;
        self
    }

    /// The connections were just deleted: `-o save` writes `-D` lines.
    #[must_use]
    pub fn for_deleted(mut self) -> Self {
        self.deleted = true;
        self
    }

    /// Writes a connection of our engine.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_entry(&mut self, entry: &Entry) -> io::Result<()> {
        let tcp_sides = tcp_sides(entry);
        self.push_listed(&FlowView {
            flow: &engine_flow::from_entry(entry),
            event: None,
            now: self.now,
            tcp_sides,
            deleted: false,
        })
    }

    /// Writes an event of our engine.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_event(&mut self, event: &Event) -> io::Result<()> {
        // JSON leaves nothing out.
        let all_attributes = self.style.output.format == OutputFormat::Json;
        let mut flow =
            if all_attributes { engine_flow::from_entry(&event.entry) } else { engine_flow::from_event(event) };
        let tcp_sides = tcp_sides(&event.entry);
        flow.use_count = None;
        if all_attributes {
            let sent = engine_flow::from_event(event);
            (flow.timeout, flow.counters) = (sent.timeout, sent.counters);
        }
        let info = EventInfo { event_type: event.kind, at: event.at, origin: None };
        self.push_event_and_write(&FlowView { flow: &flow, event: Some(info), now: None, tcp_sides, deleted: false })
    }

    /// Writes a connection of the kernel's.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_flow(&mut self, flow: &CtFlow) -> io::Result<()> {
        self.push_listed(&FlowView { flow, event: None, now: self.now, tcp_sides: None, deleted: self.deleted })
    }

    /// Writes an event of the kernel's. It is buffered with others; see [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_flow_event(&mut self, flow: &CtFlow, event: EventInfo<'_>) -> io::Result<()> {
        self.push_event(&FlowView { flow, event: Some(event), now: None, tcp_sides: None, deleted: false });
        self.write_if_full()
    }

    fn push_listed(&mut self, view: &FlowView<'_>) -> io::Result<()> {
        if self.style.output.format == OutputFormat::Json {
            self.text.push(if self.doc_state == DocState::Entries { ",\n" } else { "[\n" });
        }
        self.push_flow(view);
        self.doc_state = DocState::Entries;
        self.write_if_full()
    }

    fn push_event_and_write(&mut self, view: &FlowView<'_>) -> io::Result<()> {
        self.push_event(view);
        self.write_out()
    }

    fn push_event(&mut self, view: &FlowView<'_>) {
        let is_json = self.style.output.format == OutputFormat::Json;
        if is_json && self.doc_state == DocState::Entries {
            self.text.push("\n]\n");
        }
        self.push_flow(view);
        if is_json {
            self.text.push("\n");
        }
        self.doc_state = DocState::Events;
    }

    /// One flow in the format asked for, behind the head of an XML document if it is the first.
    fn push_flow(&mut self, view: &FlowView<'_>) {
        match self.style.output.format {
            OutputFormat::Line => line::push(&mut self.text, view, &self.style),
            OutputFormat::Save => save::push(&mut self.text, view),
            OutputFormat::Xml => {
                if self.doc_state == DocState::Empty && !self.no_document {
                    self.text.push(xml::HEAD);
                }
                xml::push(&mut self.text, view, &self.style);
            }
            OutputFormat::Json => json::push(&mut self.text, view, &self.style),
        }
    }

    /// Writes the buffer and flushes the underlying writer.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.out.flush()
    }

    fn write_if_full(&mut self) -> io::Result<()> {
        if self.text.as_bytes().len() >= FLUSH_BYTES { self.write_out() } else { Ok(()) }
    }

    /// The underlying writer, for other lines. Events of our engine are never buffered above it; connections are.
    pub fn beneath(&mut self) -> &mut W {
        &mut self.out
    }

    /// Closes the document, writes the buffer, and flushes the underlying writer.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn finish(&mut self) -> io::Result<()> {
        match (self.style.output.format, self.doc_state) {
            (OutputFormat::Xml, DocState::Entries | DocState::Events) if !self.no_document => self.text.push(xml::TAIL),
            (OutputFormat::Json, DocState::Entries) => self.text.push("\n]\n"),
            (OutputFormat::Json, DocState::Empty) if !self.events_only => self.text.push("[]\n"),
            _ => &mut self.text,
        };
        self.doc_state = DocState::Empty;
        self.write_out()?;
        self.out.flush()
    }

    /// Writes the buffer. After an error nothing is retried: the document is lost anyway.
    fn write_out(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.text.as_bytes());
        self.text.clear();
        written
    }
}

/// TCP state that our engine has and ctnetlink does not.
fn tcp_sides(entry: &Entry) -> Option<[TcpSide; 2]> {
    match entry.protocol {
        ProtocolInfo::Tcp { sides, .. } => Some(sides),
        _ => None,
    }
}
