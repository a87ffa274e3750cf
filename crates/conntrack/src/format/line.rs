//! Lines, as `conntrack -L` and `conntrack -E` print them.
use super::labels::Label;
use super::text::{Text, plain};
use super::view::{Cause, View};
use super::{Keys, Style, protocol, state};
use keepstate_engine::Instant;
use keepstate_linux::ctnetlink::{Counts, Family, Happening, Tuple, status};

/// Appends the line of a connection or event.
pub(super) fn push(text: &mut Text, view: &View<'_>, style: &Style) {
    if let Some(occasion) = view.occasion {
        if style.output.timestamp {
            event_time(text, occasion.at);
        }
        text.push(mark(occasion.happening));
    }
    let flow = view.flow;
    if style.output.extended {
        text.push(family(flow.family));
    }
    transport(text, view.protocol());
    if let Some(timeout) = flow.timeout {
        text.number(timeout).push(" ");
    }
    if let Some(state) = state(&flow.protocol) {
        text.push(state).push(" ");
    }
    tuple(text, &flow.original);
    field(text, "zone-orig", flow.original.zone);
    counts(text, view.counts(0));
    if view.is_unreplied() {
        text.push("[UNREPLIED] ");
    }
    tuple(text, &flow.reply);
    field(text, "zone-reply", flow.reply.zone);
    counts(text, view.counts(1));
    text.push(if view.has(status::HW_OFFLOAD) {
        "[HW_OFFLOAD] "
    } else if view.has(status::OFFLOAD) {
        "[OFFLOAD] "
    } else if view.has(status::ASSURED) {
        "[ASSURED] "
    } else {
        ""
    });
    extras(text, view, style);
    cause(text, view);
    text.end_line();
}

/// `[1795443749.838765]` and a tab.
pub(super) fn event_time(text: &mut Text, at: Instant) {
    text.push("[").padded(at.0 / 1_000_000_000, 8).push(".").padded(at.0 % 1_000_000_000 / 1000, 6).push("]\t");
}

/// What happened, in a column of ten.
pub(super) fn mark(happening: Happening) -> &'static str {
    match happening {
        Happening::New => "    [NEW] ",
        Happening::Update => " [UPDATE] ",
        Happening::Destroy => "[DESTROY] ",
    }
}

/// The network layer's name and number.
fn family(family: Option<Family>) -> &'static str {
    match family {
        Some(Family::V4) => "ipv4     2 ",
        Some(Family::V6) => "ipv6     10 ",
        None => "unknown  0 ",
    }
}

/// The transport's name and number.
fn transport(text: &mut Text, number: u8) {
    let name = protocol(number).0.unwrap_or("unknown");
    // Names stand in a column of eight; none is longer.
    text.push(name).push("        ".get(name.len()..).unwrap_or("")).push(" ").number(number).push(" ");
}

pub(super) fn tuple(text: &mut Text, tuple: &Tuple) {
    text.push("src=").told(tuple.source).push(" dst=").told(tuple.destination).push(" ");
    match protocol(tuple.protocol.unwrap_or(0)).1 {
        Keys::Ports => {
            text.field("sport", tuple.source_port.unwrap_or(0)).field("dport", tuple.destination_port.unwrap_or(0))
        }
        Keys::Icmp => text
            .field("type", tuple.icmp_type.unwrap_or(0))
            .field("code", tuple.icmp_code.unwrap_or(0))
            .field("id", tuple.icmp_id.unwrap_or(0)),
        Keys::Gre => text
            .push("srckey=0x")
            .hex(tuple.source_port.unwrap_or(0))
            .push(" dstkey=0x")
            .hex(tuple.destination_port.unwrap_or(0))
            .push(" "),
        Keys::None => text,
    };
}

/// A number, if it was told.
fn field(text: &mut Text, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.field(name, value);
    }
}

fn counts(text: &mut Text, counts: Option<Counts>) {
    if let Some(Counts { packets, bytes }) = counts {
        text.field("packets", packets).field("bytes", bytes);
    }
}

/// What belongs to neither direction.
fn extras(text: &mut Text, view: &View<'_>, style: &Style) {
    let flow = view.flow;
    field(text, "mark", flow.mark);
    if let Some(context) = &flow.context {
        text.push("secctx=").foreign(context, plain).push(" ");
    }
    field(text, "zone", flow.zone);
    field(text, "delta-time", view.age());
    if let Some((start, stop)) = view.times().filter(|_| style.output.ktimestamp) {
        text.push("[start=");
        style.calendar.date(Instant(start), text);
        text.push("] ");
        if let Some(stop) = stop {
            text.push("[stop=");
            style.calendar.date(Instant(stop), text);
            text.push("] ");
        }
    }
    if let Some(helper) = &flow.helper {
        text.push("helper=").foreign(helper, plain).push(" ");
    }
    field(text, "use", flow.uses);
    if style.output.id {
        field(text, "id", flow.id);
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
        text.push(" ");
    }
}

/// The program that caused an event, in whichever format.
pub(super) fn cause(text: &mut Text, view: &View<'_>) {
    if let Some(Cause { port, name }) = view.occasion.and_then(|occasion| occasion.cause) {
        text.end_field().push("[USERSPACE] portid=").number(port);
        if let Some(name) = name {
            text.push(" progname=").foreign(name, plain);
        }
    }
}
