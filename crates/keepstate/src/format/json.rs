//! JSON, our own: `conntrack` has none. Entries are one array of objects; each event is one object on a line of its own.
//!
//! Names are stable and in snake_case. Everything known is there whatever `-o` says; what an entry does not have is left out.
use super::calendar::Calendar;
use super::labels::Label;
use super::text::Text;
use super::view::View;
use super::{Keys, Style, protocol};
use keepstate_engine::{Accounting, EventKind, Instant, ProtocolInfo, Status, TcpSide, Tuple, ZoneDirection};

/// Appends an entry's or event's object, without anything around it.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    let entry = view.entry;
    text.push("{");
    if let Some((kind, at)) = view.event {
        text.push("\"event\":\"").push(match kind {
            EventKind::New => "new",
            EventKind::Update => "update",
            EventKind::Destroy => "destroy",
        });
        text.push("\",");
        time(text, "at", at);
        text.push(",");
    }
    text.push("\"id\":").number(entry.id);
    text.push(",\"family\":\"").push(if entry.original.is_ipv6() { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol\":\"").push(protocol(entry.original.protocol).0.unwrap_or("unknown"));
    text.push("\",\"protocol_number\":").number(entry.original.protocol);
    match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => text.push(",\"state\":\"").push(state.name()).push("\""),
        ProtocolInfo::Sctp { state, .. } => text.push(",\"state\":\"").push(state.name()).push("\""),
        ProtocolInfo::Stateless => text,
    };
    if let Some(timeout) = view.timeout() {
        text.push(",\"timeout\":").number(timeout);
    }
    directions(text, view);
    status(text, entry.status);
    text.push(",\"mark\":").number(entry.mark).push(",\"zone\":").number(entry.zone.id);
    if entry.zone.id != 0 {
        text.push(",\"zone_direction\":\"").push(match entry.zone.direction {
            ZoneDirection::Both => "both\"",
            ZoneDirection::Original => "original\"",
            ZoneDirection::Reply => "reply\"",
        });
    }
    extras(text, view, style);
    text.push("}");
}

fn directions(text: &mut Text, view: &View<'_>) {
    let entry = view.entry;
    let counts = view.accounting();
    let [original, reply] = match entry.protocol {
        ProtocolInfo::Tcp { sides, .. } => sides.map(Peer::Tcp),
        ProtocolInfo::Sctp { tags, .. } => tags.map(Peer::Sctp),
        ProtocolInfo::Stateless => [Peer::Unknown, Peer::Unknown],
    };
    text.push(",\"original\":{");
    tuple(text, &entry.original);
    direction(text, counts.map(|[original, _]| original), original);
    text.push("},\"reply\":{");
    tuple(text, &entry.reply);
    direction(text, counts.map(|[_, reply]| reply), reply);
    text.push("}");
}

/// What the protocol knows of one side.
enum Peer {
    Tcp(TcpSide),
    Sctp(u32),
    Unknown,
}

fn tuple(text: &mut Text, tuple: &Tuple) {
    text.push("\"source\":\"")
        .address(tuple.source)
        .push("\",\"destination\":\"")
        .address(tuple.destination)
        .push("\"");
    match protocol(tuple.protocol).1 {
        Keys::Ports => {
            text.push(",\"source_port\":").number(tuple.source_key);
            text.push(",\"destination_port\":").number(tuple.destination_key);
        }
        Keys::Icmp => {
            text.push(",\"icmp_type\":").number(tuple.icmp_type()).push(",\"icmp_code\":").number(tuple.icmp_code());
            text.push(",\"icmp_id\":").number(tuple.source_key);
        }
        Keys::Gre => {
            text.push(",\"source_key\":").number(tuple.source_key);
            text.push(",\"destination_key\":").number(tuple.destination_key);
        }
        Keys::None => {}
    }
}

fn direction(text: &mut Text, counts: Option<Accounting>, peer: Peer) {
    if let Some(Accounting { packets, bytes }) = counts {
        text.push(",\"packets\":").number(packets).push(",\"bytes\":").number(bytes);
    }
    match peer {
        Peer::Tcp(TcpSide { flags, scale, end, max_end, max_window, max_ack }) => {
            text.push(",\"tcp\":{\"flags\":").number(flags).push(",\"window_scale\":").number(scale);
            text.push(",\"end\":").number(end).push(",\"max_end\":").number(max_end);
            text.push(",\"max_window\":").number(max_window).push(",\"max_ack\":").number(max_ack).push("}");
        }
        Peer::Sctp(tag) => {
            text.push(",\"verification_tag\":").number(tag);
        }
        Peer::Unknown => {}
    }
}

fn status(text: &mut Text, status: Status) {
    text.push(",\"status\":[");
    let mut lead = "\"";
    for (_, name) in Status::NAMES.iter().filter(|(bit, _)| status.has(*bit)) {
        text.push(lead).push(name).push("\"");
        lead = ",\"";
    }
    text.push("]");
}

fn time(text: &mut Text, name: &str, at: Instant) {
    text.push("\"").push(name).push("\":\"");
    Calendar::utc(at, text);
    text.push("\"");
}

/// Labels, times, helper, master, references.
fn extras(text: &mut Text, view: &View<'_>, style: &Style) {
    let entry = view.entry;
    if let Some(labels) = entry.labels {
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
    for (name, at) in [("start", entry.start), ("stop", entry.stop)] {
        if let Some(at) = at {
            text.push(",");
            time(text, name, at);
        }
    }
    if let Some(helper) = entry.helper {
        text.push(",\"helper\":\"").foreign(helper, escape).push("\"");
    }
    if let Some(master) = entry.master {
        text.push(",\"master\":{");
        tuple(text, &master);
        text.push("}");
    }
    if let Some(uses) = view.uses() {
        text.push(",\"uses\":").number(uses);
    }
}

fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        _ => return None,
    })
}
