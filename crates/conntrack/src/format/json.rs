//! JSON, our own: `conntrack` has none. Entries are one array of objects; each event is one object on a line of its own.
//!
//! Names are stable and in snake_case. Everything known is there whatever `-o` says; what an entry does not have is left out.
use super::calendar::Calendar;
use super::labels::Label;
use super::text::Text;
use super::view::View;
use super::{Keys, Style, protocol, state};
use keepstate_engine::{Instant, TcpSide};
use keepstate_linux::ctnetlink::{Family, Flow, Happening, Protocol, Tuple, status};

/// Appends a connection's or event's object, without anything around it.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    let flow = view.flow;
    text.push("{");
    if let Some(occasion) = view.occasion {
        text.push("\"event\":\"").push(word(occasion.happening)).push("\",");
        time(text, "at", occasion.at);
        text.push(",");
        if let Some(cause) = occasion.cause {
            text.push("\"portid\":").number(cause.port).push(",");
            if let Some(name) = cause.name {
                text.push("\"program\":\"").foreign(name, escape).push("\",");
            }
        }
    }
    if let Some(id) = flow.id {
        text.push("\"id\":").number(id).push(",");
    }
    text.push("\"family\":\"").push(if flow.family == Some(Family::V6) { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol\":\"").push(protocol(view.protocol()).0.unwrap_or("unknown"));
    text.push("\",\"protocol_number\":").number(view.protocol());
    if let Some(state) = state(&flow.protocol) {
        text.push(",\"state\":\"").push(state).push("\"");
    }
    number(text, "timeout", flow.timeout);
    directions(text, view);
    if let Some(bits) = flow.status {
        status(text, bits);
    }
    number(text, "mark", flow.mark);
    zone(text, flow);
    extras(text, view, style);
    text.push("}");
}

/// The name of what happened.
pub(super) fn word(happening: Happening) -> &'static str {
    match happening {
        Happening::New => "new",
        Happening::Update => "update",
        Happening::Destroy => "destroy",
    }
}

/// `,"name":1`, if it was told.
pub(super) fn number(text: &mut Text, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.push(",\"").push(name).push("\":").number(value);
    }
}

fn zone(text: &mut Text, flow: &Flow) {
    let (zone, direction) = match (flow.zone, flow.original.zone, flow.reply.zone) {
        (Some(zone), ..) => (zone, "both"),
        (None, Some(zone), _) => (zone, "original"),
        (None, None, Some(zone)) => (zone, "reply"),
        (None, None, None) => (0, ""),
    };
    text.push(",\"zone\":").number(zone);
    if zone != 0 {
        text.push(",\"zone_direction\":\"").push(direction).push("\"");
    }
}

fn directions(text: &mut Text, view: &View<'_>) {
    for (at, name, told) in [(0, "original", &view.flow.original), (1, "reply", &view.flow.reply)] {
        text.push(",\"").push(name).push("\":{");
        tuple(text, told);
        if let Some(counts) = view.counts(at) {
            text.push(",\"packets\":").number(counts.packets).push(",\"bytes\":").number(counts.bytes);
        }
        peer(text, view, at);
        text.push("}");
    }
}

pub(super) fn tuple(text: &mut Text, tuple: &Tuple) {
    text.push("\"source\":\"").told(tuple.source).push("\",\"destination\":\"").told(tuple.destination).push("\"");
    match protocol(tuple.protocol.unwrap_or(0)).1 {
        Keys::Ports => {
            number(text, "source_port", tuple.source_port);
            number(text, "destination_port", tuple.destination_port);
        }
        Keys::Icmp => {
            number(text, "icmp_type", tuple.icmp_type);
            number(text, "icmp_code", tuple.icmp_code);
            number(text, "icmp_id", tuple.icmp_id);
        }
        Keys::Gre => {
            number(text, "source_key", tuple.source_port);
            number(text, "destination_key", tuple.destination_port);
        }
        Keys::None => {}
    }
}

/// What the protocol knows of one side.
fn peer(text: &mut Text, view: &View<'_>, at: usize) {
    match &view.flow.protocol {
        Protocol::Tcp(info) => {
            let (Some(Some([flags, _])), Some(scale)) = (info.flags.get(at), info.scales.get(at)) else { return };
            text.push(",\"tcp\":{\"flags\":").number(*flags);
            number(text, "window_scale", *scale);
            let windows = view.windows.as_ref().and_then(|sides| sides.get(at));
            if let Some(TcpSide { end, max_end, max_window, max_ack, .. }) = windows {
                text.push(",\"end\":").number(*end).push(",\"max_end\":").number(*max_end);
                text.push(",\"max_window\":").number(*max_window).push(",\"max_ack\":").number(*max_ack);
            }
            text.push("}");
        }
        Protocol::Sctp(info) => number(text, "verification_tag", info.tags.get(at).copied().flatten()),
        Protocol::Nothing => {}
    }
}

fn status(text: &mut Text, bits: u32) {
    text.push(",\"status\":[");
    let mut lead = "\"";
    for (_, name) in status::NAMES.iter().filter(|(bit, _)| bits & bit != 0) {
        text.push(lead).push(name).push("\"");
        lead = ",\"";
    }
    text.push("]");
}

pub(super) fn time(text: &mut Text, name: &str, at: Instant) {
    text.push("\"").push(name).push("\":\"");
    Calendar::utc(at, text);
    text.push("\"");
}

/// Labels, times, helper, master, references.
fn extras(text: &mut Text, view: &View<'_>, style: &Style) {
    let flow = view.flow;
    if let Some(labels) = flow.labels {
        text.push(",\"labels\":[");
        let mut lead = "";
        for label in style.labels.shown(labels) {
            text.push(lead);
            match label {
                Label::Name(name) => text.push("\"").foreign(name, escape).push("\""),
                Label::Number(bit) => text.number(bit),
            };
            lead = ",";
        }
        text.push("]");
    }
    for (name, at) in [("start", flow.start), ("stop", flow.stop)] {
        if let Some(at) = at {
            text.push(",");
            time(text, name, Instant(at));
        }
    }
    for (name, value) in [("helper", &flow.helper), ("security_context", &flow.context)] {
        if let Some(value) = value {
            text.push(",\"").push(name).push("\":\"").foreign(value, escape).push("\"");
        }
    }
    if let Some(master) = &flow.master {
        text.push(",\"master\":{");
        tuple(text, master);
        text.push("}");
    }
    number(text, "uses", flow.uses);
}

pub(super) fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        _ => return None,
    })
}
