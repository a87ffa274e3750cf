//! The arguments of `conntrack` that would make an entry again, as `conntrack -o save` prints them.
use super::text::Text;
use super::view::View;
use super::{Keys, line, protocol};
use keepstate_linux::ctnetlink::{Happening, Protocol, SctpState, TcpState, Tuple, status};
use std::net::IpAddr;

/// The states one can give an entry, in the order they are printed.
const SETTABLE: &[(u32, &str)] = &[
    (status::EXPECTED, "EXPECTED"),
    (status::SEEN_REPLY, "SEEN_REPLY"),
    (status::ASSURED, "ASSURED"),
    (status::FIXED_TIMEOUT, "FIXED_TIMEOUT"),
    (status::OFFLOAD, "OFFLOAD"),
    (status::HW_OFFLOAD, "HW_OFFLOAD"),
];

/// Appends the line of a connection or event. The mark is not in it: conntrack leaves it out.
pub(super) fn push(text: &mut Text, view: &View<'_>) {
    let flow = view.flow;
    text.push(match view.happening() {
        None if view.deleted => "-D ",
        None | Some(Happening::New) => "-A ",
        Some(Happening::Update) => "-U ",
        Some(Happening::Destroy) => "-D ",
    });
    option(text, "-t", flow.timeout);
    status(text, view);
    for (name, zone) in [("-w", flow.zone), ("--orig-zone", flow.original.zone), ("--reply-zone", flow.reply.zone)] {
        option(text, name, zone);
    }
    addresses(text, &flow.original, &flow.reply);
    let number = view.protocol();
    match protocol(number).0 {
        Some(name) => text.push("-p ").push(name).push(" "),
        None => text.push("-p ").number(number).push(" "),
    };
    keys(text, &flow.original, &flow.reply);
    match &flow.protocol {
        Protocol::Tcp(info) => {
            if let Some(state) = info.state.and_then(TcpState::numbered) {
                text.push("--state ").push(state.name()).push(" ");
            }
        }
        Protocol::Sctp(info) => {
            if let Some(state) = info.state {
                text.push("--state ").push(SctpState::name(state)).push(" ");
            }
            option(text, "--orig-vtag", info.tags[0].map(as_conntrack_reads));
            option(text, "--reply-vtag", info.tags[1].map(as_conntrack_reads));
        }
        Protocol::Nothing => {}
    }
    line::cause(text, view);
    text.end_line();
}

/// conntrack reads and writes a verification tag, four octets in network order, as a number in this machine's order.
pub(crate) fn as_conntrack_reads(tag: u32) -> u32 {
    u32::from_ne_bytes(tag.to_be_bytes())
}

fn option(text: &mut Text, name: &str, value: Option<impl itoa::Integer>) {
    if let Some(value) = value {
        text.push(name).push(" ").number(value).push(" ");
    }
}

fn status(text: &mut Text, view: &View<'_>) {
    let mut lead = "-u ";
    for (_, name) in SETTABLE.iter().filter(|(status, _)| view.has(*status)) {
        text.push(lead).push(name);
        lead = ",";
    }
    text.push(if lead == "," { " " } else { "-u UNSET " });
}

/// Where the answer's addresses are not the original's, the connection is translated, and the option says which way.
fn addresses(text: &mut Text, original: &Tuple, reply: &Tuple) {
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

fn keys(text: &mut Text, original: &Tuple, reply: &Tuple) {
    match protocol(original.protocol.unwrap_or(0)).1 {
        Keys::Ports => {
            option(text, "--sport", original.source_port);
            option(text, "--dport", original.destination_port);
            option(text, "--reply-port-src", reply.source_port);
            option(text, "--reply-port-dst", reply.destination_port);
        }
        Keys::Gre => {
            option(text, "--srckey", original.source_port);
            option(text, "--dstkey", original.destination_port);
            option(text, "--reply-key-src", reply.source_port);
            option(text, "--reply-key-dst", reply.destination_port);
        }
        Keys::Icmp => {
            let [kind, code, id] = if original.protocol == Some(1) {
                ["--icmp-type", "--icmp-code", "--icmp-id"]
            } else {
                ["--icmpv6-type", "--icmpv6-code", "--icmpv6-id"]
            };
            option(text, kind, original.icmp_type);
            option(text, code, original.icmp_code);
            option(text, id, original.icmp_id);
        }
        Keys::None => {}
    }
}
