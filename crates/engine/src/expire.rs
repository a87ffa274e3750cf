//! The end of connections: they expire, or are removed for a reason, and leave nothing behind.
use crate::table::record::Kind;
use crate::table::{BLOCK, Look};
use crate::time::Clock;
use crate::{Engine, Event, EventKind, Instant, Knob, ProtocolInfo, Status};

impl Engine {
    /// Removes what has expired; looks at no more than `budget` blocks of records.
    pub(crate) fn expire(&mut self, now: Instant, mut budget: usize) {
        let tick = now.tick();
        let mut deadlines = self.table.lend_deadlines();
        deadlines.visit(tick, &mut budget, &mut |slots| {
            let mut earliest: Option<i32> = None;
            // The buckets of all that go are fetched together.
            let mut due = [(0, [0; 2]); BLOCK];
            let mut length = 0;
            for slot in slots {
                let slot = slot as u32;
                let Some(hot) = self.table.records.hot(slot).filter(|hot| hot.living()) else { continue };
                if hot.expired(tick) {
                    let hashes = self.table.hashes(slot);
                    hashes.iter().for_each(|hash| self.table.prefetch_bucket(*hash));
                    due[length] = (slot, hashes);
                    length += 1;
                    continue;
                }
                let remaining = hot.deadline.wrapping_sub(tick) as i32;
                earliest = Some(earliest.map_or(remaining, |least| least.min(remaining)));
            }
            for (slot, hashes) in &due[..length] {
                self.destroy_hashed(*slot, *hashes, now);
            }
            Look { earliest: earliest.map(|remaining| tick.wrapping_add(remaining as u32)) }
        });
        self.table.return_deadlines(deadlines);
    }

    /// Takes a connection out of the table and says so.
    pub(crate) fn destroy(&mut self, slot: u32, now: Instant) {
        self.destroy_hashed(slot, self.table.hashes(slot), now);
    }

    fn destroy_hashed(&mut self, slot: u32, hashes: [u64; 2], now: Instant) {
        if self.reports(EventKind::Destroy) {
            self.report(EventKind::Destroy, slot, now);
        }
        self.changes.note(slot);
        let (kind, status) = self.table.records.hot(slot).map_or_else(Default::default, |hot| (hot.kind, hot.status));
        if kind.is(Kind::EXTRAS) {
            self.part(slot);
        }
        if status & Status::OFFLOAD.0 != 0 {
            self.come_back(slot);
        }
        if status & Status::SRC_NAT_DONE.0 != 0 {
            self.leave_source(slot, now);
        }
        self.table.remove(slot, hashes);
    }

    /// Does anybody want such events? The knob `nf_conntrack_events` can forbid them.
    #[inline(always)]
    pub(crate) fn reports(&self, kind: EventKind) -> bool {
        self.events.wants(kind) && self.knobs.on(Knob::Events)
    }

    /// An update says what the protocol knows only if the protocol's state has changed: a first answer alone does not, nor does being assured.
    #[cold]
    pub(crate) fn report_update(&mut self, slot: u32, state_changed: bool, now: Instant) {
        if let Some(mut entry) = self.show(slot, now) {
            if !state_changed {
                entry.protocol = ProtocolInfo::Stateless;
            }
            self.events.push(Event { kind: EventKind::Update, entry, at: now });
        }
    }

    #[cold]
    pub(crate) fn report(&mut self, kind: EventKind, slot: u32, now: Instant) {
        if let Some(mut entry) = self.show(slot, now) {
            if kind == EventKind::Destroy {
                entry.stop = entry.start.map(|_| now);
            }
            self.events.push(Event { kind, entry, at: now });
        }
    }
}
