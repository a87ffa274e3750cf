//! Protocols without states, only timeouts: UDP, UDP-Lite, ICMP, ICMPv6, GRE, and all others without a tracker.
use super::{TrackCtx, TrackResult, seconds_to_ticks};
use crate::Tuple;
use crate::table::record::HotRecord;
use crate::{Reason, Status, Sysctl};
use keepstate_types::ipproto;

/// A connection of a stateless protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stateless {
    /// UDP: a stream once it is replied to and older than the tick `stream_after`.
    Udp { stream_after: u32 },
    /// UDP-Lite: a stream once it is replied to.
    UdpLite,
    /// An ICMP query and its replies.
    Icmp,
    /// An ICMPv6 query and its replies.
    Icmpv6,
    /// GRE, with the timeouts (ticks) at the time it was created: unreplied, and replied.
    Gre { timeout: u32, stream: u32 },
    /// Any other protocol, by number.
    Other(u8),
}

/// Seconds after which a UDP connection that is still active becomes a stream.
const STREAM_AFTER_SECONDS: u32 = 2;

impl Stateless {
    /// Creates a connection from its first packet.
    pub(crate) fn from_first_packet(tuple: &Tuple, context: &TrackCtx<'_>) -> Result<Stateless, Reason> {
        Ok(match tuple.protocol {
            ipproto::UDP => Stateless::first_udp(context.now),
            ipproto::UDPLITE => Stateless::UdpLite,
            ipproto::ICMP if is_icmp_query(tuple.icmp_type()) => Stateless::Icmp,
            ipproto::ICMPV6 if is_icmpv6_query(tuple.icmp_type()) => Stateless::Icmpv6,
            ipproto::ICMP | ipproto::ICMPV6 => return Err(Reason::IcmpUnasked),
            ipproto::GRE => Stateless::Gre {
                timeout: seconds_to_ticks(context.sysctls[Sysctl::GreTimeout]),
                stream: seconds_to_ticks(context.sysctls[Sysctl::GreTimeoutStream]),
            },
            other => Stateless::Other(other),
        })
    }

    /// A UDP connection whose first packet is seen now.
    #[inline]
    pub(crate) const fn first_udp(now: u32) -> Stateless {
        Stateless::Udp { stream_after: now.wrapping_add(seconds_to_ticks(STREAM_AFTER_SECONDS)) }
    }

    /// Tracks one packet.
    pub(crate) fn track_packet(&self, context: &TrackCtx<'_>) -> TrackResult {
        let answered = context.status.contains(Status::SEEN_REPLY);
        let sysctl = |sysctl| seconds_to_ticks(context.sysctls[sysctl]);
        let (timeout, stream) = match *self {
            Stateless::Udp { stream_after } => {
                let old = (context.now.wrapping_sub(stream_after) as i32) > 0;
                let stream = answered && old;
                (sysctl(if stream { Sysctl::UdpTimeoutStream } else { Sysctl::UdpTimeout }), stream)
            }
            Stateless::UdpLite => {
                (sysctl(if answered { Sysctl::UdpTimeoutStream } else { Sysctl::UdpTimeout }), answered)
            }
            Stateless::Icmp => (sysctl(Sysctl::IcmpTimeout), false),
            Stateless::Icmpv6 => (sysctl(Sysctl::Icmpv6Timeout), false),
            Stateless::Gre { timeout, stream } => (if answered { stream } else { timeout }, answered),
            Stateless::Other(_) => (sysctl(Sysctl::GenericTimeout), false),
        };
        // A connection that lost a clash is seen in one direction only and ends soon: it never becomes assured.
        let assured =
            stream && !context.status.contains(Status::ASSURED) && !context.status.contains(Status::NAT_CLASH);
        TrackResult::Pass { timeout, changed: false, assured }
    }

    /// Reads the connection from a record.
    pub(crate) fn load(hot: &HotRecord) -> Stateless {
        match hot.protocol() {
            ipproto::UDP => Stateless::Udp { stream_after: hot.words[0] },
            ipproto::UDPLITE => Stateless::UdpLite,
            ipproto::ICMP => Stateless::Icmp,
            ipproto::ICMPV6 => Stateless::Icmpv6,
            ipproto::GRE => Stateless::Gre { timeout: hot.words[0], stream: hot.words[1] },
            other => Stateless::Other(other),
        }
    }

    /// Writes the connection into a record.
    pub(crate) fn store(&self, hot: &mut HotRecord) {
        match *self {
            Stateless::Udp { stream_after } => hot.words[0] = stream_after,
            Stateless::Gre { timeout, stream } => (hot.words[0], hot.words[1]) = (timeout, stream),
            Stateless::Other(number) => hot.state = number,
            Stateless::UdpLite | Stateless::Icmp | Stateless::Icmpv6 => (),
        }
    }
}

/// Echo, timestamp, information, address mask.
const fn is_icmp_query(kind: u8) -> bool {
    matches!(kind, 8 | 13 | 15 | 17)
}

/// Echo, node information.
const fn is_icmpv6_query(kind: u8) -> bool {
    matches!(kind, 128 | 139)
}
