//! The arguments of `conntrack` that would create an entry again, as `conntrack -o save` prints them.
use super::flow_view::FlowView;
use super::line;
use super::protocol::{L4Keys, protocol_and_keys};
use super::text_buf::{TextBuf, no_escape};
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

/// Appends the line of a connection or event, without the mark, as conntrack does.
pub(super) fn push(text: &mut TextBuf, view: &FlowView<'_>) {
    let flow = view.flow;
    text.push(match view.event_type() {
        None if view.deleted => "-D ",
        None | Some(EventKind::New) => "-A ",
        Some(EventKind::Update) => "-U ",
        Some(EventKind::Destroy) => "-D ",
    });
    push_option(text, "-t", flow.timeout);
    push_status(text, view);
    for (name, zone) in [("-w", flow.zone), ("--orig-zone", flow.original.zone), ("--reply-zone", flow.reply.zone)] {
        push_option(text, name, zone);
    }
    push_addresses(text, &flow.original, &flow.reply);
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
        CtProtoInfo::Empty => {}
    }
    line::push_origin(text, view, no_escape);
    text.end_line();
}

/// conntrack reads and writes a verification tag, four bytes in network order, as a number in host order.
pub(crate) fn vtag_as_conntrack(tag: u32) -> u32 {
    u32::from_ne_bytes(tag.to_be_bytes())
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

/// If the reply's addresses differ from the original's, the connection is translated, and the option says how.
fn push_addresses(text: &mut TextBuf, original: &CtTuple, reply: &CtTuple) {
    let mut address = |name: &str, address: Option<IpAddr>| {
        if let Some(address) = address {
            text.push(name).address(address).push(" ");
        }
    };
    address("-s ", original.source);
    address("-d ", original.destination);
    address(if reply.source == original.destination { "-r " } else { "-g " }, reply.source);
    address(if reply.destination == original.source { "-q " } else { "-n " }, reply.destination);
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
