//! Transport protocols by number (`IPPROTO_*`).

/// IPv6: hop-by-hop options.
pub const HOPOPTS: u8 = 0;
/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP; recent kernels no longer track it.
pub const DCCP: u8 = 33;
/// IPv6: routing header.
pub const IPV6_ROUTE: u8 = 43;
/// IPv6: fragment header.
pub const IPV6_FRAG: u8 = 44;
/// GRE.
pub const GRE: u8 = 47;
/// IPsec: encrypted.
pub const ESP: u8 = 50;
/// IPsec: authentication header.
pub const AH: u8 = 51;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6: no next header (RFC 8200, 4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// IPv6: destination options.
pub const DSTOPTS: u8 = 60;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDPLITE: u8 = 136;
