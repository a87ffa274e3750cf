//! XML, as `conntrack -o xml` prints it.
use super::labels::Label;
use super::text::Text;
use super::view::View;
use super::{Keys, Style, protocol};
use keepstate_engine::{Accounting, EventKind, ProtocolInfo, Status, TcpState, Tuple, ZoneDirection};

/// What stands before the first flow.
pub(super) const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
/// What stands after the last.
pub(super) const TAIL: &str = "</conntrack>\n";

/// Appends the element of an entry or event.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    let entry = view.entry;
    text.push(match view.kind() {
        None => "<flow>",
        Some(EventKind::New) => "<flow type=\"new\">",
        Some(EventKind::Update) => "<flow type=\"update\">",
        Some(EventKind::Destroy) => "<flow type=\"destroy\">",
    });
    let counts = view.accounting();
    let zone_of = |direction| (entry.zone.direction == direction).then_some(entry.zone.id).filter(|id| *id != 0);
    text.push("<meta direction=\"original\">");
    direction(text, &entry.original, zone_of(ZoneDirection::Original), counts.map(|[original, _]| original));
    text.push("<meta direction=\"reply\">");
    direction(text, &entry.reply, zone_of(ZoneDirection::Reply), counts.map(|[_, reply]| reply));
    text.push("<meta direction=\"independent\">");
    independent(text, view, style, zone_of(ZoneDirection::Both));
    text.push("</meta>");
    if let Some((_, at)) = view.event.filter(|_| style.output.timestamp) {
        style.calendar.when(at, text);
    }
    if let Some(helper) = view.helper() {
        text.push("<helper>").foreign(helper, escape).push("</helper>");
    }
    text.push("</flow>\n");
}

fn element(text: &mut Text, name: &str, value: impl itoa::Integer) {
    text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
}

/// One direction: tuple, zone, counters.
fn direction(text: &mut Text, tuple: &Tuple, zone: Option<u16>, counts: Option<Accounting>) {
    text.push(if tuple.is_ipv6() {
        "<layer3 protonum=\"10\" protoname=\"ipv6\"><src>"
    } else {
        "<layer3 protonum=\"2\" protoname=\"ipv4\"><src>"
    });
    text.address(tuple.source).push("</src><dst>").address(tuple.destination).push("</dst></layer3>");
    let (name, keys) = protocol(tuple.protocol);
    text.push("<layer4 protonum=\"").number(tuple.protocol);
    text.push("\" protoname=\"").push(name.unwrap_or("unknown")).push("\">");
    match keys {
        Keys::Ports => {
            element(text, "sport", tuple.source_key);
            element(text, "dport", tuple.destination_key);
        }
        Keys::Gre => {
            text.push("<srckey>0x").hex(tuple.source_key).push("</srckey><dstkey>0x");
            text.hex(tuple.destination_key).push("</dstkey>");
        }
        // conntrack leaves ICMP's type, code and id out of XML.
        Keys::Icmp | Keys::None => {}
    }
    text.push("</layer4>");
    if let Some(zone) = zone {
        element(text, "zone", zone);
    }
    if let Some(counts) = counts {
        text.push("<counters>");
        element(text, "packets", counts.packets);
        element(text, "bytes", counts.bytes);
        text.push("</counters>");
    }
    text.push("</meta>");
}

/// What belongs to neither direction.
fn independent(text: &mut Text, view: &View<'_>, style: &Style, zone: Option<u16>) {
    let state = match view.entry.protocol {
        ProtocolInfo::Tcp { state, .. } => Some(state.name()),
        // conntrack reads SCTP's number in TCP's table here: COOKIE_WAIT, 2, becomes SYN_RECV.
        ProtocolInfo::Sctp { state, .. } => {
            TcpState::ALL.iter().find(|tcp| **tcp as u8 == state as u8).map(|tcp| tcp.name())
        }
        ProtocolInfo::Stateless => None,
    };
    if let Some(state) = state {
        text.push("<state>").push(state).push("</state>");
    }
    if let Some(timeout) = view.timeout() {
        element(text, "timeout", timeout);
    }
    if let Some(mark) = view.mark() {
        element(text, "mark", mark);
    }
    if let Some(labels) = view.labels().filter(|_| style.output.labels) {
        text.push("<labels>");
        for label in style.labels.shown(labels) {
            match label {
                Label::Name(name) => text.push("<label>").foreign(name, escape).push("</label>"),
                Label::Number(bit) => text.push("<label>").number(bit).push("</label>"),
            };
        }
        text.push("</labels>");
    }
    if let Some(zone) = zone {
        element(text, "zone", zone);
    }
    if let Some(uses) = view.uses() {
        element(text, "use", uses);
    }
    element(text, "id", view.entry.id);
    if view.has(Status::ASSURED) {
        text.push("<assured/>");
    }
    if !view.has(Status::SEEN_REPLY) {
        text.push("<unreplied/>");
    }
    times(text, view, style);
}

fn times(text: &mut Text, view: &View<'_>, style: &Style) {
    let Some((start, stop)) = view.times() else { return };
    if style.output.ktimestamp {
        text.push("<timestamp>");
        element(text, "start", start.0);
        if let Some(stop) = stop {
            element(text, "stop", stop.0);
        }
        text.push("</timestamp>");
    }
    // Unlike a line, XML takes the whole seconds of the difference, not the difference of the whole seconds.
    let age = stop.map(|stop| stop.since(start).as_secs()).or_else(|| view.age());
    element(text, "deltatime", age.unwrap_or(0));
}

fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '<' => "&lt;",
        '>' => "&gt;",
        '&' => "&amp;",
        _ => return None,
    })
}
