//! Numbers of the transport protocols (`IPPROTO_*`), and their names.

pub use keepstate_types::ipproto::{
    AH, DCCP, DSTOPTS, ESP, GRE, HOPOPTS, ICMP, ICMPV6, IPV6_FRAG, IPV6_ROUTE, NO_NEXT_HEADER, SCTP, TCP, UDP, UDPLITE,
};

/// The protocol's usual name; `None` for a number that has no constant here.
pub const fn name(protocol: u8) -> Option<&'static str> {
    Some(match protocol {
        ICMP => "ICMP",
        TCP => "TCP",
        UDP => "UDP",
        DCCP => "DCCP",
        GRE => "GRE",
        ICMPV6 => "ICMPv6",
        SCTP => "SCTP",
        UDPLITE => "UDP-Lite",
        _ => return None,
    })
}
