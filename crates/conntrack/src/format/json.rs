//! JSON, our own: `conntrack` has none. Entries are one array of objects; each event is one object on a line of its own.
//!
//! Names are stable and in snake_case. Every attribute is printed whatever `-o` says; missing attributes are left out. The objects are
//! written without an intermediate value, since a dump has millions of them.
use super::datetime::DateFormat;
use super::flow_view::FlowView;
use super::labels::Label;
use super::protocol::{L4Keys, protocol_and_keys, state_name};
use super::style::FormatStyle;
use super::text_buf::TextBuf;
use keepstate_engine::{TcpSide, UnixTime};
use keepstate_linux::ctnetlink::{CtFamily, CtFlow, CtProtoInfo, CtTuple, EventKind, Status};

/// Appends the object of a connection or event.
pub(super) fn push(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let flow = view.flow;
    text.push("{");
    if let Some(event) = view.event {
        text.push("\"event\":\"").push(event_name(event.event_type)).push("\",");
        push_time(text, "at", event.at);
        text.push(",");
        if let Some(origin) = event.origin {
            text.push("\"portid\":").number(origin.portid).push(",");
            if let Some(name) = origin.program {
                text.push("\"program\":\"").push_escaped(name, escape).push("\",");
            }
        }
    }
    if let Some(id) = flow.id {
        text.push("\"id\":").number(id).push(",");
    }
    text.push("\"family\":\"").push(if flow.family == Some(CtFamily::V6) { "ipv6" } else { "ipv4" });
    text.push("\",\"protocol\":\"").push(protocol_and_keys(view.protocol()).0.unwrap_or("unknown"));
    text.push("\",\"protocol_number\":").number(view.protocol());
    if let Some(state) = state_name(&flow.protoinfo) {
        text.push(",\"state\":\"").push(state).push("\"");
    }
    push_number(text, "timeout", flow.timeout);
    push_directions(text, view);
    if let Some(bits) = flow.status {
        push_status(text, bits);
    }
    push_number(text, "mark", flow.mark);
    push_zone(text, flow);
    push_extensions(text, view, style);
    text.push("}");
}

/// The name of an event's type.
pub(super) fn event_name(event_type: EventKind) -> &'static str {
    match event_type {
        EventKind::New => "new",
        EventKind::Update => "update",
        EventKind::Destroy => "destroy",
    }
}

/// `,"name":1`, if it is set.
pub(super) fn push_number(text: &mut TextBuf, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.push(",\"").push(name).push("\":").number(value);
    }
}

fn push_zone(text: &mut TextBuf, flow: &CtFlow) {
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

fn push_directions(text: &mut TextBuf, view: &FlowView<'_>) {
    for (at, name, tuple) in [(0, "original", &view.flow.original), (1, "reply", &view.flow.reply)] {
        text.push(",\"").push(name).push("\":{");
        push_tuple(text, tuple);
        if let Some(counts) = view.counts(at) {
            text.push(",\"packets\":").number(counts.packets).push(",\"bytes\":").number(counts.bytes);
        }
        push_protocol_side(text, view, at);
        text.push("}");
    }
}

pub(super) fn push_tuple(text: &mut TextBuf, tuple: &CtTuple) {
    text.push("\"source\":\"")
        .address_opt(tuple.source)
        .push("\",\"destination\":\"")
        .address_opt(tuple.destination)
        .push("\"");
    match protocol_and_keys(tuple.protocol.unwrap_or(0)).1 {
        L4Keys::Ports => {
            push_number(text, "source_port", tuple.source_port);
            push_number(text, "destination_port", tuple.destination_port);
        }
        L4Keys::Icmp => {
            push_number(text, "icmp_type", tuple.icmp_type);
            push_number(text, "icmp_code", tuple.icmp_code);
            push_number(text, "icmp_id", tuple.icmp_id);
        }
        L4Keys::Gre => {
            push_number(text, "source_key", tuple.source_port);
            push_number(text, "destination_key", tuple.destination_port);
        }
        L4Keys::None => {}
    }
}

/// The protocol's state of one side.
fn push_protocol_side(text: &mut TextBuf, view: &FlowView<'_>, at: usize) {
    match &view.flow.protoinfo {
        CtProtoInfo::Tcp(info) => {
            let (Some(Some([flags, _])), Some(scale)) = (info.flags.get(at), info.wscale.get(at)) else { return };
            text.push(",\"tcp\":{\"flags\":").number(*flags);
            push_number(text, "window_scale", *scale);
            let windows = view.tcp_sides.as_ref().and_then(|sides| sides.get(at));
            if let Some(TcpSide { end, max_end, max_window, max_ack, .. }) = windows {
                text.push(",\"end\":").number(*end).push(",\"max_end\":").number(*max_end);
                text.push(",\"max_window\":").number(*max_window).push(",\"max_ack\":").number(*max_ack);
            }
            text.push("}");
        }
        CtProtoInfo::Sctp(info) => push_number(text, "verification_tag", info.vtags.get(at).copied().flatten()),
        CtProtoInfo::Empty => {}
    }
}

fn push_status(text: &mut TextBuf, bits: Status) {
    text.push(",\"status\":[");
    let mut lead = "\"";
    for (name, _) in bits.iter_names() {
        text.push(lead).push(name).push("\"");
        lead = ",\"";
    }
    text.push("]");
}

pub(super) fn push_time(text: &mut TextBuf, name: &str, at: UnixTime) {
    text.push("\"").push(name).push("\":\"");
    DateFormat::push_rfc3339(at, text);
    text.push("\"");
}

/// Labels, times, helper, master, references.
fn push_extensions(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let flow = view.flow;
    if let Some(labels) = flow.labels {
        text.push(",\"labels\":[");
        let mut lead = "";
        for label in style.labels.visible(labels) {
            text.push(lead);
            match label {
                Label::Name(name) => text.push("\"").push_escaped(name, escape).push("\""),
                Label::Number(bit) => text.number(bit),
            };
            lead = ",";
        }
        text.push("]");
    }
    for (name, at) in [("start", flow.start), ("stop", flow.stop)] {
        if let Some(at) = at {
            text.push(",");
            push_time(text, name, UnixTime(at));
        }
    }
    for (name, value) in [("helper", &flow.helper), ("security_context", &flow.secctx)] {
        if let Some(value) = value {
            text.push(",\"").push(name).push("\":\"").push_escaped(value, escape).push("\"");
        }
    }
    if let Some(master) = &flow.master {
        text.push(",\"master\":{");
        push_tuple(text, master);
        text.push("}");
    }
    push_number(text, "uses", flow.use_count);
}

pub(super) fn escape(character: char) -> Option<&'static str> {
    Some(match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        _ => return None,
    })
}
