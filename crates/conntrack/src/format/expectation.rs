//! Announced connections, as `conntrack -L expect` and `-E expect` print them.
use super::flow_view::wall_clock;
use super::json;
use super::line::{event_column, push_event_time};
use super::text_buf::{TextBuf, no_escape};
use super::{L4Keys, OutputFormat, OutputOptions, protocol_and_keys};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::{CtExpectation, CtFamily, CtTuple, EventKind, expectation::flags};
use std::io::{self, Write};

/// Writes expectations, or what happens to them, in one format. Its life is that of [`Writer`](super::Writer).
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

    /// Only events will come.
    #[must_use]
    pub fn events_only(mut self) -> Self {
        self.events = true;
        self
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn write_expectation(&mut self, expectation: &CtExpectation) -> io::Result<()> {
        if self.output.format == OutputFormat::Json {
            self.text.push(if self.begun { ",\n" } else { "[\n" });
        }
        self.push_expectation(expectation, None);
        Ok(())
    }

    /// Writes what happened to one. It waits for [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn write_event(&mut self, expectation: &CtExpectation, happening: EventKind, at: Instant) -> io::Result<()> {
        self.push_expectation(expectation, Some((happening, at)));
        if self.output.format == OutputFormat::Json {
            self.text.push("\n");
        }
        Ok(())
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        self.out.flush()
    }

    /// Closes the document.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn finish(&mut self) -> io::Result<()> {
        match (self.output.format, self.begun, self.events) {
            (OutputFormat::Xml, true, _) => self.text.push("</expect>\n"),
            (OutputFormat::Json, true, false) => self.text.push("\n]\n"),
            (OutputFormat::Json, false, false) => self.text.push("[]\n"),
            _ => &mut self.text,
        };
        self.flush()
    }

    fn push_expectation(&mut self, expectation: &CtExpectation, event: Option<(EventKind, Instant)>) {
        let text = &mut self.text;
        match self.output.format {
            OutputFormat::Xml => {
                if !self.begun {
                    text.push("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<expect>\n");
                }
                push_xml(text, expectation, event.map(|(happening, _)| happening));
            }
            OutputFormat::Json => push_json(text, expectation, event),
            OutputFormat::Line | OutputFormat::Save => {
                if self.output.timestamp {
                    push_event_time(text, event.map_or_else(wall_clock, |(_, at)| at));
                }
                if let Some((happening, _)) = event {
                    text.push(event_column(happening));
                }
                push_line(text, expectation);
            }
        }
        self.begun = true;
    }
}

fn push_line(text: &mut TextBuf, told: &CtExpectation) {
    if let Some(timeout) = told.timeout {
        text.number(timeout).push(" ");
    }
    text.field("proto", told.expected.protocol.unwrap_or(0));
    let number = told.expected.protocol.unwrap_or(0);
    push_addresses(text, "", &told.expected);
    push_ports(text, number, &told.expected);
    push_addresses(text, "mask-", &told.mask);
    push_ports(text, number, &told.mask);
    push_addresses(text, "master-", &told.master);
    push_ports(text, told.master.protocol.unwrap_or(0), &told.master);
    if let Some(zone) = told.zone.filter(|zone| *zone != 0) {
        text.field("zone", zone);
    }
    let names = [(flags::PERMANENT, "PERMANENT"), (flags::INACTIVE, "INACTIVE"), (flags::USERSPACE, "USERSPACE")];
    let mut separator = "";
    for (_, name) in names.iter().filter(|(bit, _)| told.flags.unwrap_or(0) & bit != 0) {
        text.push(separator).push(name);
        separator = ",";
    }
    if !separator.is_empty() {
        text.push(" ");
    }
    if let Some(class) = told.class {
        text.field("class", class);
    }
    if let Some(helper) = &told.helper {
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

fn push_xml(text: &mut TextBuf, told: &CtExpectation, happening: Option<EventKind>) {
    match happening {
        None => text.push("<flow>"),
        Some(happening) => text.push("<flow type=\"").push(json::event_name(happening)).push("\">"),
    };
    let (number, name) = if told.family == Some(CtFamily::V6) { ("10", "ipv6") } else { ("2", "ipv4") };
    text.push("<layer3 protonum=\"").push(number).push("\" protoname=\"").push(name).push("\">");
    let parts = [("expected", &told.expected), ("mask", &told.mask), ("master", &told.master)];
    for (part, tuple) in parts {
        text.push("<")
            .push(part)
            .push("><src>")
            .address_opt(tuple.source)
            .push("</src><dst>")
            .address_opt(tuple.destination);
        text.push("</dst></").push(part).push(">");
    }
    let number = told.expected.protocol.unwrap_or(0);
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
    if let Some(helper) = &told.helper {
        text.push("<helper-name>").push_escaped(helper, no_escape).push("</helper-name>");
    }
    for (name, value) in [("timeout", told.timeout), ("class", told.class), ("zone", told.zone.map(u32::from))] {
        if let Some(value) = value {
            text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
        }
    }
    text.push("</meta></flow>\n");
}

fn push_json(text: &mut TextBuf, told: &CtExpectation, event: Option<(EventKind, Instant)>) {
    text.push("{");
    if let Some((happening, at)) = event {
        text.push("\"event\":\"").push(json::event_name(happening)).push("\",");
        json::push_time(text, "at", at);
        text.push(",");
    }
    text.push("\"family\":\"").push(if told.family == Some(CtFamily::V6) { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol_number\":").number(told.expected.protocol.unwrap_or(0));
    json::push_number(text, "id", told.id);
    json::push_number(text, "timeout", told.timeout);
    for (name, tuple) in [("expected", &told.expected), ("mask", &told.mask), ("master", &told.master)] {
        text.push(",\"").push(name).push("\":{");
        let number = if name == "master" { tuple.protocol } else { told.expected.protocol };
        json::push_tuple(text, &CtTuple { protocol: number, ..*tuple });
        text.push("}");
    }
    json::push_number(text, "flags", told.flags);
    json::push_number(text, "class", told.class);
    json::push_number(text, "zone", told.zone);
    if let Some(helper) = &told.helper {
        text.push(",\"helper\":\"").push_escaped(helper, json::escape).push("\"");
    }
    text.push("}");
}
