//! Expectations, as `conntrack -L expect` and `-E expect` print them.
use super::flow_view::wall_clock;
use super::json;
use super::line::{event_column, push_event_time};
use super::output::{OutputFormat, OutputOptions};
use super::protocol::{L4Keys, protocol_and_keys};
use super::text_buf::{TextBuf, no_escape};
use super::xml;
use keepstate_engine::UnixTime;
use keepstate_linux::ctnetlink::{CtExpectation, CtFamily, CtTuple, EventKind, expectation::flags};
use std::io::{self, Write};

/// Writes expectations or their events in one format. Its life is that of [`FlowWriter`](super::FlowWriter).
pub struct ExpectationWriter<W: Write> {
    out: W,
    output: OutputOptions,
    text: TextBuf,
    begun: bool,
    events: bool,
}

impl<W: Write> ExpectationWriter<W> {
    /// A writer to `out`.
    pub fn new(out: W, output: OutputOptions) -> Self {
        ExpectationWriter { out, output, text: TextBuf::default(), begun: false, events: false }
    }

    /// Only events will be written.
    #[must_use]
    pub fn events_only(mut self) -> Self {
        self.events = true;
        self
    }

    /// Writes an expectation.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_expectation(&mut self, expectation: &CtExpectation) -> io::Result<()> {
        if self.output.format == OutputFormat::Json {
            self.text.push(if self.begun { ",\n" } else { "[\n" });
        }
        self.push_expectation(expectation, None);
        Ok(())
    }

    /// Writes an event. It is buffered; see [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn write_event(&mut self, expectation: &CtExpectation, event_type: EventKind, at: UnixTime) -> io::Result<()> {
        self.push_expectation(expectation, Some((event_type, at)));
        if self.output.format == OutputFormat::Json {
            self.text.push("\n");
        }
        Ok(())
    }

    /// Writes the buffer and flushes the underlying writer.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        self.out.flush()
    }

    /// Closes the document.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn finish(&mut self) -> io::Result<()> {
        match (self.output.format, self.begun, self.events) {
            (OutputFormat::Xml, true, _) => self.text.push("</expect>\n"),
            (OutputFormat::Json, true, false) => self.text.push("\n]\n"),
            (OutputFormat::Json, false, false) => self.text.push("[]\n"),
            _ => &mut self.text,
        };
        self.flush()
    }

    fn push_expectation(&mut self, expectation: &CtExpectation, event: Option<(EventKind, UnixTime)>) {
        let text = &mut self.text;
        match self.output.format {
            OutputFormat::Xml => {
                if !self.begun {
                    text.push("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<expect>\n");
                }
                push_xml(text, expectation, event.map(|(event_type, _)| event_type));
            }
            OutputFormat::Json => push_json(text, expectation, event),
            OutputFormat::Line | OutputFormat::Save => {
                if self.output.timestamp {
                    push_event_time(text, event.map_or_else(wall_clock, |(_, at)| at));
                }
                if let Some((event_type, _)) = event {
                    text.push(event_column(event_type));
                }
                push_line(text, expectation);
            }
        }
        self.begun = true;
    }
}

fn push_line(text: &mut TextBuf, expectation: &CtExpectation) {
    if let Some(timeout) = expectation.timeout {
        text.number(timeout).push(" ");
    }
    text.field("proto", expectation.expected.protocol.unwrap_or(0));
    let number = expectation.expected.protocol.unwrap_or(0);
    push_addresses(text, "", &expectation.expected);
    push_ports(text, number, &expectation.expected);
    push_addresses(text, "mask-", &expectation.mask);
    push_ports(text, number, &expectation.mask);
    push_addresses(text, "master-", &expectation.master);
    push_ports(text, expectation.master.protocol.unwrap_or(0), &expectation.master);
    if let Some(zone) = expectation.zone.filter(|zone| *zone != 0) {
        text.field("zone", zone);
    }
    let names = [(flags::PERMANENT, "PERMANENT"), (flags::INACTIVE, "INACTIVE"), (flags::USERSPACE, "USERSPACE")];
    let mut separator = "";
    for (_, name) in names.iter().filter(|(bit, _)| expectation.flags.unwrap_or(0) & bit != 0) {
        text.push(separator).push(name);
        separator = ",";
    }
    if !separator.is_empty() {
        text.push(" ");
    }
    if let Some(class) = expectation.class {
        text.field("class", class);
    }
    if let Some(helper) = &expectation.helper {
        text.push("helper=").push_escaped(helper, no_escape);
    }
    text.end_line();
}

fn push_addresses(text: &mut TextBuf, prefix: &str, tuple: &CtTuple) {
    text.push(prefix).push("src=").address_opt(tuple.source).push(" ");
    text.push(prefix).push("dst=").address_opt(tuple.destination).push(" ");
}

fn push_ports(text: &mut TextBuf, number: u8, tuple: &CtTuple) {
    if protocol_and_keys(number).1 == L4Keys::Ports {
        text.field("sport", tuple.source_port.unwrap_or(0)).field("dport", tuple.destination_port.unwrap_or(0));
    }
}

fn push_xml(text: &mut TextBuf, expectation: &CtExpectation, event_type: Option<EventKind>) {
    match event_type {
        None => text.push("<flow>"),
        Some(event_type) => text.push("<flow type=\"").push(json::event_name(event_type)).push("\">"),
    };
    let (number, name) = if expectation.family == Some(CtFamily::V6) { ("10", "ipv6") } else { ("2", "ipv4") };
    text.push("<layer3 protonum=\"").push(number).push("\" protoname=\"").push(name).push("\">");
    let parts = [("expected", &expectation.expected), ("mask", &expectation.mask), ("master", &expectation.master)];
    for (part, tuple) in parts {
        text.push("<")
            .push(part)
            .push("><src>")
            .address_opt(tuple.source)
            .push("</src><dst>")
            .address_opt(tuple.destination);
        text.push("</dst></").push(part).push(">");
    }
    let number = expectation.expected.protocol.unwrap_or(0);
    text.push("</layer3><layer4 protonum=\"").number(number).push("\" protoname=\"");
    text.push(protocol_and_keys(number).0.unwrap_or("unknown")).push("\">");
    for (part, tuple) in parts {
        text.push("<").push(part).push(">");
        let number = if part == "master" { tuple.protocol.unwrap_or(0) } else { number };
        if protocol_and_keys(number).1 == L4Keys::Ports {
            text.push("<sport>").number(tuple.source_port.unwrap_or(0)).push("</sport><dport>");
            text.number(tuple.destination_port.unwrap_or(0)).push("</dport>");
        }
        text.push("</").push(part).push(">");
    }
    text.push("</layer4><meta>");
    if let Some(helper) = &expectation.helper {
        text.push("<helper-name>").push_escaped(helper, xml::escape).push("</helper-name>");
    }
    for (name, value) in
        [("timeout", expectation.timeout), ("class", expectation.class), ("zone", expectation.zone.map(u32::from))]
    {
        if let Some(value) = value {
            text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
        }
    }
    text.push("</meta></flow>\n");
}

fn push_json(text: &mut TextBuf, expectation: &CtExpectation, event: Option<(EventKind, UnixTime)>) {
    text.push("{");
    if let Some((event_type, at)) = event {
        text.push("\"event\":\"").push(json::event_name(event_type)).push("\",");
        json::push_time(text, "at", at);
        text.push(",");
    }
    text.push("\"family\":\"").push(if expectation.family == Some(CtFamily::V6) { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol_number\":").number(expectation.expected.protocol.unwrap_or(0));
    json::push_number(text, "id", expectation.id);
    json::push_number(text, "timeout", expectation.timeout);
    for (name, tuple) in
        [("expected", &expectation.expected), ("mask", &expectation.mask), ("master", &expectation.master)]
    {
        text.push(",\"").push(name).push("\":{");
        let number = if name == "master" { tuple.protocol } else { expectation.expected.protocol };
        json::push_tuple(text, &CtTuple { protocol: number, ..*tuple });
        text.push("}");
    }
    json::push_number(text, "flags", expectation.flags);
    json::push_number(text, "class", expectation.class);
    json::push_number(text, "zone", expectation.zone);
    if let Some(helper) = &expectation.helper {
        text.push(",\"helper\":\"").push_escaped(helper, json::escape).push("\"");
    }
    text.push("}");
}
