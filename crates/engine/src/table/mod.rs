//! The connection table: each connection is one record, and two entries in the index, one per tuple.
//!
//! A record occupies a slot from [`Table::insert`] to [`Table::remove`] and is found by either of its keys. Both index entries are inserted and
//! removed together. The table takes no decision: it must never remove a record by itself, and a record never moves to another slot.
mod chunked;
mod index;
pub(crate) mod key;
mod new_record;
pub(crate) mod record;
mod records;
mod simd;
mod siphash;
mod timer_bounds;

pub(crate) use chunked::ChunkedArray;
pub(crate) use index::{Bucket, Index, TupleRef};
pub(crate) use new_record::NewRecord;
pub(crate) use records::Records;
#[cfg(test)]
pub(crate) use timer_bounds::BLOCK_COST;
pub(crate) use timer_bounds::{BlockScan, FANOUT as BLOCK};

use crate::{Direction, Zone, ZoneDirection};
use keepstate_wire::Family;
use key::{HashKeys, TupleKey};
use record::HotRecord;
use simd::Avx2;
use timer_bounds::TimerBounds;

/// The table. See the module documentation.
#[derive(Clone)]
pub(crate) struct Table {
    keys: HashKeys,
    /// This processor can hash several keys at once.
    lanes: Option<Avx2>,
    index: Index,
    /// The records, by slot.
    pub(crate) records: Records,
    timer_bounds: TimerBounds,
    count: usize,
    /// Counts inserts: if two epochs are equal, nothing was inserted in between.
    epoch: u64,
}

/// The input of a lookup: a packet's key and its hash.
#[derive(Clone, Copy)]
pub(crate) struct LookupKey {
    pub(crate) key: TupleKey,
    pub(crate) zone: Zone,
    pub(crate) hash: u64,
    /// The record prefetched for it; it may have ended since.
    pub(crate) candidate: Option<TupleRef>,
    /// The hash of the reply key, if it was computed ahead because no record was found; 0 if unknown.
    pub(crate) reply_hash: u64,
}

impl Table {
    /// Creates an empty table whose index is sized for `connections`.
    pub(crate) fn new(keys: HashKeys, connections: usize) -> Self {
        let index = Index::new(Index::buckets_for(connections));
        Table {
            keys,
            lanes: Avx2::detect(),
            index,
            records: Records::new(),
            timer_bounds: TimerBounds::new(),
            count: 0,
            epoch: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sets the size that the index grows to in steps: enough for `connections`.
    pub(crate) fn set_target_size(&mut self, connections: usize) {
        self.index.set_target(Index::buckets_for(connections));
    }

    /// The hash of a packet's key.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &TupleKey, zone: Zone) -> u64 {
        key.hash(zone.id_for(Direction::Original), &self.keys)
    }

    /// The hashes of both tuples of a connection in the default zone, of which some may be known (others are 0).
    #[inline(always)]
    pub(crate) fn both_hashes(&self, [original, reply]: [&TupleKey; 2], known: [u64; 2]) -> [u64; 2] {
        let hash = |key: &TupleKey, known| if known == 0 { key.hash(0, &self.keys) } else { known };
        [hash(original, known[0]), hash(reply, known[1])]
    }

    /// The hashes of a group of keys: see [`HashKeys::hash_group`].
    #[inline(always)]
    pub(crate) fn hash_group<const W: usize, const N: usize>(
        &self,
        addresses: [&[u64; N]; W],
        tails: &[u64; N],
        count: usize,
        hashes: &mut [u64; N],
    ) {
        self.keys.hash_group(addresses, tails, count, self.lanes, hashes);
    }

    #[inline(always)]
    pub(crate) fn lookup_key(&self, key: TupleKey, zone: Zone) -> LookupKey {
        LookupKey { key, zone, hash: self.hash(&key, zone), candidate: None, reply_hash: 0 }
    }

    /// First stage of a batched lookup: prefetch the bucket. `None` if it has no memory yet.
    #[inline(always)]
    pub(crate) fn prefetched_bucket(&self, hash: u64) -> Option<&Bucket> {
        self.index.prefetched(hash)
    }

    /// Second stage: the reference of the bucket's first matching fingerprint. It is most likely the right one, but unchecked.
    #[inline(always)]
    pub(crate) fn candidate_in(&self, bucket: Option<&Bucket>, hash: u64) -> Option<TupleRef> {
        self.index.first_match_in(bucket?, hash)
    }

    /// As [`Table::candidate_in`] the hash's bucket.
    #[inline(always)]
    pub(crate) fn candidate(&self, hash: u64) -> Option<TupleRef> {
        self.index.first_match(hash)
    }

    /// Third stage: prefetch what tracking a packet reads and writes.
    #[inline(always)]
    pub(crate) fn prefetch_record(&self, reference: TupleRef, family: Family) {
        self.records.prefetch(reference, family);
        self.timer_bounds.prefetch(reference.slot() as usize);
    }

    /// Prefetches the bucket of a hash.
    #[inline(always)]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The hash of the reply key of `key`; `None` if it has no inverse.
    pub(crate) fn hash_of_reply_to(&self, key: &TupleKey, zone: Zone) -> Option<u64> {
        Some(key.invert()?.hash(zone.id_for(Direction::Reply), &self.keys))
    }

    /// Finds the connection that has `probe`'s tuple, and its direction. If both of its tuples are that one, the direction is reply: Linux
    /// puts the reply tuple first into their bucket.
    #[inline(always)]
    pub(crate) fn find(&self, probe: &LookupKey) -> Option<TupleRef> {
        let found = self.find_either(probe)?;
        let reply = TupleRef::new(found.slot(), Direction::Reply);
        let both = probe.key.is_own_reply() && self.records.matches(reply, &probe.key, probe.zone);
        Some(if both { reply } else { found })
    }

    #[inline(always)]
    fn find_either(&self, probe: &LookupKey) -> Option<TupleRef> {
        let fits = |reference| self.records.matches(reference, &probe.key, probe.zone).then_some(reference);
        if let Some(found) = probe.candidate.and_then(fits) {
            return Some(found);
        }
        let found = self.index.search(probe.hash, fits);
        if found.is_some() || probe.zone.direction == ZoneDirection::Both {
            return found;
        }
        // The zone applies to one direction: a reply is hashed with the other zone id.
        self.index.search(probe.key.hash(probe.zone.id_for(Direction::Reply), &self.keys), fits)
    }

    /// The entry that has the tuple `key` (as `direction` in `zone`), of any connection and either direction; `None` if the tuple is free.
    pub(crate) fn tuple_owner(&self, key: &TupleKey, zone: Zone, direction: Direction) -> Option<TupleRef> {
        self.hashed_owner(key, zone, key.hash(zone.id_for(direction), &self.keys))
    }

    /// As [`Table::tuple_owner`] of a reply tuple, with its hash.
    pub(crate) fn reply_owner(&self, key: &TupleKey, zone: Zone) -> (Option<TupleRef>, u64) {
        let hash = key.hash(zone.id_for(Direction::Reply), &self.keys);
        (self.hashed_owner(key, zone, hash), hash)
    }

    /// The hash of a reply tuple that is surely free; `None` if it may have an owner.
    #[inline(always)]
    pub(crate) fn free_reply_hash(&self, key: &TupleKey, zone: Zone) -> Option<u64> {
        let hash = key.hash(zone.id_for(Direction::Reply), &self.keys);
        (!self.may_have(hash)).then_some(hash)
    }

    /// False if no tuple of this hash is in the table.
    #[inline(always)]
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        self.index.first_match(hash).is_some()
    }

    #[inline]
    fn hashed_owner(&self, key: &TupleKey, zone: Zone, hash: u64) -> Option<TupleRef> {
        self.index.search(hash, |reference| self.records.matches(reference, key, zone).then_some(reference))
    }

    /// Every slot in use.
    pub(crate) fn used_slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.slot_count() as u32)
            .filter(|slot| self.records.hot(*slot).is_some_and(HotRecord::is_confirmed))
    }

    /// Inserts a connection under both keys; neither may be in the table yet. Returns its slot; `None` if out of memory.
    pub(crate) fn insert(&mut self, record: &NewRecord<'_>, now: u32) -> Option<u32> {
        let slot = self.records.insert(record)?;
        let hash = |known: u64, key: &TupleKey, direction| match known {
            0 => key.hash(record.zone.id_for(direction), &self.keys),
            known => known,
        };
        let original = hash(record.hashes[0], record.original, Direction::Original);
        let reply = hash(record.hashes[1], record.reply, Direction::Reply);
        self.link(slot, [original, reply], record.hot.deadline, now)
    }

    /// As [`Table::insert`], for a connection in the default zone without mark, counters and start time, with both hashes. `record` is complete; the reply key is given if the connection is
    /// translated.
    #[inline(always)]
    pub(crate) fn insert_plain(
        &mut self,
        record: HotRecord,
        keys: (&TupleKey, Option<&TupleKey>),
        hashes: [u64; 2],
        now: u32,
    ) -> Option<u32> {
        let deadline = record.deadline;
        let slot = self.records.insert_plain(record, keys)?;
        self.link(slot, hashes, deadline, now)
    }

    /// Enters a new record in index and timers, or frees it.
    #[inline(always)]
    fn link(&mut self, slot: u32, [original, reply]: [u64; 2], deadline: u32, now: u32) -> Option<u32> {
        // Insert both entries or neither.
        if !self.timer_bounds.grow(self.records.slot_count(), now)
            || !self.index.insert(original, TupleRef::new(slot, Direction::Original))
        {
            self.records.free_slot(slot);
            return None;
        }
        if !self.index.insert(reply, TupleRef::new(slot, Direction::Reply)) {
            self.index.remove(original, TupleRef::new(slot, Direction::Original));
            self.records.free_slot(slot);
            return None;
        }
        self.timer_bounds.lower(slot as usize, deadline);
        self.count += 1;
        self.epoch += 1;
        // Each connection adds two entries, a fraction of a bucket: two splits per insert are several times what is needed to keep up.
        if self.index.needs_growth() {
            self.grow_index(2);
        }
        Some(slot)
    }

    /// The hashes of a connection's original and reply keys, for [`Table::remove`].
    pub(crate) fn hashes(&self, slot: u32) -> [u64; 2] {
        [Direction::Original, Direction::Reply]
            .map(|direction| self.records.hash(TupleRef::new(slot, direction), &self.keys).unwrap_or_default())
    }

    /// Removes a connection: both index entries and the record.
    pub(crate) fn remove(&mut self, slot: u32, [original, reply]: [u64; 2]) {
        self.index.remove(original, TupleRef::new(slot, Direction::Original));
        self.index.remove(reply, TupleRef::new(slot, Direction::Reply));
        self.records.free_slot(slot);
        self.count -= 1;
    }

    /// Splits at most `steps` buckets, while the index needs to grow.
    pub(crate) fn grow_index(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.index.needs_growth() {
                return;
            }
            let Table { index, records, keys, .. } = self;
            index.split_bucket(
                |reference| records.prefetch_for_hash(reference),
                |reference| records.hash(reference, keys).unwrap_or_default(),
            );
        }
    }

    /// The number of buckets of the index.
    #[cfg(test)]
    pub(crate) fn bucket_count(&self) -> usize {
        self.index.bucket_count()
    }

    /// Does the index need to grow?
    pub(crate) fn needs_growth(&self) -> bool {
        self.index.needs_growth()
    }

    /// Must be called when the deadline of `slot` has become earlier.
    #[inline(never)]
    pub(crate) fn lower_timer_bound(&mut self, slot: u32, deadline: u32) {
        self.timer_bounds.lower(slot as usize, deadline);
    }

    /// The earliest tick at which something may have expired; `None` while the table is empty.
    pub(crate) fn next_deadline(&self) -> Option<u32> {
        if self.count == 0 { None } else { self.timer_bounds.earliest() }
    }

    /// Takes the timers out while expired records are removed; put them back with [`Table::restore_timer_bounds`].
    pub(crate) fn take_timer_bounds(&mut self) -> TimerBounds {
        core::mem::replace(&mut self.timer_bounds, TimerBounds::new())
    }

    pub(crate) fn restore_timer_bounds(&mut self, deadlines: TimerBounds) {
        self.timer_bounds = deadlines;
    }

    /// Calls `see` with the references of each of `count` buckets, beginning with that of `probe`, until it returns `Some`.
    pub(crate) fn scan_buckets<T>(
        &self,
        probe: &LookupKey,
        count: usize,
        see: impl FnMut(&[TupleRef]) -> Option<T>,
    ) -> Option<T> {
        self.index.scan_buckets(probe.hash, count, see)
    }

    /// The number of index entries: always twice the number of connections.
    pub(crate) fn index_entries(&self) -> usize {
        self.index.entries()
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.records.memory_bytes() + self.timer_bounds.memory_bytes()
    }
}
