//! XML, as `conntrack -o xml` prints it.
use super::labels::Label;
use super::text::Text;
use super::view::View;
use super::{Keys, Style, line, protocol};
use keepstate_linux::ctnetlink::{Counts, Happening, Protocol, SctpState, TcpState, Tuple, status};

/// What stands before the first flow.
pub(super) const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
/// What stands after the last.
pub(super) const TAIL: &str = "</conntrack>\n";

/// Appends the element of a connection or event.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    let flow = view.flow;
    text.push(match view.happening() {
        None => "<flow>",
        Some(Happening::New) => "<flow type=\"new\">",
        Some(Happening::Update) => "<flow type=\"update\">",
        Some(Happening::Destroy) => "<flow type=\"destroy\">",
    });
    text.push("<meta direction=\"original\">");
    direction(text, &flow.original, view.counts(0));
    text.push("<meta direction=\"reply\">");
    direction(text, &flow.reply, view.counts(1));
    text.push("<meta direction=\"independent\">");
    independent(text, view, style);
    text.push("</meta>");
    if let Some(occasion) = view.occasion.filter(|_| style.output.timestamp) {
        style.calendar.when(occasion.at, text);
    }
    if let Some(helper) = &flow.helper {
        text.push("<helper>").foreign(helper, escape).push("</helper>");
    }
    text.push("</flow>");
    line::cause(text, view);
    text.end_line();
}

fn element(text: &mut Text, name: &str, value: impl itoa::Integer) {
    text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
}

/// One direction: tuple, zone, counters.
pub(super) fn direction(text: &mut Text, tuple: &Tuple, counts: Option<Counts>) {
    text.push(if tuple.source.or(tuple.destination).is_some_and(|address| address.is_ipv6()) {
        "<layer3 protonum=\"10\" protoname=\"ipv6\"><src>"
    } else {
        "<layer3 protonum=\"2\" protoname=\"ipv4\"><src>"
    });
    text.told(tuple.source).push("</src><dst>").told(tuple.destination).push("</dst></layer3>");
    let number = tuple.protocol.unwrap_or(0);
    let (name, keys) = protocol(number);
    text.push("<layer4 protonum=\"").number(number);
    text.push("\" protoname=\"").push(name.unwrap_or("unknown")).push("\">");
    match keys {
        Keys::Ports => {
            element(text, "sport", tuple.source_port.unwrap_or(0));
            element(text, "dport", tuple.destination_port.unwrap_or(0));
        }
        Keys::Gre => {
            text.push("<srckey>0x").hex(tuple.source_port.unwrap_or(0)).push("</srckey><dstkey>0x");
            text.hex(tuple.destination_port.unwrap_or(0)).push("</dstkey>");
        }
        // conntrack leaves ICMP's type, code and id out of XML.
        Keys::Icmp | Keys::None => {}
    }
    text.push("</layer4>");
    if let Some(zone) = tuple.zone {
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
fn independent(text: &mut Text, view: &View<'_>, style: &Style) {
    let flow = view.flow;
    let state = match flow.protocol {
        Protocol::Tcp(info) => info.state,
        // conntrack reads SCTP's number in TCP's table here: COOKIE_WAIT, 2, becomes SYN_RECV.
        Protocol::Sctp(info) => info.state.map(SctpState::number),
        Protocol::Nothing => None,
    };
    let state = state.and_then(TcpState::numbered).map(TcpState::name);
    if let Some(state) = state {
        text.push("<state>").push(state).push("</state>");
    }
    if let Some(timeout) = flow.timeout {
        element(text, "timeout", timeout);
    }
    if let Some(mark) = flow.mark {
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
    if let Some(zone) = flow.zone {
        element(text, "zone", zone);
    }
    if let Some(uses) = flow.uses {
        element(text, "use", uses);
    }
    if let Some(id) = flow.id {
        element(text, "id", id);
    }
    if view.has(status::ASSURED) {
        text.push("<assured/>");
    }
    if view.is_unreplied() {
        text.push("<unreplied/>");
    }
    times(text, view, style);
}

fn times(text: &mut Text, view: &View<'_>, style: &Style) {
    let Some((start, stop)) = view.times() else { return };
    if style.output.ktimestamp {
        text.push("<timestamp>");
        element(text, "start", start);
        if let Some(stop) = stop {
            element(text, "stop", stop);
        }
        text.push("</timestamp>");
    }
    // Unlike a line, XML takes the whole seconds of the difference, not the difference of the whole seconds.
    let age = stop.map(|stop| stop.saturating_sub(start) / 1_000_000_000).or_else(|| view.age());
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
