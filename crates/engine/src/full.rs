//! A full table: unassured connections make room, with bounded work; else the packet is dropped, counted and logged.
use crate::table::{Probe, Reference};
use crate::time::Clock;
use crate::{Engine, Instant, Knob, Outcome, Passage, Status, Why};
use alloc::string::String;

/// Buckets of the index that are looked at for a connection to drop, as in Linux.
const BUCKETS: usize = 8;

impl Engine {
    /// Is there a place for one more connection, or can one be made?
    #[inline(always)]
    pub(crate) fn make_room(&mut self, probe: &Probe, now: Instant) -> bool {
        let limit = self.knobs[Knob::Max] as usize;
        // As in Linux, a limit of zero is none.
        limit == 0 || self.table.count() < limit || self.drop_early(probe, now)
    }

    /// Removes one unassured connection (or one that has expired) near where the new one would stand. Where that is depends on a secret,
    /// so nobody chooses whom to push out. Linux removes all it finds in one bucket; one is enough.
    #[cold]
    fn drop_early(&mut self, probe: &Probe, now: Instant) -> bool {
        let tick = now.tick();
        let records = &self.table.records;
        let victim = self.table.neighbours(probe, BUCKETS, |references: &[Reference]| {
            let weak = references.iter().filter_map(|reference| {
                let hot = records.hot(reference.slot())?;
                let kept = Status::ASSURED.0 | Status::OFFLOAD.0;
                (hot.expired(tick) || hot.status & kept == 0)
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
    pub(crate) fn settle_full(&mut self, now: Instant) -> Passage {
        self.counters.drop += 1;
        self.note(Why::TableFull);
        self.log.line(now, || String::from("nf_conntrack: table full, dropping packet"));
        Passage::settled(Outcome::dropped(Why::TableFull))
    }
}
