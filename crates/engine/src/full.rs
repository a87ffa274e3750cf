//! A full table: unassured connections make room, with bounded work; else the packet is dropped, counted and logged.
//!
//! A packet dropped so is a call for help: [`Engine::relieve`] then ends connections that are unassured or closing anyway, until the table is 95 % full,
//! as Linux does in its next round of collecting (which may be a minute later; here it is the next [`Engine::poll`], but once in ten seconds).
use crate::protocol::{Tcp, sctp::Sctp};
use crate::table::record::Hot;
use crate::table::{Probe, Reference};
use crate::time::Clock;
use crate::tuple::protocol;
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
        self.crowded.cursor.get_or_insert(0);
        self.counters.drop += 1;
        self.note(Why::TableFull);
        self.log.line(now, || String::from("nf_conntrack: table full, dropping packet"));
        Passage::settled(Outcome::dropped(Why::TableFull))
    }

    /// Ends weak connections of at most `budget` slots, from where it stopped before.
    #[cold]
    pub(crate) fn relieve(&mut self, now: Instant, budget: usize) {
        let due = self.next_relief(now).is_some_and(|due| due <= now);
        let Some(begin) = self.crowded.cursor.take_if(|_| due) else { return };
        if begin == 0 {
            self.crowded.not_before = Instant(now.0 + RELIEF_NANOS);
        }
        let enough = self.knobs[Knob::Max] as usize / 100 * 95;
        let end = (begin as usize + budget).min(self.table.records.slots()) as u32;
        for slot in begin..end {
            // As in Linux, a limit under a hundred is too small for this.
            if enough == 0 || self.table.count() < enough {
                return;
            }
            if self.table.records.hot(slot).is_some_and(is_weak) {
                self.destroy(slot, now);
            }
        }
        self.crowded.cursor = ((end as usize) < self.table.records.slots()).then_some(end);
    }

    /// When [`Engine::relieve`] has something to do.
    pub(crate) fn next_relief(&self, now: Instant) -> Option<Instant> {
        self.crowded.cursor.map(|begun| if begun == 0 { self.crowded.not_before.max(now) } else { now })
    }
}

/// A packet found no room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crowded {
    /// The slot from where on weak connections are still to be ended.
    cursor: Option<u32>,
    /// The next round does not begin before: whoever sends packets that find no room shall not make us look through the whole table for each.
    not_before: Instant,
}

/// From the beginning of one round to that of the next, at least.
const RELIEF_NANOS: u64 = 10_000_000_000;

/// Not assured, or soon over anyway.
fn is_weak(hot: &Hot) -> bool {
    let closing = match hot.protocol() {
        protocol::TCP => Tcp::load(hot).is_closing(),
        protocol::SCTP => Sctp::load(hot).is_closing(),
        _ => false,
    };
    hot.living() && !hot.status().has(Status::OFFLOAD) && (closing || !hot.status().has(Status::ASSURED))
}
