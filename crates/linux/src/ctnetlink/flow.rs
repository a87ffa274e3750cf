//! A connection as it is in a ctnetlink message.
use super::CtTuple;
use keepstate_types::{SctpState, Status};
use std::net::IpAddr;

/// A connection. Decoded from one message, or filled in by a command and encoded; fields that are not in the message are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtFlow {
    /// The address family.
    pub family: Option<CtFamily>,
    /// The original tuple.
    pub original: CtTuple,
    /// The reply tuple.
    pub reply: CtTuple,
    /// The original tuple of the master connection.
    pub master: Option<CtTuple>,
    /// Status bits.
    pub status: Option<Status>,
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// The mark.
    pub mark: Option<u32>,
    /// The reference count.
    pub use_count: Option<u32>,
    /// Its id.
    pub id: Option<u32>,
    /// The zone of both directions.
    pub zone: Option<u16>,
    /// The protocol's state.
    pub protoinfo: CtProtoInfo,
    /// Packets and bytes, original then reply.
    pub counters: [Option<CtCounters>; 2],
    /// When it was confirmed, in nanoseconds since 1970.
    pub start: Option<u64>,
    /// When it ended, likewise.
    pub stop: Option<u64>,
    /// When the event occurred, likewise (Linux 6.14 and later, with timestamps on).
    pub event_timestamp: Option<u64>,
    /// Labels.
    pub labels: Option<CtLabels>,
    /// Which of [`labels`](Self::labels) to set; in requests only.
    pub labels_mask: Option<CtLabels>,
    /// The helper's name.
    pub helper: Option<Box<str>>,
    /// The security context.
    pub secctx: Option<Box<str>>,
    /// Sequence adjustment, original then reply.
    pub seqadj: [Option<CtSeqAdj>; 2],
    /// SYNPROXY's state.
    pub synproxy: Option<CtSynproxy>,
    /// Source NAT; in requests only.
    pub source_nat: Option<CtNatRange>,
    /// Destination NAT; in requests only.
    pub destination_nat: Option<CtNatRange>,
}

/// Address families of tracked connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl CtFamily {
    /// The family's number (`AF_INET`, `AF_INET6`).
    pub const fn number(self) -> u8 {
        match self {
            CtFamily::V4 => 2,
            CtFamily::V6 => 10,
        }
    }

    /// The family with this number.
    pub const fn from_number(number: u8) -> Option<CtFamily> {
        match number {
            2 => Some(CtFamily::V4),
            10 => Some(CtFamily::V6),
            _ => None,
        }
    }

    /// The family of an address.
    pub const fn of(address: IpAddr) -> CtFamily {
        match address {
            IpAddr::V4(_) => CtFamily::V4,
            IpAddr::V6(_) => CtFamily::V6,
        }
    }
}

/// The protocol's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CtProtoInfo {
    /// Not in the message.
    #[default]
    Empty,
    /// TCP's.
    Tcp(CtTcpInfo),
    /// SCTP's.
    Sctp(CtSctpInfo),
}

/// TCP's state. Unknown state numbers are kept: newer kernels may have more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtTcpInfo {
    /// The state's number.
    pub state: Option<u8>,
    /// Window scale, original then reply.
    pub wscale: [Option<u8>; 2],
    /// Flags and their mask, original then reply.
    pub flags: [Option<[u8; 2]>; 2],
}

/// SCTP's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSctpInfo {
    /// The state.
    pub state: Option<SctpState>,
    /// Verification tags, original then reply.
    pub vtags: [Option<u32>; 2],
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// Labels, bit 0 first.
pub type CtLabels = [u8; 16];

/// Sequence adjustment of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSeqAdj {
    /// The position of the correction.
    pub correction_pos: u32,
    /// The offset before it.
    pub offset_before: u32,
    /// The offset after it.
    pub offset_after: u32,
}

/// SYNPROXY's state of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSynproxy {
    /// Its own initial sequence number.
    pub isn: u32,
    /// Its initial timestamp.
    pub its: u32,
    /// The offset of timestamps.
    pub tsoff: u32,
}

/// An address and ports to translate to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtNatRange {
    /// The address.
    pub address: IpAddr,
    /// The lowest and highest port.
    pub ports: Option<[u16; 2]>,
}
