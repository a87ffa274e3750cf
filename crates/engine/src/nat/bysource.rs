//! The connections of each source, so that its next connection is translated the same way.
//!
//! A connection is inserted when its source NAT is initialized (even if that changed nothing), and removed when it ends. The connections of one
//! source form a linked list, newest first. Nothing is allocated before the first translation.
use super::eim_table::InsideSource;
use crate::Direction;
use crate::table::key::{HashKeys, PackedAddrs, TupleKey, key_tail};
use crate::table::{ChunkedArray, Index, Records, TupleRef};
use core::net::IpAddr;

/// The inside source of a connection: address, key, protocol and zone, packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BysourceKey {
    /// Upper half and lower half; of IPv4 the upper half is 0.
    address: [u64; 2],
    /// What is hashed behind the address: key, zone, protocol, and [`BysourceKey::IPV6`].
    tail: u64,
}

impl BysourceKey {
    /// Above the key, which has 16 bits.
    const IPV6: u64 = 1 << 40;

    #[inline(always)]
    pub(super) fn from_key(original: &TupleKey, zone: u16) -> BysourceKey {
        let tail = key_tail(original.keys >> 16, zone, original.protocol);
        match original.addresses {
            PackedAddrs::V4(both) => BysourceKey { address: [0, both >> 32], tail },
            PackedAddrs::V6([source, _]) => BysourceKey { address: source, tail: tail | BysourceKey::IPV6 },
        }
    }

    #[inline]
    fn hash(&self, keys: &HashKeys) -> u64 {
        match self.tail & BysourceKey::IPV6 {
            0 => keys.hash_with_tail([self.address[1]], self.tail),
            _ => keys.hash_with_tail(self.address, self.tail),
        }
    }
}

impl From<&InsideSource> for BysourceKey {
    fn from(source: &InsideSource) -> BysourceKey {
        let InsideSource { address, key, protocol, zone } = *source;
        let tail = key_tail(key.into(), zone, protocol);
        match address {
            IpAddr::V4(address) => BysourceKey { address: [0, address.to_bits().into()], tail },
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                BysourceKey { address: [(bits >> 64) as u64, bits as u64], tail: tail | BysourceKey::IPV6 }
            }
        }
    }
}

/// All sources whose NAT is initialized: the newest connection of each in an index as that of the table, which grows by a bucket at a time, and by slot the links to the others.
#[derive(Clone)]
pub(crate) struct BysourceTable {
    newest: Index,
    keys: HashKeys,
    /// The source that was asked for last: its connection is inserted next, most of the time.
    last: LastSource,
    /// Counts insertions.
    epoch: u64,
    links: Links,
}

#[derive(Clone)]
struct LastSource {
    source: BysourceKey,
    hash: u64,
    /// The epoch at which it had no connection, if that was found.
    absent_at: Option<u64>,
}

/// By slot: the newer and the older neighbour, each plus one; 0 means none.
#[derive(Clone)]
struct Links(ChunkedArray<[u32; 2], { 1 << 18 }>);

const NEWER: usize = 0;
const OLDER: usize = 1;
/// Buckets split with an insertion: several times what is needed to keep up.
const SPLITS_PER_INSERT: usize = 2;

const fn reference(slot: u32) -> TupleRef {
    TupleRef::new(slot, Direction::Original)
}

/// The source of the connection in a slot.
fn source_of(records: &Records, slot: u32) -> Option<BysourceKey> {
    Some(BysourceKey::from_key(&records.key(reference(slot))?, records.zone(slot).id_for(Direction::Original)))
}

impl BysourceTable {
    /// An empty table, sized for `sources` at most, as Linux's is for as many as it has buckets. Memory is taken where it is used.
    pub(super) fn new(keys: HashKeys, sources: usize) -> BysourceTable {
        let none = BysourceKey { address: [0; 2], tail: 0 };
        let last = LastSource { source: none, hash: none.hash(&keys), absent_at: None };
        // Each source has one entry, where a connection has two.
        let newest = Index::new(Index::buckets_for(sources.div_ceil(2)));
        BysourceTable { newest, keys, last, epoch: 0, links: Links(ChunkedArray::new()) }
    }

    /// Hashes the source of a new connection.
    #[inline]
    pub(super) fn hash_ahead(&mut self, source: &BysourceKey) {
        self.last = LastSource { source: *source, hash: source.hash(&self.keys), absent_at: None };
    }

    /// As [`BysourceTable::hash_ahead`]. False if the source has no connection; it may be true of one that has none.
    #[inline(always)]
    pub(super) fn may_have(&mut self, source: &BysourceKey) -> bool {
        self.hash_ahead(source);
        let may_have = self.newest.first_match(self.last.hash).is_some();
        self.last.absent_at = (!may_have).then_some(self.epoch);
        may_have
    }

    #[inline]
    fn hash(&self, source: &BysourceKey) -> u64 {
        if self.last.source == *source { self.last.hash } else { source.hash(&self.keys) }
    }

    #[inline(always)]
    fn newest(&self, source: &BysourceKey, hash: u64, records: &Records) -> Option<u32> {
        // Most sources are new.
        self.newest.first_match(hash)?;
        self.search_newest(source, hash, records)
    }

    #[inline(never)]
    fn search_newest(&self, source: &BysourceKey, hash: u64, records: &Records) -> Option<u32> {
        let fits = |found: TupleRef| (source_of(records, found.slot()) == Some(*source)).then_some(found.slot());
        self.newest.search(hash, fits)
    }

    /// As [`BysourceTable::insert`], of a connection whose source is not at hand.
    pub(super) fn insert_slot(&mut self, slot: u32, records: &Records) {
        if let Some(source) = source_of(records, slot) {
            self.insert(slot, &source, records);
        }
    }

    /// Inserts the connection in `slot`, which has this source. If memory is short it is left out, and the source's next connection is translated without regard to it.
    #[inline(always)]
    pub(super) fn insert(&mut self, slot: u32, source: &BysourceKey, records: &Records) {
        let hash = self.hash(source);
        if !self.links.0.ensure_chunk(slot as usize) {
            return;
        }
        let is_absent = self.last.absent_at == Some(self.epoch) && self.last.source == *source;
        let before = if is_absent { None } else { self.newest(source, hash, records) };
        self.epoch += 1;
        let done = match before {
            Some(before) => self.newest.replace(hash, reference(before), reference(slot)),
            None => self.newest.insert(hash, reference(slot)),
        };
        if !done {
            return;
        }
        self.links.set_both(slot, [None, before]);
        if let Some(before) = before {
            self.links.set(before, NEWER, Some(slot));
        }
        if self.newest.needs_growth() {
            self.grow(records);
        }
    }

    #[inline(never)]
    fn grow(&mut self, records: &Records) {
        for _ in 0..SPLITS_PER_INSERT {
            if self.newest.needs_growth() {
                let BysourceTable { newest, keys, .. } = self;
                newest.split_bucket(
                    |found| records.prefetch_for_hash(found),
                    |found| source_of(records, found.slot()).map_or(0, |source| source.hash(keys)),
                );
            }
        }
    }

    /// Removes the connection in `slot`, which is in the table still, if it is there.
    pub(super) fn remove(&mut self, slot: u32, records: &Records) {
        let Some(source) = source_of(records, slot) else { return };
        let hash = source.hash(&self.keys);
        let (younger, older) = (self.links.neighbour(slot, NEWER), self.links.neighbour(slot, OLDER));
        match (younger, older) {
            (Some(younger), older) => self.links.set(younger, OLDER, older),
            // Only the newest has no newer neighbour. A connection that was never inserted has no neighbour either, and is not the newest.
            (None, Some(older)) => {
                if !self.newest.replace(hash, reference(slot), reference(older)) {
                    return;
                }
            }
            (None, None) => {
                self.newest.remove(hash, reference(slot));
            }
        }
        if let Some(older) = older {
            self.links.set(older, NEWER, younger);
        }
        self.links.set(slot, NEWER, None);
        self.links.set(slot, OLDER, None);
    }

    /// The slots of the source's connections, newest first.
    pub(super) fn connections(&self, source: &BysourceKey, records: &Records) -> impl Iterator<Item = u32> + '_ {
        let newest = self.newest(source, self.hash(source), records);
        core::iter::successors(newest, |slot| self.links.neighbour(*slot, OLDER))
    }
}

impl Links {
    fn neighbour(&self, slot: u32, which: usize) -> Option<u32> {
        self.0.get(slot as usize)?[which].checked_sub(1)
    }

    /// Newer, then older.
    #[inline(always)]
    fn set_both(&mut self, slot: u32, neighbours: [Option<u32>; 2]) {
        if let Some(links) = self.0.get_mut(slot as usize) {
            *links = neighbours.map(|neighbour| neighbour.map_or(0, |slot| slot + 1));
        }
    }

    fn set(&mut self, slot: u32, which: usize, neighbour: Option<u32>) {
        if let Some(links) = self.0.get_mut(slot as usize) {
            links[which] = neighbour.map_or(0, |slot| slot + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::record::{HotRecord, RecordKind};
    use crate::table::{NewRecord, Table};
    use crate::{Secret, Status, Tuple, Zone};
    use alloc::vec::Vec;

    fn source(port: u16) -> BysourceKey {
        let (source, destination) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let tuple = Tuple { source, destination, protocol: 6, source_key: port, destination_key: 1 };
        BysourceKey::from_key(&TupleKey::from(&tuple), 0)
    }

    /// A connection from this port to this one.
    fn connect(table: &mut Table, port: u16, peer: u16) -> u32 {
        let (source, destination) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let tuple = Tuple { source, destination, protocol: 6, source_key: port, destination_key: peer };
        let original = TupleKey::from(&tuple);
        let record = NewRecord {
            original: &original,
            reply: &original.invert().unwrap(),
            zone: Zone::default(),
            mark: 0,
            hot: HotRecord { status: Status::CONFIRMED.bits() as u16, ..HotRecord::default() },
            kind: RecordKind::UNTRANSLATED,
            counts: None,
            hashes: [0; 2],
            start: 0,
        };
        table.insert(&record, 0).unwrap()
    }

    fn tables() -> (Table, BysourceTable) {
        let keys = |salt| HashKeys::derive(&Secret([7; 16]), salt);
        (Table::new(keys(0), 16), BysourceTable::new(keys(1), 1))
    }

    #[test]
    fn removing_any_element_keeps_the_chain_intact() {
        for gone in 0..3 {
            let (mut table, mut sources) = tables();
            let slots = [1, 2, 3].map(|peer| connect(&mut table, 1, peer));
            slots.iter().for_each(|slot| sources.insert_slot(*slot, &table.records));
            let other = connect(&mut table, 2, 1);
            sources.insert_slot(other, &table.records);
            let left = |sources: &BysourceTable, port| -> Vec<u32> {
                sources.connections(&source(port), &table.records).collect()
            };
            sources.remove(slots[gone], &table.records);
            let expected: Vec<u32> = slots.iter().rev().copied().filter(|slot| *slot != slots[gone]).collect();
            assert_eq!(left(&sources, 1), expected);
            sources.remove(slots[gone], &table.records);
            assert_eq!(left(&sources, 1), expected, "twice is once");
            assert_eq!(left(&sources, 2), [other]);
            slots.iter().for_each(|slot| sources.remove(*slot, &table.records));
            assert_eq!((left(&sources, 1).len(), sources.newest.entries()), (0, 1));
        }
    }

    #[test]
    fn it_grows_by_a_few_buckets_with_each_source() {
        let (mut table, mut sources) = tables();
        let (mut slots, mut buckets) = (Vec::new(), sources.newest.bucket_count());
        for port in 1..20_000 {
            for peer in 1..=1 + port % 2 {
                slots.push(connect(&mut table, port, peer));
                sources.insert_slot(slots[slots.len() - 1], &table.records);
            }
            let now = sources.newest.bucket_count();
            assert!(now - buckets <= 2 * SPLITS_PER_INSERT && !sources.newest.needs_growth());
            buckets = now;
        }
        for port in 1..20_000 {
            let count = sources.connections(&source(port), &table.records).count();
            assert_eq!(count, 1 + usize::from(port % 2), "{port}");
        }
        slots.iter().for_each(|slot| sources.remove(*slot, &table.records));
        assert_eq!(sources.newest.entries(), 0);
    }
}
