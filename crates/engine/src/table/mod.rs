//! The table: every connection once as a record, twice in the index.
//!
//! A record lives in a slot. It is born in [`Table::insert`], found by either of its keys, and dies in [`Table::remove`], when both
//! index entries go with it: both directions or neither. The table judges nothing and never drops a record by itself.
mod chunked;
mod deadlines;
mod index;
pub(crate) mod key;
mod processor;
pub(crate) mod record;
mod records;

pub(crate) use chunked::Chunked;
pub(crate) use deadlines::{FAN as BLOCK, Look};
pub(crate) use index::Reference;
pub(crate) use records::Records;

use crate::{Direction, Zone, ZoneDirection};
use deadlines::Deadlines;
use index::Index;
use keepstate_wire::Family;
use key::{HashKeys, Key};
use record::Hot;

/// Packets and bytes: original packets, original bytes, reply packets, reply bytes.
pub(crate) type Counts = [u64; 4];

/// The table. See the module's words.
pub(crate) struct Table {
    keys: HashKeys,
    index: Index,
    /// What is known of each connection.
    pub(crate) records: Records,
    deadlines: Deadlines,
    count: usize,
    /// Counts inserts: equal epochs mean that nothing was entered in between.
    epoch: u64,
}

/// A connection to be entered.
pub(crate) struct Record<'a> {
    pub(crate) original: &'a Key,
    pub(crate) reply: &'a Key,
    pub(crate) zone: Zone,
    pub(crate) mark: u32,
    /// All but the keys and the kind.
    pub(crate) hot: Hot,
    /// Flags of [`record::Kind`] beyond those that the rest implies.
    pub(crate) kind: u8,
    pub(crate) counts: Option<Counts>,
    /// Nanoseconds; 0 if not kept.
    pub(crate) start: u64,
    /// The hashes of both keys, each 0 if not known.
    pub(crate) hashes: [u64; 2],
}

/// A packet's key with its hash: what a lookup starts from.
#[derive(Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) key: Key,
    pub(crate) zone: Zone,
    pub(crate) hash: u64,
    /// The record that was fetched ahead for it; it may have ended since.
    pub(crate) likely: Option<Reference>,
    /// The hash of the answer's key, if the packet looked like a new connection's when it was fetched ahead; 0 if not known.
    pub(crate) answer_hash: u64,
}

impl Table {
    /// A table whose index is sized for `connections`.
    pub(crate) fn new(keys: HashKeys, connections: usize) -> Self {
        let index = Index::new(Index::buckets_for(connections));
        Table { keys, index, records: Records::new(), deadlines: Deadlines::new(), count: 0, epoch: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sizes the index for `connections`, in steps.
    pub(crate) fn want(&mut self, connections: usize) {
        self.index.want(Index::buckets_for(connections));
    }

    /// The hash of a packet's key.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Key, zone: Zone) -> u64 {
        key.hash(zone.of(Direction::Original), &self.keys)
    }

    #[inline(always)]
    pub(crate) fn probe(&self, key: Key, zone: Zone) -> Probe {
        Probe { key, zone, hash: self.hash(&key, zone), likely: None, answer_hash: 0 }
    }

    /// First stage of a batched lookup: fetch the bucket.
    #[inline(always)]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second stage: what the bucket's first fitting fingerprint names. Most likely it is the one.
    #[inline(always)]
    pub(crate) fn likely(&self, hash: u64) -> Option<Reference> {
        self.index.first(hash)
    }

    /// Third stage: fetch what a packet reads and writes of its connection.
    #[inline(always)]
    pub(crate) fn prefetch_record(&self, reference: Reference, family: Family) {
        self.records.prefetch(reference, family);
        self.deadlines.prefetch(reference.slot() as usize);
    }

    /// Third stage for what is not in the table: fetch the bucket where the answer will be entered. Its hash, or 0 if there is none.
    pub(crate) fn prefetch_answer(&self, key: &Key, zone: Zone) -> u64 {
        let Some(answer) = key.invert() else { return 0 };
        let hash = answer.hash(zone.of(Direction::Reply), &self.keys);
        self.index.prefetch(hash);
        hash
    }

    /// Finds the connection whose tuple `probe` is, in either direction.
    #[inline(always)]
    pub(crate) fn find(&self, probe: &Probe) -> Option<Reference> {
        let fits = |reference| self.records.fits(reference, &probe.key, probe.zone).then_some(reference);
        if let Some(found) = probe.likely.and_then(fits) {
            return Some(found);
        }
        let found = self.index.search(probe.hash, fits);
        if found.is_some() || probe.zone.direction == ZoneDirection::Both {
            return found;
        }
        // A zone of one direction: the answer may stand under the other id.
        self.index.search(probe.key.hash(probe.zone.of(Direction::Reply), &self.keys), fits)
    }

    /// Is the tuple `key` of `direction` in `zone` taken, by either direction of any connection?
    pub(crate) fn holder(&self, key: &Key, zone: Zone, direction: Direction) -> Option<Reference> {
        let hash = key.hash(zone.of(direction), &self.keys);
        self.index.search(hash, |reference| self.records.fits(reference, key, zone).then_some(reference))
    }

    /// Every slot in use.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.records.slots() as u32).filter(|slot| self.records.hot(*slot).is_some_and(Hot::living))
    }

    /// Enters a connection under both keys. Neither may be in the table. `None` if there is no memory.
    pub(crate) fn insert(&mut self, record: &Record<'_>, now: u32) -> Option<u32> {
        let slot = self.records.put(record)?;
        self.deadlines.grow(self.records.slots(), now);
        let hash = |known: u64, key: &Key, direction| match known {
            0 => key.hash(record.zone.of(direction), &self.keys),
            known => known,
        };
        let original = hash(record.hashes[0], record.original, Direction::Original);
        let reply = hash(record.hashes[1], record.reply, Direction::Reply);
        // Both entries, or neither.
        if !self.index.insert(original, Reference::new(slot, Direction::Original)) {
            self.records.free(slot);
            return None;
        }
        if !self.index.insert(reply, Reference::new(slot, Direction::Reply)) {
            self.index.remove(original, Reference::new(slot, Direction::Original));
            self.records.free(slot);
            return None;
        }
        self.deadlines.lower(slot as usize, record.hot.deadline);
        self.count += 1;
        self.epoch += 1;
        // Each connection brings two entries, so two splits a connection are several times what keeps up.
        self.grow_index(2);
        Some(slot)
    }

    /// Both hashes of a connection: what [`Table::remove`] needs.
    pub(crate) fn hashes(&self, slot: u32) -> [u64; 2] {
        [Direction::Original, Direction::Reply]
            .map(|direction| self.records.hash(Reference::new(slot, direction), &self.keys).unwrap_or_default())
    }

    /// Takes a connection out: both index entries and the record.
    pub(crate) fn remove(&mut self, slot: u32, [original, reply]: [u64; 2]) {
        self.index.remove(original, Reference::new(slot, Direction::Original));
        self.index.remove(reply, Reference::new(slot, Direction::Reply));
        self.records.free(slot);
        self.count -= 1;
    }

    /// At most `steps` steps of growing, if the index is pressed.
    pub(crate) fn grow_index(&mut self, steps: usize) {
        for _ in 0..steps {
            if !self.index.pressed() {
                return;
            }
            let Table { index, records, keys, .. } = self;
            index.step(
                |reference| records.prefetch_for_hash(reference),
                |reference| records.hash(reference, keys).unwrap_or_default(),
            );
        }
    }

    /// Is there growing to do that no packet is needed for?
    pub(crate) fn pressed(&self) -> bool {
        self.index.pressed()
    }

    /// `slot` may now expire earlier than it might have.
    #[inline]
    pub(crate) fn lower_deadline(&mut self, slot: u32, deadline: u32) {
        self.deadlines.lower(slot as usize, deadline);
    }

    /// The earliest tick at which something may have expired; `None` while the table is empty.
    pub(crate) fn next_deadline(&self) -> Option<u32> {
        if self.count == 0 { None } else { self.deadlines.earliest() }
    }

    /// The timers, lent out while expired records are removed: give them back with [`Table::return_deadlines`].
    pub(crate) fn lend_deadlines(&mut self) -> Deadlines {
        core::mem::replace(&mut self.deadlines, Deadlines::new())
    }

    pub(crate) fn return_deadlines(&mut self, deadlines: Deadlines) {
        self.deadlines = deadlines;
    }

    /// Calls `see` with the references in each of `count` buckets from the one `probe` falls in, until it answers.
    pub(crate) fn neighbours<T>(
        &self,
        probe: &Probe,
        count: usize,
        see: impl FnMut(&[Reference]) -> Option<T>,
    ) -> Option<T> {
        self.index.neighbours(probe.hash, count, see)
    }

    /// Index entries: twice the connections, or something is wrong.
    pub(crate) fn index_entries(&self) -> usize {
        self.index.entries()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + self.records.bytes() + self.deadlines.bytes()
    }
}
