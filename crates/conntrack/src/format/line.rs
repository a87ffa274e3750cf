//! Lines, as `conntrack -L` and `conntrack -E` print them.
use super::flow_view::{EventOrigin, FlowView};
use super::labels::Label;
use super::protocol::{L4Keys, protocol_and_keys, state_name};
use super::style::FormatStyle;
use super::text_buf::{TextBuf, no_escape};
use keepstate_engine::UnixTime;
use keepstate_linux::ctnetlink::{CtCounters, CtFamily, CtTuple, EventKind, Status};

/// Appends the line of a connection or event.
pub(super) fn push(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    if let Some(event) = view.event {
        if style.output.timestamp {
            push_event_time(text, event.at);
        }
        text.push(event_column(event.event_type));
    }
    let flow = view.flow;
    if style.output.extended {
        text.push(family_column(flow.family));
    }
    push_protocol(text, view.protocol());
    if let Some(timeout) = flow.timeout {
        text.number(timeout).push(" ");
    }
    if let Some(state) = state_name(&flow.protoinfo) {
        text.push(state).push(" ");
    }
    push_tuple(text, &flow.original);
    push_field(text, "zone-orig", flow.original.zone);
    push_counters(text, view.counts(0));
    if view.is_unreplied() {
        text.push("[UNREPLIED] ");
    }
    push_tuple(text, &flow.reply);
    push_field(text, "zone-reply", flow.reply.zone);
    push_counters(text, view.counts(1));
    text.push(if view.has_status(Status::HW_OFFLOAD) {
        "[HW_OFFLOAD] "
    } else if view.has_status(Status::OFFLOAD) {
        "[OFFLOAD] "
    } else if view.has_status(Status::ASSURED) {
        "[ASSURED] "
    } else {
        ""
    });
    push_extensions(text, view, style);
    push_origin(text, view, no_escape);
    text.end_line();
}

/// `[1795443749.838765]` and a tab.
pub(super) fn push_event_time(text: &mut TextBuf, at: UnixTime) {
    text.push("[")
        .zero_padded(at.0 / 1_000_000_000, 8)
        .push(".")
        .zero_padded(at.0 % 1_000_000_000 / 1000, 6)
        .push("]\t");
}

/// The event's type, in a column of ten.
pub(super) fn event_column(event_type: EventKind) -> &'static str {
    match event_type {
        EventKind::New => "    [NEW] ",
        EventKind::Update => " [UPDATE] ",
        EventKind::Destroy => "[DESTROY] ",
    }
}

/// The network layer's name and number.
fn family_column(family: Option<CtFamily>) -> &'static str {
    match family {
        Some(CtFamily::V4) => "ipv4     2 ",
        Some(CtFamily::V6) => "ipv6     10 ",
        None => "unknown  0 ",
    }
}

/// The transport's name and number.
fn push_protocol(text: &mut TextBuf, number: u8) {
    let name = protocol_and_keys(number).0.unwrap_or("unknown");
    // Names are padded to eight characters; none is longer.
    text.push(name).push("        ".get(name.len()..).unwrap_or("")).push(" ").number(number).push(" ");
}

pub(super) fn push_tuple(text: &mut TextBuf, tuple: &CtTuple) {
    text.push("src=").address_opt(tuple.source).push(" dst=").address_opt(tuple.destination).push(" ");
    match protocol_and_keys(tuple.protocol.unwrap_or(0)).1 {
        L4Keys::Ports => {
            text.field("sport", tuple.source_port.unwrap_or(0)).field("dport", tuple.destination_port.unwrap_or(0))
        }
        L4Keys::Icmp => text
            .field("type", tuple.icmp_type.unwrap_or(0))
            .field("code", tuple.icmp_code.unwrap_or(0))
            .field("id", tuple.icmp_id.unwrap_or(0)),
        L4Keys::Gre => text
            .push("srckey=0x")
            .hex(tuple.source_port.unwrap_or(0))
            .push(" dstkey=0x")
            .hex(tuple.destination_port.unwrap_or(0))
            .push(" "),
        L4Keys::None => text,
    };
}

/// A number, if it is set.
fn push_field(text: &mut TextBuf, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.field(name, value);
    }
}

fn push_counters(text: &mut TextBuf, counts: Option<CtCounters>) {
    if let Some(CtCounters { packets, bytes }) = counts {
        text.field("packets", packets).field("bytes", bytes);
    }
}

/// Attributes of neither direction.
fn push_extensions(text: &mut TextBuf, view: &FlowView<'_>, style: &FormatStyle) {
    let flow = view.flow;
    push_field(text, "mark", flow.mark);
    if let Some(context) = &flow.secctx {
        text.push("secctx=").push_escaped(context, no_escape).push(" ");
    }
    push_field(text, "zone", flow.zone);
    push_field(text, "delta-time", view.delta_time());
    if let Some((start, stop)) = view.timestamps().filter(|_| style.output.ktimestamp) {
        text.push("[start=");
        style.dates.push_ctime(UnixTime(start), text);
        text.push("] ");
        if let Some(stop) = stop {
            text.push("[stop=");
            style.dates.push_ctime(UnixTime(stop), text);
            text.push("] ");
        }
    }
    if let Some(helper) = &flow.helper {
        text.push("helper=").push_escaped(helper, no_escape).push(" ");
    }
    push_field(text, "use", flow.use_count);
    if style.output.id {
        push_field(text, "id", flow.id);
    }
    if let Some(labels) = view.labels().filter(|_| style.output.labels) {
        // Labels without a name leave the bare word, as they do in conntrack.
        text.push("labels");
        for (at, label) in style.labels.visible(labels).enumerate() {
            text.push(if at == 0 { "=" } else { "," });
            match label {
                Label::Name(name) => text.push_escaped(name, no_escape),
                Label::Number(bit) => text.number(bit),
            };
        }
        text.push(" ");
    }
}

/// The program that caused an event, in whichever format.
pub(super) fn push_origin(text: &mut TextBuf, view: &FlowView<'_>, escape: fn(char) -> Option<&'static str>) {
    if let Some(EventOrigin { portid: port, program: name }) = view.event.and_then(|event| event.origin) {
        text.ensure_space().push("[USERSPACE] portid=").number(port);
        if let Some(name) = name {
            text.push(" progname=").push_escaped(name, escape);
        }
    }
}
