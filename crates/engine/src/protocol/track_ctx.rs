//! The context a tracker gets beside the packet, and the result it returns.
use crate::time::TICKS_PER_SECOND;
use crate::{Reason, Status, Sysctls};

/// A tracker's result for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackResult {
    /// The packet passes, is counted, and restarts the timeout.
    Pass {
        /// The timeout, in ticks.
        timeout: u32,
        /// The protocol state has changed.
        changed: bool,
        /// The connection must not be dropped early from now on.
        assured: bool,
    },
    /// The packet passes, but is not counted and does not restart the timeout.
    NoRefresh {
        reason: Option<Reason>,
        /// The protocol state was changed by an earlier chunk of the same packet.
        changed: bool,
    },
    /// The packet does not belong to this connection; the timeout may be shortened.
    Invalid { reason: Reason, shorten_to: Option<u32> },
    /// A new connection on an old tuple: remove this entry, and look up again.
    Restart,
    /// The packet passes, and the connection is removed at once.
    Delete,
}

impl TrackResult {
    pub(crate) const fn no_refresh(reason: Option<Reason>) -> TrackResult {
        TrackResult::NoRefresh { reason, changed: false }
    }

    pub(crate) const fn invalid(reason: Reason) -> TrackResult {
        TrackResult::Invalid { reason, shorten_to: None }
    }
}

/// The context a tracker gets beside the packet.
pub(crate) struct TrackCtx<'a> {
    pub(crate) sysctls: &'a Sysctls,
    pub(crate) status: Status,
    /// The current tick, modulo 2³².
    pub(crate) now: u32,
    /// Ticks until the connection expires.
    pub(crate) remaining_ticks: u32,
    /// Secret multipliers for segment hashes, unknown to the peers.
    pub(crate) secret: (u64, u64),
    /// How far the segment's acknowledgements are ahead of the sender's own numbers, where a helper changed that payload's length.
    pub(crate) ack_offset: u32,
}

/// Seconds as ticks; as in Linux at most what an `int` holds (less 64 million ticks, which bounds how late `poll` may be).
#[inline(always)]
pub(crate) const fn seconds_to_ticks(seconds: u32) -> u32 {
    const LONGEST: u64 = (1 << 31) - (1 << 26);
    let ticks = seconds as u64 * TICKS_PER_SECOND;
    (if ticks > LONGEST { LONGEST } else { ticks }) as u32
}
