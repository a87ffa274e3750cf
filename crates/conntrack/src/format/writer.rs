//! Where entries and events become text on its way out.
use super::calendar::Calendar;
use super::text::Text;
use super::view::{Occasion, View};
use super::{Kind, LabelNames, Output, Style, json, line, save, tracked, xml};
use jiff::tz::TimeZone;
use keepstate_engine::{Entry, Event, Instant, ProtocolInfo, TcpSide};
use keepstate_linux::ctnetlink::Flow;
use std::io::{self, Write};

/// Writes entries or events in one format.
///
/// Its life: entries (or events) as they come, then [`finish`](Writer::finish), which closes the document; after that a new one may
/// begin. Entries are gathered and written in large pieces; an event is written at once. One buffer serves all of them.
///
/// ```
/// use keepstate::format::{Output, Writer};
/// let mut text = Vec::new();
/// Writer::new(&mut text, Output::parse("json").unwrap()).finish().unwrap();
/// assert_eq!(text, b"[]\n");
/// ```
pub struct Writer<W: Write> {
    out: W,
    style: Style,
    text: Text,
    now: Option<Instant>,
    stage: Stage,
    only_events: bool,
    bare: bool,
    deleted: bool,
}

/// How far the document is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Nothing,
    Entries,
    Events,
}

/// Gathered entries are written when they are this long.
const PIECE: usize = 64 * 1024;

impl<W: Write> Writer<W> {
    /// A writer to `out`, with times in the system's time zone.
    pub fn new(out: W, output: Output) -> Self {
        let style = Style { output, calendar: Calendar(TimeZone::system()), labels: LabelNames::default() };
        Writer {
            out,
            style,
            text: Text::default(),
            now: None,
            stage: Stage::Nothing,
            only_events: false,
            bare: false,
            deleted: false,
        }
    }

    /// When the entries are looked at, from which their age is told; the clock of the system, if this is not called.
    #[must_use]
    pub fn at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    /// In another time zone.
    #[must_use]
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.style.calendar = Calendar(zone);
        self
    }

    /// With names for labels.
    #[must_use]
    pub fn with_labels(mut self, names: LabelNames) -> Self {
        self.style.labels = names;
        self
    }

    /// Only events will come: if none does, JSON is nothing at all instead of an empty array.
    #[must_use]
    pub fn of_events(mut self) -> Self {
        self.only_events = true;
        self
    }

    /// Without a document around it: in XML, one element after the other.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.bare = true;
        self
    }

    /// What comes was just deleted: the arguments that save writes would delete it again.
    #[must_use]
    pub fn of_deleted(mut self) -> Self {
        self.deleted = true;
        self
    }

    /// Writes a connection of our engine.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let windows = windows(entry);
        self.listed(&View { flow: &tracked::flow(entry), occasion: None, now: self.now, windows, deleted: false })
    }

    /// Writes an event of our engine.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        // JSON leaves nothing out that is known.
        let everything = self.style.output.kind == Kind::Json;
        let mut flow = if everything { tracked::flow(&event.entry) } else { tracked::told(event) };
        let windows = windows(&event.entry);
        flow.uses = None;
        if everything {
            let told = tracked::told(event);
            (flow.timeout, flow.counts) = (told.timeout, told.counts);
        }
        let occasion = Occasion { happening: tracked::happening(event.kind), at: event.at, cause: None };
        self.happened(&View { flow: &flow, occasion: Some(occasion), now: None, windows, deleted: false })
    }

    /// Writes a connection that Linux told of.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn flow(&mut self, flow: &Flow) -> io::Result<()> {
        self.listed(&View { flow, occasion: None, now: self.now, windows: None, deleted: self.deleted })
    }

    /// Writes a connection that Linux told of as what happened to it. It is written with others, when there is enough; see [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn flow_event(&mut self, flow: &Flow, occasion: Occasion<'_>) -> io::Result<()> {
        self.happening(&View { flow, occasion: Some(occasion), now: None, windows: None, deleted: false });
        self.gather()
    }

    fn listed(&mut self, view: &View<'_>) -> io::Result<()> {
        match self.style.output.kind {
            Kind::Line => line::push(&mut self.text, view, &self.style),
            Kind::Save => save::push(&mut self.text, view),
            Kind::Xml => {
                if self.stage == Stage::Nothing && !self.bare {
                    self.text.push(xml::HEAD);
                }
                xml::push(&mut self.text, view, &self.style);
            }
            Kind::Json => {
                self.text.push(if self.stage == Stage::Entries { ",\n" } else { "[\n" });
                json::push(&mut self.text, view, &self.style);
            }
        }
        self.stage = Stage::Entries;
        self.gather()
    }

    fn happened(&mut self, view: &View<'_>) -> io::Result<()> {
        self.happening(view);
        self.write()
    }

    fn happening(&mut self, view: &View<'_>) {
        match self.style.output.kind {
            Kind::Line => line::push(&mut self.text, view, &self.style),
            Kind::Save => save::push(&mut self.text, view),
            Kind::Xml => {
                if self.stage == Stage::Nothing && !self.bare {
                    self.text.push(xml::HEAD);
                }
                xml::push(&mut self.text, view, &self.style);
            }
            Kind::Json => {
                if self.stage == Stage::Entries {
                    self.text.push("\n]\n");
                }
                json::push(&mut self.text, view, &self.style);
                self.text.push("\n");
            }
        }
        self.stage = Stage::Events;
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.out.flush()
    }

    fn gather(&mut self) -> io::Result<()> {
        if self.text.as_bytes().len() >= PIECE { self.write() } else { Ok(()) }
    }

    /// The writer beneath, for lines of one's own. Events never wait above it; entries do.
    pub fn beneath(&mut self) -> &mut W {
        &mut self.out
    }

    /// Closes the document, writes all that waits, and flushes the writer beneath.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn finish(&mut self) -> io::Result<()> {
        match (self.style.output.kind, self.stage) {
            (Kind::Xml, Stage::Entries | Stage::Events) if !self.bare => self.text.push(xml::TAIL),
            (Kind::Json, Stage::Entries) => self.text.push("\n]\n"),
            (Kind::Json, Stage::Nothing) if !self.only_events => self.text.push("[]\n"),
            _ => &mut self.text,
        };
        self.stage = Stage::Nothing;
        self.write()?;
        self.out.flush()
    }

    /// Hands the text over. What failed is not tried again: after an error the document is lost anyway.
    fn write(&mut self) -> io::Result<()> {
        let written = self.out.write_all(self.text.as_bytes());
        self.text.clear();
        written
    }
}

/// What our engine knows of TCP beyond what Linux tells.
fn windows(entry: &Entry) -> Option<[TcpSide; 2]> {
    match entry.protocol {
        ProtocolInfo::Tcp { sides, .. } => Some(sides),
        _ => None,
    }
}
