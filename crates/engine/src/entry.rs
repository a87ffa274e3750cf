//! A connection as `conntrack -L` and events show it: a copy, taken at one moment.
use crate::ConnId;
use crate::{SctpState, Status, TcpState, Tuple, UnixTime, Zone};

/// One connection, copied out of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Entry {
    /// Identifies the connection in this engine.
    pub conn_id: ConnId,
    /// The id that `conntrack -o id` prints: unpredictable, and constant while the connection exists.
    pub id: u32,
    /// The first packet's tuple.
    pub original: Tuple,
    /// The reply tuple, after NAT.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// Status bits.
    pub status: Status,
    /// Whole seconds until it expires, rounded down as Linux prints them.
    pub timeout: u32,
    /// The mark.
    pub mark: u32,
    /// Labels, bit 0 first; `None` if none were ever set.
    pub labels: Option<[u8; 16]>,
    /// Protocol state.
    pub protocol: ProtocolInfo,
    /// Packets and bytes, original then reply; `None` if it was created while `nf_conntrack_acct` was off.
    pub accounting: Option<[Accounting; 2]>,
    /// When it was confirmed, by the wall clock of then; `None` if it was created while `nf_conntrack_timestamp` was off.
    pub start: Option<UnixTime>,
    /// When it ended (in DESTROY events).
    pub stop: Option<UnixTime>,
    /// The helper attached to it.
    pub helper: Option<&'static str>,
    /// The original tuple of its master, if it was expected. The master may have ended since.
    pub master: Option<Tuple>,
    /// The reference count as Linux would print it: 1, plus one for each existing child connection.
    pub uses: u32,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Accounting {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

/// The protocol tracker's state of a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ProtocolInfo {
    /// TCP: state, and the values of each direction.
    Tcp {
        /// The state.
        state: TcpState,
        /// Original, then reply.
        sides: [TcpSide; 2],
    },
    /// SCTP: state and verification tags (original, reply).
    Sctp {
        /// The state.
        state: SctpState,
        /// Verification tags, original then reply.
        tags: [u32; 2],
    },
    /// Other protocols: there is no state but tuple and timeout.
    Stateless,
}

/// One direction of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TcpSide {
    /// `IP_CT_TCP_FLAG_*`: 0x01 window scale, 0x02 SACK permitted, 0x04 close initiated, 0x08 liberal, 0x10 data unacknowledged,
    /// 0x20 highest ack known.
    pub flags: u8,
    /// Window scale.
    pub scale: u8,
    /// Highest sequence number sent, plus one.
    pub end: u32,
    /// Highest sequence number this side may send, plus one.
    pub max_end: u32,
    /// Largest window it advertised, in bytes (scaled).
    pub max_window: u32,
    /// Highest acknowledgement number it sent.
    pub max_ack: u32,
}
