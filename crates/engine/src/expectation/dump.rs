//! Snapshot of an expectation for display.
use super::Expectation;
use crate::table::TupleRef;
use crate::time::{TICKS_PER_SECOND, Ticks};
use crate::{Direction, Engine, Helper, Instant, Tuple};
use core::net::IpAddr;

/// One expected connection, as `/proc/net/nf_conntrack_expect` and `conntrack -L expect` show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ExpectationEntry {
    /// The tuple of its first packet, under the mask.
    pub tuple: Tuple,
    /// Mask of the source address. The destination address is always compared in full.
    pub source_mask: IpAddr,
    /// Mask of the source key: 0 if any port may be used.
    pub source_key_mask: u16,
    /// The zone id.
    pub zone: u16,
    /// Whole seconds until it expires, rounded down as Linux prints them.
    pub timeout: u32,
    /// The original tuple of the master connection.
    pub master: Tuple,
    /// The helper of the connection that announced it, if it has one.
    pub helper: Option<Helper>,
    /// Its expectation class within the helper.
    pub class: u8,
}

impl Engine {
    /// One expectation; `None` if it has expired.
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
