//! Early drop: when the table is full, an unassured connection is removed for a new one; otherwise the packet is dropped, counted and logged.
//!
//! A packet dropped because of a full table also starts [`Engine::gc_full`], which removes unassured or closing connections until the table is
//! 95 % full. Linux does so in its next garbage collection, up to a minute later; here it is the next [`Engine::poll`], at most once in ten seconds.
//! The work per packet and per poll is bounded, and an assured connection that is not closing must never be removed.
pub(crate) mod gc_state;

use crate::offload::is_protected_by_offload;
use crate::protocol::{Tcp, sctp::Sctp};
use crate::table::record::HotRecord;
use crate::table::{LookupKey, TupleRef};
use crate::time::Ticks;
use crate::{Engine, Instant, Outcome, PacketCtx, Reason, Status};
use alloc::string::String;
use keepstate_types::ipproto;

/// Index buckets searched for a connection to drop, as in Linux.
const EARLY_DROP_BUCKETS: usize = 8;

impl Engine {
    /// Is there room for another connection? Drops one early if the table is full.
    #[inline(always)]
    pub(crate) fn make_room(&mut self, probe: &LookupKey, now: Instant) -> bool {
        self.has_room(&probe.key) || self.grow_limit(probe, now) || self.early_drop(probe, now)
    }

    /// Removes one unassured or expired connection from the buckets near that of the new one. False if there is none. The bucket depends on the
    /// secret, so an attacker cannot choose the victim. Linux removes all it finds in one bucket; here one is enough.
    #[cold]
    fn early_drop(&mut self, probe: &LookupKey, now: Instant) -> bool {
        let tick = now.tick();
        let records = &self.table.records;
        let victim = self.table.scan_buckets(probe, EARLY_DROP_BUCKETS, |references: &[TupleRef]| {
            let weak = references.iter().filter_map(|reference| {
                let hot = records.hot(reference.slot())?;
                let is_protected = hot.status().contains(Status::ASSURED) || is_protected_by_offload(hot);
                let is_weak = hot.is_expired(tick) || !is_protected;
                (is_weak && self.may_make_room(reference.slot(), Some(&probe.key)))
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

    /// Drops a packet because the table is full, or full but for what is reserved for others: counts it, logs it, and requests [`Engine::gc_full`].
    #[cold]
    pub(crate) fn drop_table_full(&mut self, now: Instant) -> PacketCtx {
        self.gc_state.cursor.get_or_insert(0);
        let reason = self.no_room_reason();
        self.log.push_ratelimited(now, || match reason {
            Reason::TableReserved => String::from("keepstate: table full but for its reserves, dropping packet"),
            _ => String::from("nf_conntrack: table full, dropping packet"),
        });
        self.drop_new(reason)
    }

    /// Drops the first packet of a connection that may not begin.
    #[cold]
    pub(crate) fn drop_new(&mut self, reason: Reason) -> PacketCtx {
        self.counters.drop += 1;
        self.count_reason(reason);
        PacketCtx::finished(Outcome::dropped(reason))
    }

    /// Removes at most `removals` connections that may be dropped early, in at most `budget` slots, continuing where the last call stopped.
    #[cold]
    pub(crate) fn gc_full(&mut self, now: Instant, budget: usize, mut removals: usize) {
        let due = self.next_gc_full(now).is_some_and(|due| due <= now);
        let Some(begin) = self.gc_state.cursor.take_if(|_| due) else { return };
        if begin == 0 {
            self.gc_state.next_round = Instant(now.0 + GC_FULL_INTERVAL_NANOS);
        }
        let enough = self.common_entries().0 / 100 * 95;
        let end = (begin as usize + budget).min(self.table.records.slot_count()) as u32;
        for slot in begin..end {
            // As in Linux, this does nothing with a limit below 100.
            if enough == 0 || self.common_entries().1 < enough {
                return;
            }
            if removals == 0 {
                self.gc_state.cursor = Some(slot);
                return;
            }
            if self.table.records.hot(slot).is_some_and(can_early_drop) && self.may_make_room(slot, None) {
                self.destroy(slot, now);
                removals -= 1;
            }
        }
        self.gc_state.cursor = ((end as usize) < self.table.records.slot_count()).then_some(end);
    }

    /// When [`Engine::gc_full`] has to run next; `None` if it is not requested.
    pub(crate) fn next_gc_full(&self, now: Instant) -> Option<Instant> {
        self.gc_state.cursor.map(|begun| if begun == 0 { self.gc_state.next_round.max(now) } else { now })
    }
}

/// The minimum time between the starts of two rounds.
const GC_FULL_INTERVAL_NANOS: u64 = 10_000_000_000;

/// May the connection be dropped early: unassured or closing, and not offloaded?
fn can_early_drop(hot: &HotRecord) -> bool {
    let closing = match hot.protocol() {
        ipproto::TCP => Tcp::load(hot).is_closing(),
        ipproto::SCTP => Sctp::load(hot).is_closing(),
        _ => false,
    };
    hot.is_confirmed() && !is_protected_by_offload(hot) && (closing || !hot.status().contains(Status::ASSURED))
}
