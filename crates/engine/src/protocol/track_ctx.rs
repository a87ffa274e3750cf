//! What a tracker may know beside the packet, and what it makes of it.
use crate::time::TICKS_PER_SECOND;
use crate::{Reason, Status, Sysctls};

/// What a tracker makes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackResult {
    /// It passes, is counted, and the connection may now be silent so long.
    Pass {
        /// In ticks.
        timeout: u32,
        /// The protocol's state is another now.
        changed: bool,
        /// The connection is not to be dropped early from now on.
        assured: bool,
    },
    /// It passes, but nothing is counted and no timeout moves.
    NoRefresh {
        reason: Option<Reason>,
        /// The protocol's state is another now, by an earlier chunk of the same packet.
        changed: bool,
    },
    /// Not part of this connection; perhaps the connection is not to last much longer.
    Invalid { reason: Reason, shorten_to: Option<u32> },
    /// A new life on an old tuple: forget this entry, look up again.
    Restart,
    /// It passes and ends the connection at once.
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

/// What a tracker may know beside the packet.
pub(crate) struct TrackCtx<'a> {
    pub(crate) sysctls: &'a Sysctls,
    pub(crate) status: Status,
    /// The current tick, modulo 2³².
    pub(crate) now: u32,
    /// Until the connection expires.
    pub(crate) remaining_ticks: u32,
    /// Unknown to the peers, for folds.
    pub(crate) secret: (u64, u64),
    /// By how much the segment's acknowledgements are ahead of the numbers they are about, where a helper wrote into that stream.
    pub(crate) ack_offset: u32,
}

/// Ticks of so many seconds; as in Linux not more than an `int` holds (less 64 million ticks, which bounds how late `poll` may be).
#[inline(always)]
pub(crate) const fn seconds_to_ticks(seconds: u32) -> u32 {
    const LONGEST: u64 = (1 << 31) - (1 << 26);
    let ticks = seconds as u64 * TICKS_PER_SECOND;
    (if ticks > LONGEST { LONGEST } else { ticks }) as u32
}
