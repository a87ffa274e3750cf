//! Transport protocols by number (`IPPROTO_*`).

/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// DCCP; recent kernels no longer track it.
pub const DCCP: u8 = 33;
/// GRE.
pub const GRE: u8 = 47;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
/// IPv6: no next header (RFC 8200, 4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// SCTP.
pub const SCTP: u8 = 132;
/// UDP-Lite.
pub const UDPLITE: u8 = 136;
