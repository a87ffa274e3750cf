//! Announced connections, as `conntrack -L expect` and `-E expect` print them.
use super::json;
use super::line::{event_time, mark};
use super::text::{Text, plain};
use super::view::clock;
use super::{Keys, Kind, Output, protocol};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::{Expectation, Family, Happening, Tuple, expectation::flags};
use std::io::{self, Write};

/// Writes expectations, or what happens to them, in one format. Its life is that of [`Writer`](super::Writer).
pub struct ExpectationWriter<W: Write> {
    out: W,
    output: Output,
    text: Text,
    begun: bool,
    events: bool,
}

impl<W: Write> ExpectationWriter<W> {
    /// A writer to `out`.
    pub fn new(out: W, output: Output) -> Self {
        ExpectationWriter { out, output, text: Text::default(), begun: false, events: false }
    }

    /// Only events will come.
    #[must_use]
    pub fn of_events(mut self) -> Self {
        self.events = true;
        self
    }

    /// Writes one.
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn listed(&mut self, expectation: &Expectation) -> io::Result<()> {
        if self.output.kind == Kind::Json {
            self.text.push(if self.begun { ",\n" } else { "[\n" });
        }
        self.one(expectation, None);
        Ok(())
    }

    /// Writes what happened to one. It waits for [`flush`](Self::flush).
    ///
    /// # Errors
    /// Those of the writer beneath.
    pub fn happened(&mut self, expectation: &Expectation, happening: Happening, at: Instant) -> io::Result<()> {
        self.one(expectation, Some((happening, at)));
        if self.output.kind == Kind::Json {
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
        match (self.output.kind, self.begun, self.events) {
            (Kind::Xml, true, _) => self.text.push("</expect>\n"),
            (Kind::Json, true, false) => self.text.push("\n]\n"),
            (Kind::Json, false, false) => self.text.push("[]\n"),
            _ => &mut self.text,
        };
        self.flush()
    }

    fn one(&mut self, expectation: &Expectation, event: Option<(Happening, Instant)>) {
        let text = &mut self.text;
        match self.output.kind {
            Kind::Xml => {
                if !self.begun {
                    text.push("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<expect>\n");
                }
                xml(text, expectation, event.map(|(happening, _)| happening));
            }
            Kind::Json => object(text, expectation, event),
            Kind::Line | Kind::Save => {
                if self.output.timestamp {
                    event_time(text, event.map_or_else(clock, |(_, at)| at));
                }
                if let Some((happening, _)) = event {
                    text.push(mark(happening));
                }
                line(text, expectation);
            }
        }
        self.begun = true;
    }
}

fn line(text: &mut Text, told: &Expectation) {
    if let Some(timeout) = told.timeout {
        text.number(timeout).push(" ");
    }
    text.field("proto", told.expected.protocol.unwrap_or(0));
    let number = told.expected.protocol.unwrap_or(0);
    addresses(text, "", &told.expected);
    keys(text, number, &told.expected);
    addresses(text, "mask-", &told.mask);
    keys(text, number, &told.mask);
    addresses(text, "master-", &told.master);
    keys(text, told.master.protocol.unwrap_or(0), &told.master);
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
        text.push("helper=").foreign(helper, plain);
    }
    text.end_line();
}

fn addresses(text: &mut Text, prefix: &str, tuple: &Tuple) {
    text.push(prefix).push("src=").told(tuple.source).push(" ");
    text.push(prefix).push("dst=").told(tuple.destination).push(" ");
}

fn keys(text: &mut Text, number: u8, tuple: &Tuple) {
    if protocol(number).1 == Keys::Ports {
        text.field("sport", tuple.source_port.unwrap_or(0)).field("dport", tuple.destination_port.unwrap_or(0));
    }
}

fn xml(text: &mut Text, told: &Expectation, happening: Option<Happening>) {
    match happening {
        None => text.push("<flow>"),
        Some(happening) => text.push("<flow type=\"").push(json::word(happening)).push("\">"),
    };
    let (number, name) = if told.family == Some(Family::V6) { ("10", "ipv6") } else { ("2", "ipv4") };
    text.push("<layer3 protonum=\"").push(number).push("\" protoname=\"").push(name).push("\">");
    let parts = [("expected", &told.expected), ("mask", &told.mask), ("master", &told.master)];
    for (part, tuple) in parts {
        text.push("<").push(part).push("><src>").told(tuple.source).push("</src><dst>").told(tuple.destination);
        text.push("</dst></").push(part).push(">");
    }
    let number = told.expected.protocol.unwrap_or(0);
    text.push("</layer3><layer4 protonum=\"").number(number).push("\" protoname=\"");
    text.push(protocol(number).0.unwrap_or("unknown")).push("\">");
    for (part, tuple) in parts {
        text.push("<").push(part).push(">");
        let number = if part == "master" { tuple.protocol.unwrap_or(0) } else { number };
        if protocol(number).1 == Keys::Ports {
            text.push("<sport>").number(tuple.source_port.unwrap_or(0)).push("</sport><dport>");
            text.number(tuple.destination_port.unwrap_or(0)).push("</dport>");
        }
        text.push("</").push(part).push(">");
    }
    text.push("</layer4><meta>");
    if let Some(helper) = &told.helper {
        text.push("<helper-name>").foreign(helper, plain).push("</helper-name>");
    }
    for (name, value) in [("timeout", told.timeout), ("class", told.class), ("zone", told.zone.map(u32::from))] {
        if let Some(value) = value {
            text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
        }
    }
    text.push("</meta></flow>\n");
}

fn object(text: &mut Text, told: &Expectation, event: Option<(Happening, Instant)>) {
    text.push("{");
    if let Some((happening, at)) = event {
        text.push("\"event\":\"").push(json::word(happening)).push("\",");
        json::time(text, "at", at);
        text.push(",");
    }
    text.push("\"family\":\"").push(if told.family == Some(Family::V6) { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol_number\":").number(told.expected.protocol.unwrap_or(0));
    json::number(text, "id", told.id);
    json::number(text, "timeout", told.timeout);
    for (name, tuple) in [("expected", &told.expected), ("mask", &told.mask), ("master", &told.master)] {
        text.push(",\"").push(name).push("\":{");
        let number = if name == "master" { tuple.protocol } else { told.expected.protocol };
        json::tuple(text, &Tuple { protocol: number, ..*tuple });
        text.push("}");
    }
    json::number(text, "flags", told.flags);
    json::number(text, "class", told.class);
    json::number(text, "zone", told.zone);
    if let Some(helper) = &told.helper {
        text.push(",\"helper\":\"").foreign(helper, json::escape).push("\"");
    }
    text.push("}");
}
