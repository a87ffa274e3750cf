//! What a rule can do that needs no expression: limits, log lines, rejects, verdicts, targets of `set`.
use super::header_field::{Endpoint, PayloadField};
use super::selector::ExthdrField;
use crate::source::Span;
use keepstate_engine::ZoneDirection;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Match only what exceeds the rate.
    pub over: bool,
    /// How many packets or bytes …
    pub rate: u64,
    /// … per this many seconds.
    pub seconds: u64,
    /// How many more at once.
    pub burst: u64,
    /// Count bytes instead of packets.
    pub per_byte: bool,
}

/// State that an element of a set can have of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatefulSpec {
    /// A rate limit.
    Limit(Limit),
    /// A byte quota.
    Quota {
        /// Match only beyond the quota.
        over: bool,
        /// Bytes.
        bytes: u64,
        /// Of which this many were used when the text was written.
        used: u64,
    },
    /// A number of connections.
    ConnLimit {
        /// Match only above the number.
        over: bool,
        /// Connections.
        count: u32,
    },
    /// Counts packets and bytes, starting from these.
    Counter(u64, u64),
}

/// A log statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Prefix of the line.
    pub prefix: String,
    /// A record for the audit log.
    pub audit: bool,
    /// Level, by syslog's number; 4 is a warning.
    pub level: Option<u8>,
    /// The nfnetlink_log group.
    pub group: Option<u16>,
    /// Bytes of the packet for the group.
    pub snaplen: Option<u32>,
    /// Packets to collect for the group.
    pub queue_threshold: Option<u32>,
    /// What the line has beyond the usual.
    pub flags: LogFlags,
}

/// Further fields of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFlags {
    /// TCP's sequence and acknowledgement numbers.
    pub tcp_sequence: bool,
    /// TCP's options.
    pub tcp_options: bool,
    /// IPv4's options, IPv6's extension headers.
    pub ip_options: bool,
    /// The Ethernet header's fields by their names.
    pub ether: bool,
    /// The socket's user. It adds nothing: the packets of a router have no socket.
    pub skuid: bool,
}

/// Which way a security mark is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecMarkCopy {
    /// From the packet to its connection.
    ToConnection,
    /// From the connection to the packet.
    FromConnection,
}

/// How a packet is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// ICMP or ICMPv6 port unreachable, by the packet's family.
    Default,
    /// A TCP reset.
    TcpReset,
    /// ICMP destination unreachable with this code.
    Icmp(u8),
    /// ICMPv6 destination unreachable with this code.
    Icmpv6(u8),
    /// By the packet's family.
    Icmpx(Icmpx),
}

/// Reject reasons that both families have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Icmpx {
    NoRoute,
    PortUnreachable,
    HostUnreachable,
    AdminProhibited,
}

impl Reject {
    /// ICMP or ICMPv6 type and code of the reply; `None` for a TCP reset.
    pub fn icmp_type_code(self, v6: bool) -> Option<(u8, u8)> {
        Some(match (self, v6) {
            (Reject::TcpReset, _) => return None,
            (Reject::Default, false) | (Reject::Icmpx(Icmpx::PortUnreachable), false) => (3, 3),
            (Reject::Default, true) | (Reject::Icmpx(Icmpx::PortUnreachable), true) => (1, 4),
            (Reject::Icmp(code), _) => (3, code),
            (Reject::Icmpv6(code), _) => (1, code),
            (Reject::Icmpx(Icmpx::NoRoute), false) => (3, 0),
            (Reject::Icmpx(Icmpx::NoRoute), true) => (1, 0),
            (Reject::Icmpx(Icmpx::HostUnreachable), false) => (3, 1),
            (Reject::Icmpx(Icmpx::HostUnreachable), true) => (1, 3),
            (Reject::Icmpx(Icmpx::AdminProhibited), false) => (3, 13),
            (Reject::Icmpx(Icmpx::AdminProhibited), true) => (1, 1),
        })
    }
}

/// A verdict, with chains by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftVerdict {
    /// Leaves this base chain.
    Accept,
    /// Drops the packet.
    Drop,
    /// Goes to the next rule.
    Continue,
    /// Returns to the calling chain.
    Return,
    /// Runs another chain and comes back.
    Jump(String, Span),
    /// Runs another chain and does not come back.
    Goto(String, Span),
}

/// What `set` can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum AssignTarget {
    MetaMark,
    MetaPriority,
    NfTrace,
    PacketType,
    CtMark,
    /// The zone, in both directions or in one.
    CtZone(ZoneDirection),
    CtLabel,
    CtEvents,
    /// Of IPv6, or of IPv4.
    Dscp {
        v6: bool,
    },
    Ttl {
        v6: bool,
    },
    /// An address, without NAT of the connection.
    Address {
        v6: bool,
        endpoint: Endpoint,
    },
    /// A port of this protocol (of any with ports if `None`), without NAT of the connection.
    Port {
        protocol: Option<u8>,
        endpoint: Endpoint,
    },
    /// The MSS that SYNs announce; never raised.
    TcpMss,
    /// A field of 16 or 32 bits in a TCP option.
    TcpOption(ExthdrField),
    /// Bits of a header.
    Payload(PayloadField),
}
