//! Protocols as conntrack names them, and the names of their states.
use keepstate_linux::ctnetlink::{CtProtoInfo, SctpState, TcpState};

/// The meaning of the two keys of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Keys {
    /// Source and destination port.
    Ports,
    /// ICMP's id, type and code.
    Icmp,
    /// GRE's keys.
    Gre,
    /// They have no meaning.
    None,
}

/// The protocols that `conntrack` knows; it calls all others `unknown`. (Recent kernels do not track DCCP; its ports are 0.)
const PROTOCOLS: &[(u8, &str, L4Keys)] = &[
    (1, "icmp", L4Keys::Icmp),
    (6, "tcp", L4Keys::Ports),
    (17, "udp", L4Keys::Ports),
    (33, "dccp", L4Keys::Ports),
    (47, "gre", L4Keys::Gre),
    (58, "icmpv6", L4Keys::Icmp),
    (132, "sctp", L4Keys::Ports),
    (136, "udplite", L4Keys::Ports),
];

/// The name of a protocol's state, where it has states.
pub fn state_name(protocol: &CtProtoInfo) -> Option<&'static str> {
    match protocol {
        CtProtoInfo::Tcp(info) => {
            info.state.map(|number| TcpState::from_number(number).map_or("UNKNOWN", TcpState::name))
        }
        CtProtoInfo::Sctp(info) => info.state.map(SctpState::name),
        CtProtoInfo::Empty => None,
    }
}

/// The name `conntrack` has for a protocol, if any.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    protocol_and_keys(number).0
}

/// The name `conntrack` has for a protocol, if any, and what its keys mean.
pub fn protocol_and_keys(number: u8) -> (Option<&'static str>, L4Keys) {
    match PROTOCOLS.iter().find(|(known, ..)| *known == number) {
        Some((_, name, keys)) => (Some(name), *keys),
        None => (None, L4Keys::None),
    }
}
