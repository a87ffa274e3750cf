//! What can be asked of an engine: connections, expectations, counters, sysctls.
use crate::table::TupleRef;
use crate::time::Ticks;
use crate::{ConnId, Counters, Direction, Engine, Entry, ExpectationEntry, Instant, Reason, Sysctls, Tuple, Zone};
use alloc::string::String;

impl Engine {
    /// Connections in the table: `nf_conntrack_count`. Like Linux, it counts what has expired and was not yet removed.
    pub fn count(&self) -> usize {
        self.table.count()
    }

    /// Every connection that has not expired at `now`.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = Entry> + '_ {
        self.table.used_slots().filter_map(move |slot| {
            let expired = self.table.records.hot(slot)?.is_expired(now.tick());
            if expired { None } else { self.dump_entry(slot, now) }
        })
    }

    /// One connection, if it still lives.
    pub fn entry(&self, conn_id: ConnId, now: Instant) -> Option<Entry> {
        let hot = self.table.records.hot(conn_id.slot)?;
        let same = hot.is_confirmed() && hot.tuple_hash(self.secret.0) == conn_id.tuple_hash;
        if same { self.dump_entry(conn_id.slot, now) } else { None }
    }

    /// Every expectation whose time is not over at `now`, as `/proc/net/nf_conntrack_expect` lists them.
    pub fn expectations(&self, now: Instant) -> impl Iterator<Item = ExpectationEntry> + '_ {
        self.expectations.iter().filter_map(move |expected| self.dump_expectation(expected, now))
    }

    /// The connection that a tuple belongs to, and which direction of it the tuple is.
    pub fn find(&self, tuple: &Tuple, zone: Zone, now: Instant) -> Option<(ConnId, Direction)> {
        let probe = self.table.lookup_key(tuple.into(), zone);
        let reference = self.table.find(&probe)?;
        if self.table.records.hot(reference.slot())?.is_expired(now.tick()) {
            return None;
        }
        Some((self.conn_id(reference.slot()), reference.direction()))
    }

    /// The counters of `conntrack -S`, and those of expectations.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many packets there were for each reason to refuse, ignore or drop one.
    pub fn reason_counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::all().zip(self.reason_counts.iter().copied())
    }

    /// The sysctls as they stand. `nf_conntrack_count` is [`Engine::count`].
    pub fn sysctls(&self) -> &Sysctls {
        &self.sysctls
    }

    /// Bytes held for connections: records, index, timers. Chunks are counted whole, though memory is only touched when used.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Checks what must always hold: every connection stands in the index exactly twice, and can be found by both its tuples; every
    /// expectation has a living master with a helper, and every master as many uses as it has living children.
    /// Costs a look at everything; for tests and fuzzing.
    pub fn check_invariants(&self) -> Result<(), String> {
        let connections = self.table.used_slots().count();
        if connections != self.table.count() {
            return Err(alloc::format!("{connections} records, {} counted", self.table.count()));
        }
        if self.table.index_entries() != connections * 2 {
            return Err(alloc::format!("{} index entries of {connections} connections", self.table.index_entries()));
        }
        for slot in self.table.used_slots() {
            for direction in [Direction::Original, Direction::Reply] {
                let reference = TupleRef::new(slot, direction);
                let zone = self.table.records.zone(slot);
                let found =
                    self.table.records.key(reference).and_then(|key| self.table.tuple_owner(&key, zone, direction));
                if found.is_none() {
                    return Err(alloc::format!("slot {slot} is not found by its {direction:?} tuple"));
                }
            }
        }
        self.check_masters()
    }
}
