//! Read access to an engine: connections, expectations, counters, sysctls.
use crate::table::TupleRef;
use crate::time::Ticks;
use crate::{ConnId, Counters, Direction, Engine, Entry, ExpectationEntry, Instant, Reason, Sysctls, Tuple, Zone};
use alloc::string::String;

impl Engine {
    /// The number of connections in the table: `nf_conntrack_count`. As in Linux it includes expired ones that were not removed yet.
    pub fn count(&self) -> usize {
        self.table.count()
    }

    /// The connections that count for `nf_conntrack_max`: of all shards, if the engine is one.
    #[inline(always)]
    pub(crate) fn entries_in_use(&self) -> usize {
        self.shard.entries_in_use(self.table.count())
    }

    /// The number of packets with this reason.
    pub(crate) fn reason_count(&self, reason: Reason) -> u64 {
        self.reason_counts.get(reason.index()).copied().unwrap_or_default()
    }

    /// Every connection that has not expired at `now`.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = Entry> + '_ {
        self.table.used_slots().filter_map(move |slot| {
            let expired = self.table.records.hot(slot)?.is_expired(now.tick());
            if expired { None } else { self.dump_entry(slot, now) }
        })
    }

    /// One connection, if it is in the table.
    pub fn entry(&self, conn_id: ConnId, now: Instant) -> Option<Entry> {
        if self.names(conn_id) { self.dump_entry(conn_id.slot, now) } else { None }
    }

    /// Every expectation that has not expired at `now`, as `/proc/net/nf_conntrack_expect` lists them.
    pub fn expectations(&self, now: Instant) -> impl Iterator<Item = ExpectationEntry> + '_ {
        self.expectations.iter().filter_map(move |expected| self.dump_expectation(expected, now))
    }

    /// Finds the connection that has `tuple`, and the direction that `tuple` names.
    pub fn find(&self, tuple: &Tuple, zone: Zone, now: Instant) -> Option<(ConnId, Direction)> {
        let probe = self.table.lookup_key(tuple.into(), zone);
        let reference = self.table.find(&probe)?;
        if self.table.records.hot(reference.slot())?.is_expired(now.tick()) {
            return None;
        }
        Some((self.conn_id(reference.slot()), reference.direction()))
    }

    /// The counters of `conntrack -S` and of expectations.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The number of packets per [`Reason`].
    pub fn reason_counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::all().zip(self.reason_counts.iter().copied())
    }

    /// The current sysctls. For `nf_conntrack_count` see [`Engine::count`].
    pub fn sysctls(&self) -> &Sysctls {
        self.admission.as_ref().map_or(&self.sysctls, |state| &state.configured)
    }

    /// Bytes allocated for connections: records, index, timers. Whole chunks are counted, though the OS only commits touched pages.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes()
    }

    /// Checks the engine's invariants: every connection is in the index exactly twice and is found by both its tuples; every expectation
    /// has an existing master with a helper; every master's child count is right; reserves and sources have the connections that are counted for them. It scans the whole table: for tests and fuzzing.
    ///
    /// # Errors
    /// The first violated invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        let connections = self.table.used_slots().count();
        if connections != self.table.count() {
            return Err(alloc::format!("{connections} records, {} counted", self.table.count()));
        }
        if self.table.index_entries() != connections * 2 {
            return Err(alloc::format!("{} index entries of {connections} connections", self.table.index_entries()));
        }
        if self.shard.taken().is_some_and(|taken| taken != connections) {
            return Err(alloc::format!("{connections} connections of this shard, {:?} counted", self.shard.taken()));
        }
        for slot in self.table.used_slots() {
            for direction in [Direction::Original, Direction::Reply] {
                let reference = TupleRef::new(slot, direction);
                let zone = self.table.records.zone(slot);
                let found =
                    self.table.records.key(reference).and_then(|key| self.table.tuple_owner(&key, zone, direction));
                if !self.table.records.key(reference).is_some_and(|key| self.shard.owns(&key)) {
                    return Err(alloc::format!("slot {slot} has a tuple of another shard"));
                }
                if found.is_none() {
                    return Err(alloc::format!("slot {slot} is not found by its {direction:?} tuple"));
                }
            }
        }
        self.check_admission()?;
        self.check_held()?;
        self.check_masters()
    }
}
