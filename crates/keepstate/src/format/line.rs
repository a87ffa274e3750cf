//! Lines, as `conntrack -L` and `conntrack -E` print them.
use super::labels::Label;
use super::text::{Text, plain};
use super::view::View;
use super::{Keys, Style, protocol};
use keepstate_engine::{Accounting, Direction, EventKind, Instant, ProtocolInfo, Status, Tuple};

/// Appends the line of an entry or event.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    if let Some((kind, at)) = view.event {
        if style.output.timestamp {
            event_time(text, at);
        }
        text.push(match kind {
            EventKind::New => "    [NEW] ",
            EventKind::Update => " [UPDATE] ",
            EventKind::Destroy => "[DESTROY] ",
        });
    }
    protocols(text, view, style);
    let entry = view.entry;
    let accounting = view.accounting();
    tuple(text, &entry.original);
    zone(text, view, "zone-orig", keepstate_engine::ZoneDirection::Original);
    counts(text, accounting, Direction::Original);
    if !view.has(Status::SEEN_REPLY) {
        text.push("[UNREPLIED] ");
    }
    tuple(text, &entry.reply);
    zone(text, view, "zone-reply", keepstate_engine::ZoneDirection::Reply);
    counts(text, accounting, Direction::Reply);
    text.push(if view.has(Status::HW_OFFLOAD) {
        "[HW_OFFLOAD] "
    } else if view.has(Status::OFFLOAD) {
        "[OFFLOAD] "
    } else if view.has(Status::ASSURED) {
        "[ASSURED] "
    } else {
        ""
    });
    extras(text, view, style);
    text.end_line();
}

/// `[1795443749.838765]` and a tab.
fn event_time(text: &mut Text, at: Instant) {
    text.push("[").padded(at.0 / 1_000_000_000, 8).push(".").padded(at.0 % 1_000_000_000 / 1000, 6).push("]\t");
}

/// Network layer, transport protocol, timeout, state.
fn protocols(text: &mut Text, view: &View<'_>, style: &Style) {
    let entry = view.entry;
    if style.output.extended {
        text.push(if entry.original.is_ipv6() { "ipv6     10 " } else { "ipv4     2 " });
    }
    let number = entry.original.protocol;
    let name = protocol(number).0.unwrap_or("unknown");
    // Names stand in a column of eight; none is longer.
    text.push(name).push("        ".get(name.len()..).unwrap_or("")).push(" ").number(number).push(" ");
    if let Some(timeout) = view.timeout() {
        text.number(timeout).push(" ");
    }
    match entry.protocol {
        ProtocolInfo::Tcp { state, .. } => text.push(state.name()).push(" "),
        ProtocolInfo::Sctp { state, .. } => text.push(state.name()).push(" "),
        ProtocolInfo::Stateless => text,
    };
}

fn tuple(text: &mut Text, tuple: &Tuple) {
    text.push("src=").address(tuple.source).push(" dst=").address(tuple.destination).push(" ");
    match protocol(tuple.protocol).1 {
        Keys::Ports => text.field("sport", tuple.source_key).field("dport", tuple.destination_key),
        Keys::Icmp => {
            text.field("type", tuple.icmp_type()).field("code", tuple.icmp_code()).field("id", tuple.source_key)
        }
        Keys::Gre => {
            text.push("srckey=0x").hex(tuple.source_key).push(" dstkey=0x").hex(tuple.destination_key).push(" ")
        }
        Keys::None => text,
    };
}

/// The zone, where it is one of `direction`.
fn zone(text: &mut Text, view: &View<'_>, name: &str, direction: keepstate_engine::ZoneDirection) {
    let zone = view.entry.zone;
    if zone.id != 0 && zone.direction == direction {
        text.field(name, zone.id);
    }
}

fn counts(text: &mut Text, accounting: Option<[Accounting; 2]>, direction: Direction) {
    if let Some([original, reply]) = accounting {
        let counts = if direction == Direction::Original { original } else { reply };
        text.field("packets", counts.packets).field("bytes", counts.bytes);
    }
}

/// What belongs to neither direction.
fn extras(text: &mut Text, view: &View<'_>, style: &Style) {
    if let Some(mark) = view.mark() {
        text.field("mark", mark);
    }
    zone(text, view, "zone", keepstate_engine::ZoneDirection::Both);
    if let Some(age) = view.age() {
        text.field("delta-time", age);
    }
    if let Some((start, stop)) = view.times().filter(|_| style.output.ktimestamp) {
        text.push("[start=");
        style.calendar.date(start, text);
        text.push("] ");
        if let Some(stop) = stop {
            text.push("[stop=");
            style.calendar.date(stop, text);
            text.push("] ");
        }
    }
    if let Some(helper) = view.helper() {
        text.push("helper=").foreign(helper, plain).push(" ");
    }
    if let Some(uses) = view.uses() {
        text.field("use", uses);
    }
    if style.output.id {
        text.field("id", view.entry.id);
    }
    if let Some(labels) = view.labels().filter(|_| style.output.labels) {
        // Labels without a name leave the bare word, as they do in conntrack.
        text.push("labels");
        for (at, label) in style.labels.shown(labels).enumerate() {
            text.push(if at == 0 { "=" } else { "," });
            match label {
                Label::Name(name) => text.foreign(name, plain),
                Label::Number(bit) => text.number(bit),
            };
        }
    }
}
