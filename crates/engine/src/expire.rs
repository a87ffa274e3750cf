//! The end of connections: they expire, or are removed for a reason, and leave nothing behind.
use crate::table::Look;
use crate::table::record::Kind;
use crate::time::Clock;
use crate::{Engine, Event, EventKind, Instant, Knob, ProtocolInfo};

impl Engine {
    /// Removes what has expired; looks at no more than `budget` blocks of records.
    pub(crate) fn expire(&mut self, now: Instant, mut budget: usize) {
        let tick = now.tick();
        let mut deadlines = self.table.lend_deadlines();
        deadlines.visit(tick, &mut budget, &mut |slots| {
            let mut earliest: Option<i32> = None;
            for slot in slots {
                let slot = slot as u32;
                let Some(hot) = self.table.records.hot(slot).filter(|hot| hot.living()) else { continue };
                if hot.expired(tick) {
                    self.destroy(slot, now);
                    continue;
                }
                let remaining = hot.deadline.wrapping_sub(tick) as i32;
                earliest = Some(earliest.map_or(remaining, |least| least.min(remaining)));
            }
            Look { earliest: earliest.map(|remaining| tick.wrapping_add(remaining as u32)) }
        });
        self.table.return_deadlines(deadlines);
    }

    /// Takes a connection out of the table and says so.
    pub(crate) fn destroy(&mut self, slot: u32, now: Instant) {
        if self.reports(EventKind::Destroy) {
            self.report(EventKind::Destroy, slot, now);
        }
        if self.table.records.hot(slot).is_some_and(|hot| hot.kind.is(Kind::EXTRAS)) {
            self.part(slot);
        }
        self.table.remove(slot);
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
