//! XML, as `conntrack -o xml` prints it.
use super::flow_view::FlowView;
use super::labels::Label;
use super::line;
use super::protocol::{L4Keys, protocol_and_keys};
use super::style::FormatStyle;
use super::text_buf::TextBuf;
use keepstate_linux::ctnetlink::{CtCounters, CtProtoInfo, CtTuple, EventKind, SctpState, Status, TcpState};

/// Printed before the first flow.
pub(super) const HEAD: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
/// Printed after the last.
pub(super) const TAIL: &str = "</conntrack>\n";

/// Appends the element of a connection or event.
pub(super) fn push(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let flow = view.flow;
    text.push(match view.event_type() {
        None => "<flow>",
        Some(EventKind::New) => "<flow type=\"new\">",
        Some(EventKind::Update) => "<flow type=\"update\">",
        Some(EventKind::Destroy) => "<flow type=\"destroy\">",
    });
    text.push("<meta direction=\"original\">");
    push_direction(text, &flow.original, view.counts(0));
    text.push("<meta direction=\"reply\">");
    push_direction(text, &flow.reply, view.counts(1));
    text.push("<meta direction=\"independent\">");
    push_independent(text, view, style);
    text.push("</meta>");
    if let Some(event) = view.event.filter(|_| style.output.timestamp) {
        style.dates.push_xml_when(event.at, text);
    }
    if let Some(helper) = &flow.helper {
        text.push("<helper>").push_escaped(helper, escape).push("</helper>");
    }
    text.push("</flow>");
    line::push_origin(text, view, escape);
    text.end_line();
}

fn push_element(text: &mut TextBuf, name: &str, value: impl itoa::Integer) {
    text.push("<").push(name).push(">").number(value).push("</").push(name).push(">");
}

/// One direction: tuple, zone, counters.
pub(super) fn push_direction(text: &mut TextBuf, tuple: &CtTuple, counts: Option<CtCounters>) {
    text.push(if tuple.source.or(tuple.destination).is_some_and(|address| address.is_ipv6()) {
        "<layer3 protonum=\"10\" protoname=\"ipv6\"><src>"
    } else {
        "<layer3 protonum=\"2\" protoname=\"ipv4\"><src>"
    });
    text.address_opt(tuple.source).push("</src><dst>").address_opt(tuple.destination).push("</dst></layer3>");
    let number = tuple.protocol.unwrap_or(0);
    let (name, keys) = protocol_and_keys(number);
    text.push("<layer4 protonum=\"").number(number);
    text.push("\" protoname=\"").push(name.unwrap_or("unknown")).push("\">");
    match keys {
        L4Keys::Ports => {
            push_element(text, "sport", tuple.source_port.unwrap_or(0));
            push_element(text, "dport", tuple.destination_port.unwrap_or(0));
        }
        L4Keys::Gre => {
            text.push("<srckey>0x").hex(tuple.source_port.unwrap_or(0)).push("</srckey><dstkey>0x");
            text.hex(tuple.destination_port.unwrap_or(0)).push("</dstkey>");
        }
        // conntrack leaves ICMP's type, code and id out of XML.
        L4Keys::Icmp | L4Keys::None => {}
    }
    text.push("</layer4>");
    if let Some(zone) = tuple.zone {
        push_element(text, "zone", zone);
    }
    if let Some(counts) = counts {
        text.push("<counters>");
        push_element(text, "packets", counts.packets);
        push_element(text, "bytes", counts.bytes);
        text.push("</counters>");
    }
    text.push("</meta>");
}

/// What belongs to neither direction.
fn push_independent(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let flow = view.flow;
    let state = match flow.protoinfo {
        CtProtoInfo::Tcp(info) => info.state,
        // conntrack reads SCTP's number in TCP's table here: COOKIE_WAIT, 2, becomes SYN_RECV.
        CtProtoInfo::Sctp(info) => info.state.map(SctpState::number),
        CtProtoInfo::Empty => None,
    };
    let state = state.and_then(TcpState::from_number).map(TcpState::name);
    if let Some(state) = state {
        text.push("<state>").push(state).push("</state>");
    }
    if let Some(timeout) = flow.timeout {
        push_element(text, "timeout", timeout);
    }
    if let Some(mark) = flow.mark {
        push_element(text, "mark", mark);
    }
    if let Some(labels) = view.labels().filter(|_| style.output.labels) {
        text.push("<labels>");
        for label in style.labels.visible(labels) {
            match label {
                Label::Name(name) => text.push("<label>").push_escaped(name, escape).push("</label>"),
                Label::Number(bit) => text.push("<label>").number(bit).push("</label>"),
            };
        }
        text.push("</labels>");
    }
    if let Some(zone) = flow.zone {
        push_element(text, "zone", zone);
    }
    if let Some(uses) = flow.use_count {
        push_element(text, "use", uses);
    }
    if let Some(id) = flow.id {
        push_element(text, "id", id);
    }
    if view.has_status(Status::ASSURED) {
        text.push("<assured/>");
    }
    if view.is_unreplied() {
        text.push("<unreplied/>");
    }
    push_times(text, view, style);
}

fn push_times(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let Some((start, stop)) = view.timestamps() else { return };
    if style.output.ktimestamp {
        text.push("<timestamp>");
        push_element(text, "start", start);
        if let Some(stop) = stop {
            push_element(text, "stop", stop);
        }
        text.push("</timestamp>");
    }
    // Unlike a line, XML takes the whole seconds of the difference, not the difference of the whole seconds.
    let age = stop.map(|stop| stop.saturating_sub(start) / 1_000_000_000).or_else(|| view.delta_time());
    push_element(text, "deltatime", age.unwrap_or(0));
}

/// What XML would take for its own.
pub(super) fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '<' => "&lt;",
        '>' => "&gt;",
        '&' => "&amp;",
        _ => return None,
    })
}
