//! A full table: unassured connections make room, with bounded work; else the packet is dropped, counted and logged.
//!
//! A packet dropped so is a call for help: [`Engine::gc_full`] then ends connections that are unassured or closing anyway, until the table is 95 % full,
//! as Linux does in its next round of collecting (which may be a minute later; here it is the next [`Engine::poll`], but once in ten seconds).
pub(crate) mod gc_state;

use crate::protocol::{Tcp, sctp::Sctp};
use crate::table::record::HotRecord;
use crate::table::{LookupKey, TupleRef};
use crate::time::Ticks;
use crate::{Engine, Instant, Outcome, PacketCtx, Reason, Status, Sysctl};
use alloc::string::String;
use keepstate_types::ipproto;

/// Buckets of the index that are looked at for a connection to drop, as in Linux.
const EARLY_DROP_BUCKETS: usize = 8;

impl Engine {
    /// Is there a place for one more connection, or can one be made?
    #[inline(always)]
    pub(crate) fn make_room(&mut self, probe: &LookupKey, now: Instant) -> bool {
        let limit = self.sysctls[Sysctl::Max] as usize;
        // As in Linux, a limit of zero is none.
        limit == 0 || self.table.count() < limit || self.early_drop(probe, now)
    }

    /// Removes one unassured connection (or one that has expired) near where the new one would stand. Where that is depends on a secret,
    /// so nobody chooses whom to push out. Linux removes all it finds in one bucket; one is enough.
    #[cold]
    fn early_drop(&mut self, probe: &LookupKey, now: Instant) -> bool {
        let tick = now.tick();
        let records = &self.table.records;
        let victim = self.table.scan_buckets(probe, EARLY_DROP_BUCKETS, |references: &[TupleRef]| {
            let weak = references.iter().filter_map(|reference| {
                let hot = records.hot(reference.slot())?;
                let kept = Status::ASSURED | Status::OFFLOAD;
                (hot.is_expired(tick) || !hot.status().intersects(kept))
                    .then_some((hot.deadline.wrapping_sub(tick) as i32, reference.slot()))
            });
            weak.min()
        });
        let Some((remaining, slot)) = victim else { return false };
        if remaining > 0 {
            self.counters.early_drop += 1;
        }
        self.destroy(slot, now);
        true
    }

    /// There was no room.
    #[cold]
    pub(crate) fn drop_table_full(&mut self, now: Instant) -> PacketCtx {
        self.gc_state.cursor.get_or_insert(0);
        self.counters.drop += 1;
        self.count_reason(Reason::TableFull);
        self.log.push_ratelimited(now, || String::from("nf_conntrack: table full, dropping packet"));
        PacketCtx::finished(Outcome::dropped(Reason::TableFull))
    }

    /// Ends weak connections of at most `budget` slots, from where it stopped before.
    #[cold]
    pub(crate) fn gc_full(&mut self, now: Instant, budget: usize) {
        let due = self.next_gc_full(now).is_some_and(|due| due <= now);
        let Some(begin) = self.gc_state.cursor.take_if(|_| due) else { return };
        if begin == 0 {
            self.gc_state.next_round = Instant(now.0 + GC_FULL_INTERVAL_NANOS);
        }
        let enough = self.sysctls[Sysctl::Max] as usize / 100 * 95;
        let end = (begin as usize + budget).min(self.table.records.slot_count()) as u32;
        for slot in begin..end {
            // As in Linux, a limit under a hundred is too small for this.
            if enough == 0 || self.table.count() < enough {
                return;
            }
            if self.table.records.hot(slot).is_some_and(can_early_drop) {
                self.destroy(slot, now);
            }
        }
        self.gc_state.cursor = ((end as usize) < self.table.records.slot_count()).then_some(end);
    }

    /// When [`Engine::gc_full`] has something to do.
    pub(crate) fn next_gc_full(&self, now: Instant) -> Option<Instant> {
        self.gc_state.cursor.map(|begun| if begun == 0 { self.gc_state.next_round.max(now) } else { now })
    }
}

/// From the beginning of one round to that of the next, at least.
const GC_FULL_INTERVAL_NANOS: u64 = 10_000_000_000;

/// Not assured, or soon over anyway.
fn can_early_drop(hot: &HotRecord) -> bool {
    let closing = match hot.protocol() {
        ipproto::TCP => Tcp::load(hot).is_closing(),
        ipproto::SCTP => Sctp::load(hot).is_closing(),
        _ => false,
    };
    hot.is_confirmed()
        && !hot.status().contains(Status::OFFLOAD)
        && (closing || !hot.status().contains(Status::ASSURED))
}
