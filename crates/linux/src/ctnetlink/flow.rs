//! A connection as the kernel tells of it, or as it is told to the kernel.
use super::CtTuple;
use keepstate_types::{SctpState, Status};
use std::net::IpAddr;

/// A connection, as far as it is told. It is decoded from one message, shown or compared, and gone; or filled in by a command and encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CtFlow {
    /// Of the addresses.
    pub family: Option<CtFamily>,
    /// The first packet's direction.
    pub original: CtTuple,
    /// The answer's.
    pub reply: CtTuple,
    /// The original direction of the connection that announced this one.
    pub master: Option<CtTuple>,
    /// Status bits.
    pub status: Option<Status>,
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// The mark.
    pub mark: Option<u32>,
    /// References.
    pub use_count: Option<u32>,
    /// Stable for the connection's life.
    pub id: Option<u32>,
    /// The zone of both directions.
    pub zone: Option<u16>,
    /// What its protocol knows.
    pub protoinfo: CtProtoInfo,
    /// Packets and bytes, original then reply.
    pub counters: [Option<CtCounters>; 2],
    /// When it was confirmed, in nanoseconds since 1970.
    pub start: Option<u64>,
    /// When it ended, likewise.
    pub stop: Option<u64>,
    /// When the event happened, likewise (Linux 6.14 and later, with timestamps on).
    pub event_timestamp: Option<u64>,
    /// Labels.
    pub labels: Option<CtLabels>,
    /// Which of [`labels`](Self::labels) are to be set; only to the kernel.
    pub labels_mask: Option<CtLabels>,
    /// The helper's name.
    pub helper: Option<Box<str>>,
    /// The security context.
    pub secctx: Option<Box<str>>,
    /// How a helper moved sequence numbers, original then reply.
    pub seqadj: [Option<CtSeqAdj>; 2],
    /// What SYNPROXY holds of it.
    pub synproxy: Option<CtSynproxy>,
    /// How the source is to be translated; only to the kernel.
    pub source_nat: Option<CtNatRange>,
    /// How the destination is to be translated; only to the kernel.
    pub destination_nat: Option<CtNatRange>,
}

/// Address families that connections are tracked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl CtFamily {
    /// As of sockets.
    pub const fn number(self) -> u8 {
        match self {
            CtFamily::V4 => 2,
            CtFamily::V6 => 10,
        }
    }

    /// The family with this number, if connections of it are tracked.
    pub const fn from_number(number: u8) -> Option<CtFamily> {
        match number {
            2 => Some(CtFamily::V4),
            10 => Some(CtFamily::V6),
            _ => None,
        }
    }

    /// Of an address.
    pub const fn of(address: IpAddr) -> CtFamily {
        match address {
            IpAddr::V4(_) => CtFamily::V4,
            IpAddr::V6(_) => CtFamily::V6,
        }
    }
}

/// What a protocol's tracker knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CtProtoInfo {
    /// Nothing that is told.
    #[default]
    Empty,
    /// TCP's.
    Tcp(CtTcpInfo),
    /// SCTP's.
    Sctp(CtSctpInfo),
}

/// What TCP's tracker knows. A number that is no state is kept: newer kernels may have more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtTcpInfo {
    /// The state's number.
    pub state: Option<u8>,
    /// Window scale, original then reply.
    pub wscale: [Option<u8>; 2],
    /// Flags and which of them are meant, original then reply.
    pub flags: [Option<[u8; 2]>; 2],
}

/// What SCTP's tracker knows.
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

/// How a helper moved the sequence numbers of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSeqAdj {
    /// Where.
    pub correction_pos: u32,
    /// By how much before that.
    pub offset_before: u32,
    /// By how much after it.
    pub offset_after: u32,
}

/// What SYNPROXY holds of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtSynproxy {
    /// Its own initial sequence number.
    pub isn: u32,
    /// Its initial timestamp.
    pub its: u32,
    /// The offset of timestamps.
    pub tsoff: u32,
}

/// An address, and ports, that something is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtNatRange {
    /// The address.
    pub address: IpAddr,
    /// The lowest and highest port.
    pub ports: Option<[u16; 2]>,
}
