//! Removal of connections: expiry, and [`Engine::destroy`], which every removal goes through.
//!
//! Removing a connection releases everything that belongs to it: index entries, extension, expectations, offload, NAT source entry.
use crate::event_bits::EventBits;
use crate::table::record::RecordKind;
use crate::table::{BLOCK, BlockScan};
use crate::time::Ticks;
use crate::{Engine, Event, EventKind, Instant, ProtocolInfo, Status, Sysctl};

impl Engine {
    /// Removes expired connections, with at most `budget` of work and what the last block takes: two for each block of records that is read,
    /// one for each connection that is removed. Returns what is left.
    pub(crate) fn remove_expired(&mut self, now: Instant, mut budget: usize) -> usize {
        let tick = now.tick();
        let mut deadlines = self.table.take_timer_bounds();
        deadlines.scan_due(tick, &mut budget, &mut |slots| {
            let mut earliest: Option<i32> = None;
            // The buckets of all expired connections of the block are prefetched together.
            let mut due = [(0, [0; 2]); BLOCK];
            let mut length = 0;
            for slot in slots {
                let slot = slot as u32;
                if let Some(remaining) = self.rearm_held(slot, tick) {
                    let remaining = remaining as i32;
                    earliest = Some(earliest.map_or(remaining, |least| least.min(remaining)));
                    continue;
                }
                let Some(hot) = self.table.records.hot(slot).filter(|hot| hot.is_confirmed()) else { continue };
                if hot.is_expired(tick) {
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
                self.destroy_with_hashes(*slot, *hashes, now);
            }
            BlockScan { earliest: earliest.map(|remaining| tick.wrapping_add(remaining as u32)), removed: length }
        });
        self.table.restore_timer_bounds(deadlines);
        budget
    }

    /// Removes a connection from the table and emits a DESTROY event.
    pub(crate) fn destroy(&mut self, slot: u32, now: Instant) {
        self.destroy_with_hashes(slot, self.table.hashes(slot), now);
    }

    fn destroy_with_hashes(&mut self, slot: u32, hashes: [u64; 2], now: Instant) {
        if self.wants_event(EventKind::Destroy) {
            self.emit_event(EventKind::Destroy, slot, now);
        }
        self.events.forget(slot);
        self.dirty.mark_dirty(slot);
        self.held.take(slot);
        self.admission_removed(slot, now);
        let (kind, status) = self.table.records.hot(slot).map_or_else(Default::default, |hot| (hot.kind, hot.status()));
        if kind.has(RecordKind::HAS_EXTENSION) {
            self.release_extension(slot);
        }
        if status.contains(Status::OFFLOAD) {
            self.unoffload(slot);
        }
        if status.contains(Status::SRC_NAT_DONE) {
            self.remove_bysource(slot, now);
        }
        self.table.remove(slot, hashes);
        self.shard.give_entry_back();
    }

    /// Is `kind` subscribed to, and is the sysctl `nf_conntrack_events` not 0?
    #[inline(always)]
    pub(crate) fn wants_event(&self, kind: EventKind) -> bool {
        self.events.is_subscribed(kind) && self.sysctls.is_enabled(Sysctl::Events)
    }

    /// Emits an UPDATE event. It carries the protocol state only if that has changed: a first reply or becoming assured alone is no such change.
    #[cold]
    pub(crate) fn emit_update(&mut self, slot: u32, changed: EventBits, now: Instant) {
        if !self.events.tells(slot, changed) {
            return;
        }
        if let Some(mut entry) = self.dump_entry(slot, now) {
            if !changed.intersects(EventBits::PROTOINFO) {
                entry.protocol = ProtocolInfo::Stateless;
            }
            self.events.push(Event {
                kind: EventKind::Update,
                entry,
                at: now.to_unix(self.wall_clock_offset),
                is_replicated: self.events.is_replicated,
            });
        }
    }

    /// Notes that a packet has changed a connection; [`Engine::deliver_change`] tells it.
    #[inline(always)]
    pub(crate) fn note_change(&mut self, slot: u32, changed: EventBits) {
        if self.wants_event(EventKind::Update) {
            self.events.note_change(slot, changed);
        }
    }

    /// A packet of this connection has passed the last rule: emits an UPDATE event if it, or one before it that was dropped, has changed it.
    #[cold]
    pub(crate) fn deliver_change(&mut self, slot: u32, now: Instant) {
        if let Some(changed) = self.events.take_change(slot) {
            self.emit_update(slot, changed, now);
        }
    }

    #[cold]
    pub(crate) fn emit_event(&mut self, kind: EventKind, slot: u32, now: Instant) {
        if self.events.chosen(slot).is_some() {
            let what = if kind == EventKind::Destroy { EventBits::DESTROY } else { self.bits_of_new(slot) };
            if !self.events.tells(slot, what) {
                return;
            }
        }
        let at = now.to_unix(self.wall_clock_offset);
        if let Some(mut entry) = self.dump_entry(slot, now) {
            if kind == EventKind::Destroy {
                entry.status |= Status::DYING;
                entry.stop = entry.start.map(|_| at);
            }
            self.events.push(Event { kind, entry, at, is_replicated: self.events.is_replicated });
        }
    }
}
