//! An expectation as it is shown: a copy, taken at one moment.
use super::Expectation;
use crate::table::TupleRef;
use crate::time::{TICKS_PER_SECOND, Ticks};
use crate::{Direction, Engine, Helper, Instant, Tuple};
use core::net::IpAddr;

/// One connection that is to come, as `/proc/net/nf_conntrack_expect` and `conntrack -L expect` show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ExpectationEntry {
    /// The tuple of its first packet, so far as the mask counts.
    pub tuple: Tuple,
    /// The bits of the source address that count. Those of the destination all do.
    pub source_mask: IpAddr,
    /// The bits of the source key that count: none where any port may come.
    pub source_key_mask: u16,
    /// The id of its zone.
    pub zone: u16,
    /// Whole seconds until it is over, rounded down as Linux prints them.
    pub timeout: u32,
    /// The original tuple of the connection that announced it.
    pub master: Tuple,
    /// The helper that heard it.
    pub helper: Helper,
    /// Which of the helper's kinds of expectations it is.
    pub class: u8,
}

impl Engine {
    /// One expectation, unless its time is over.
    pub(crate) fn dump_expectation(&self, expected: &Expectation, now: Instant) -> Option<ExpectationEntry> {
        if expected.deadline <= now {
            return None;
        }
        let ticks = expected.deadline.tick().wrapping_sub(now.tick());
        Some(ExpectationEntry {
            tuple: expected.tuple,
            source_mask: expected.mask.source,
            source_key_mask: expected.mask.source_key,
            zone: expected.zone,
            timeout: u32::try_from(u64::from(ticks) / TICKS_PER_SECOND).unwrap_or(u32::MAX),
            master: self.table.records.key(TupleRef::new(expected.master.slot, Direction::Original))?.tuple(),
            helper: expected.helper,
            class: expected.class,
        })
    }
}
