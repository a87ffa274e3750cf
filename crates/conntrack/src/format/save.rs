//! The arguments of `conntrack` that would create an entry again, as `conntrack -o save` prints them, and behind them what else the entry
//! has (`saved_attributes`).
use super::flow_view::FlowView;
use super::line;
use super::protocol::{L4Keys, protocol_and_keys};
use super::saved_attributes::SavedAttributes;
use super::text_buf::{TextBuf, word_escape};
use keepstate_linux::ctnetlink::{CtProtoInfo, CtTuple, EventKind, SctpState, Status, TcpState};
use std::net::IpAddr;

/// The status bits that can be set, in the order they are printed.
const SETTABLE_STATUS: &[(Status, &str)] = &[
    (Status::EXPECTED, "EXPECTED"),
    (Status::SEEN_REPLY, "SEEN_REPLY"),
    (Status::ASSURED, "ASSURED"),
    (Status::FIXED_TIMEOUT, "FIXED_TIMEOUT"),
    (Status::OFFLOAD, "OFFLOAD"),
    (Status::HW_OFFLOAD, "HW_OFFLOAD"),
];

/// Appends the line of a connection or event.
pub(super) fn push(text: &mut TextBuf, view: &FlowView<'_>) {
    let flow = view.flow;
    let command = match view.event_type() {
        None if view.deleted => "-D ",
        None | Some(EventKind::New) => "-A ",
        Some(EventKind::Update) => "-U ",
        Some(EventKind::Destroy) => "-D ",
    };
    text.push(command);
    push_option(text, "-t", flow.timeout.or_else(|| untold_timeout(view)));
    push_status(text, view);
    for (name, zone) in [("-w", flow.zone), ("--orig-zone", flow.original.zone), ("--reply-zone", flow.reply.zone)] {
        push_option(text, name, zone);
    }
    push_addresses(text, view);
    let number = view.protocol();
    match protocol_and_keys(number).0 {
        Some(name) => text.push("-p ").push(name).push(" "),
        None => text.push("-p ").number(number).push(" "),
    };
    push_l4_keys(text, &flow.original, &flow.reply);
    match &flow.protoinfo {
        CtProtoInfo::Tcp(info) => {
            if let Some(state) = info.state.and_then(TcpState::from_number) {
                text.push("--state ").push(state.name()).push(" ");
            }
        }
        CtProtoInfo::Sctp(info) => {
            if let Some(state) = info.state {
                text.push("--state ").push(SctpState::name(state)).push(" ");
            }
            push_option(text, "--orig-vtag", info.vtags[0].map(vtag_as_conntrack));
            push_option(text, "--reply-vtag", info.vtags[1].map(vtag_as_conntrack));
        }
        CtProtoInfo::Empty if untold_timeout(view).is_some() && number == 6 => {
            text.push("--state ").push(TcpState::Established.name()).push(" ");
        }
        CtProtoInfo::Empty => {}
    }
    // conntrack prints no mark, but reads it; behind -u, which would overwrite it there.
    push_option(text, "-m", flow.mark.filter(|mark| *mark != 0 && command != "-D "));
    line::push_origin(text, view, word_escape);
    if command == "-A " {
        SavedAttributes::of(flow).push(text);
    }
    text.end_line();
}

/// conntrack reads and writes a verification tag, four bytes in network order, as a number in host order.
pub(crate) fn vtag_as_conntrack(tag: u32) -> u32 {
    u32::from_ne_bytes(tag.to_be_bytes())
}

/// The kernel tells neither timeout nor state of an offloaded connection. It is established, and has the timeout of that when its packets
/// come back to the rules; without one the line could not be restored.
fn untold_timeout(view: &FlowView<'_>) -> Option<u32> {
    if view.flow.timeout.is_some() || !view.has_status(Status::OFFLOAD) && !view.has_status(Status::HW_OFFLOAD) {
        return None;
    }
    Some(match view.protocol() {
        6 => 432_000,
        47 => 180,
        _ => 120,
    })
}

fn push_option(text: &mut TextBuf, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.push(name).push(" ").number(value).push(" ");
    }
}

fn push_status(text: &mut TextBuf, view: &FlowView<'_>) {
    let mut lead = "-u ";
    for (_, name) in SETTABLE_STATUS.iter().filter(|(status, _)| view.has_status(*status)) {
        text.push(lead).push(name);
        lead = ",";
    }
    text.push(if lead == "," { " " } else { "-u UNSET " });
}

/// `-g` and `-n` where the connection is translated, `-r` and `-q` where the reply's address is merely told.
fn push_addresses(text: &mut TextBuf, view: &FlowView<'_>) {
    let (original, reply) = (&view.flow.original, &view.flow.reply);
    let mut address = |name: &str, address: Option<IpAddr>| {
        if let Some(address) = address {
            text.push(name).address(address).push(" ");
        }
    };
    address("-s ", original.source);
    address("-d ", original.destination);
    for (options, nat, was, is) in [
        (["-r ", "-g "], Status::DST_NAT, destination(original), source(reply)),
        (["-q ", "-n "], Status::SRC_NAT, source(original), destination(reply)),
    ] {
        push_reply_address(text, options, view.has_status(nat), was, is);
    }
}

fn source(tuple: &CtTuple) -> Endpoint {
    Endpoint { address: tuple.source, port: tuple.source_port, icmp_id: tuple.icmp_id }
}

fn destination(tuple: &CtTuple) -> Endpoint {
    Endpoint { address: tuple.destination, port: tuple.destination_port, icmp_id: tuple.icmp_id }
}

/// An address and what the protocol adds to it.
#[derive(PartialEq, Eq)]
struct Endpoint {
    address: Option<IpAddr>,
    port: Option<u16>,
    icmp_id: Option<u16>,
}

/// The reply's address of one side. A translation of the port alone names the port, since conntrack takes the reply's ports for given.
fn push_reply_address(text: &mut TextBuf, options: [&str; 2], nat: bool, was: Endpoint, is: Endpoint) {
    let Some(address) = is.address else { return };
    let [plain, translated] = options;
    text.push(if nat && was != is { translated } else { plain });
    match is.port.filter(|_| nat && was.address == is.address && was.port != is.port) {
        Some(port) if address.is_ipv6() => text.push("[").address(address).push("]:").number(port),
        Some(port) => text.address(address).push(":").number(port),
        None => text.address(address),
    };
    text.push(" ");
}

fn push_l4_keys(text: &mut TextBuf, original: &CtTuple, reply: &CtTuple) {
    match protocol_and_keys(original.protocol.unwrap_or(0)).1 {
        L4Keys::Ports => {
            push_option(text, "--sport", original.source_port);
            push_option(text, "--dport", original.destination_port);
            push_option(text, "--reply-port-src", reply.source_port);
            push_option(text, "--reply-port-dst", reply.destination_port);
        }
        L4Keys::Gre => {
            push_option(text, "--srckey", original.source_port);
            push_option(text, "--dstkey", original.destination_port);
            push_option(text, "--reply-key-src", reply.source_port);
            push_option(text, "--reply-key-dst", reply.destination_port);
        }
        L4Keys::Icmp => {
            let [kind, code, id] = if original.protocol == Some(1) {
                ["--icmp-type", "--icmp-code", "--icmp-id"]
            } else {
                ["--icmpv6-type", "--icmpv6-code", "--icmpv6-id"]
            };
            push_option(text, kind, original.icmp_type);
            push_option(text, code, original.icmp_code);
            push_option(text, id, original.icmp_id);
        }
        L4Keys::None => {}
    }
}
