//! The second half of a packet's way: what it began is moved into the table, both directions or neither.
use crate::extras::Extra;
use crate::passage::Pending;
use crate::table::record::{Hot, Kind};
use crate::table::{Record, Reference};
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Direction, Engine, EventKind, Instant, Knob, Outcome, Passage, Status, Unconfirmed, Why, ZoneDirection};
use alloc::vec::Vec;

impl Engine {
    /// Confirms what a packet began, now that it has passed the last rule.
    #[inline(always)]
    pub fn confirm(&mut self, passage: Passage, now: Instant) -> Outcome {
        match passage.pending {
            Pending::Nothing => passage.outcome,
            Pending::Begun(fresh) => self.enter(&fresh, passage.outcome, now),
            Pending::Said(saying) => self.hear(&saying, passage.outcome, None, now),
        }
    }

    /// As [`Engine::confirm`], for who translates: what a helper has to write anew in `datagram`, which is the packet as it is about to leave, is written, and
    /// the numbers of later segments follow (Linux's `nf_nat_helper` and `nf_conntrack_seqadj`). The datagram may become longer or shorter.
    #[inline(always)]
    pub fn confirm_datagram(&mut self, passage: Passage, datagram: &mut Vec<u8>, now: Instant) -> Outcome {
        match passage.pending {
            Pending::Nothing => passage.outcome,
            Pending::Begun(fresh) => self.enter(&fresh, passage.outcome, now),
            Pending::Said(saying) => self.hear(&saying, passage.outcome, Some(datagram), now),
        }
    }

    fn enter(&mut self, fresh: &Unconfirmed, mut outcome: Outcome, now: Instant) -> Outcome {
        if fresh.refused {
            return self.not_entered(Why::NatExhausted);
        }
        if let Some(taken) = self.taken(fresh) {
            return self.clash(fresh, taken, outcome);
        }
        let limit = self.knobs[Knob::Max] as usize;
        if limit != 0 && self.table.count() >= limit {
            // Another passage took the last place since this one was tracked.
            return self.settle_full(now).outcome;
        }
        let tick = now.tick();
        let mut hot = Hot {
            deadline: tick.wrapping_add(fresh.timeout),
            status: (fresh.status | Status::CONFIRMED).0,
            ..Hot::default()
        };
        fresh.tracker.store(&mut hot);
        let bytes = fresh.counted.map_or([0; 4], |bytes| [1, bytes, 0, 0]);
        let record = Record {
            original: &fresh.original,
            reply: &fresh.reply,
            zone: fresh.zone,
            mark: fresh.mark,
            hot,
            kind: if fresh.has_extras() { Kind::EXTRAS } else { 0 } | if fresh.plain { Kind::PLAIN } else { 0 },
            counts: self.knobs.on(Knob::Acct).then_some(bytes),
            hashes: fresh.hashes,
            start: if self.knobs.on(Knob::Timestamp) { now.0 } else { 0 },
        };
        let Some(slot) = self.table.insert(&record, tick) else {
            return self.not_entered(Why::NoMemory);
        };
        if fresh.has_extras() {
            self.put_extras(slot, fresh);
        }
        self.enter_source(fresh, slot, now);
        self.changes.note(slot);
        if self.reports(EventKind::New) {
            self.report(EventKind::New, slot, now);
        }
        outcome.connection = Some(self.handle_of(slot));
        outcome
    }

    /// What few connections have outside their record.
    #[cold]
    fn put_extras(&mut self, slot: u32, fresh: &Unconfirmed) {
        let extra = fresh.extra.as_deref().copied().unwrap_or_default();
        *self.extras.make(slot) = Extra { labels: fresh.labels, ..extra };
        if let Some(master) = &extra.master {
            self.add_child(master);
        }
    }

    /// Who has one of its tuples by now?
    #[inline(always)]
    fn taken(&self, fresh: &Unconfirmed) -> Option<Reference> {
        // Nothing was entered since the lookup, and the answer's tuple is the lookup's inverse: both are free, as long as no translated connection
        // has a tuple whose inverse is not its own.
        let plain = fresh.plain && fresh.zone.direction == ZoneDirection::Both && !self.nat.in_use;
        if plain && fresh.epoch == self.table.epoch() {
            return None;
        }
        let holder = |key, direction| self.table.holder(key, fresh.zone, direction);
        holder(&fresh.original, Direction::Original).or_else(|| holder(&fresh.reply, Direction::Reply))
    }

    /// Two packets of one flow raced: the later adopts the earlier's connection, where the protocol can bear it.
    #[cold]
    fn clash(&mut self, fresh: &Unconfirmed, taken: Reference, mut outcome: Outcome) -> Outcome {
        let records = &self.table.records;
        let same = taken.direction() == Direction::Original
            && records.key(taken) == Some(fresh.original)
            && records.key(Reference::new(taken.slot(), Direction::Reply)) == Some(fresh.reply);
        let bearable =
            !matches!(fresh.original.protocol, protocol::TCP | protocol::SCTP | protocol::ICMP | protocol::ICMPV6);
        if same && bearable {
            self.counters.clash_resolve += 1;
            outcome.connection = Some(self.handle_of(taken.slot()));
            return outcome;
        }
        self.not_entered(if fresh.exhausted { Why::NatExhausted } else { Why::Clash })
    }

    #[cold]
    fn not_entered(&mut self, why: Why) -> Outcome {
        self.counters.insert_failed += 1;
        self.counters.drop += 1;
        self.note(why);
        Outcome::dropped(why)
    }
}
