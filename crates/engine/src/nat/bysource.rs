//! The connections of each source, so that its next connection is translated the same way.
//!
//! A connection is inserted when its source NAT is initialized (even if that changed nothing), and removed when it ends. The connections of one
//! source form a linked list, newest first. Nothing is allocated before the first translation.
use crate::table::key::{HashKeys, PackedAddrs, TupleKey, key_tail};
use crate::table::{ChunkedArray, Index, Records, TupleRef};
use crate::{Direction, Tuple};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The inside source of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BysourceKey {
    pub(super) address: IpAddr,
    pub(super) key: u16,
    pub(super) protocol: u8,
    pub(super) zone: u16,
}

impl BysourceKey {
    pub(super) fn from_tuple(original: &Tuple, zone: u16) -> BysourceKey {
        BysourceKey { address: original.source, key: original.source_key, protocol: original.protocol, zone }
    }

    fn from_key(original: &TupleKey, zone: u16) -> BysourceKey {
        let address = match original.addresses {
            PackedAddrs::V4(both) => IpAddr::V4(Ipv4Addr::from_bits((both >> 32) as u32)),
            PackedAddrs::V6([[high, low], _]) => {
                IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))
            }
        };
        BysourceKey { address, key: (original.keys >> 16) as u16, protocol: original.protocol, zone }
    }

    fn hash(&self, keys: &HashKeys) -> u64 {
        let tail = key_tail(self.key.into(), self.zone, self.protocol);
        match self.address {
            IpAddr::V4(address) => keys.hash_with_tail([address.to_bits().into()], tail),
            IpAddr::V6(address) => {
                let bits = address.to_bits();
                keys.hash_with_tail([(bits >> 64) as u64, bits as u64], tail)
            }
        }
    }
}

/// All sources whose NAT is initialized: the newest connection of each in an index as that of the table, which grows by a bucket at a time, and by slot the links to the others.
#[derive(Clone)]
pub(crate) struct BysourceTable {
    newest: Index,
    keys: HashKeys,
    /// The source that was asked for last, and its hash: its connection is inserted next, most of the time.
    last: (BysourceKey, u64),
    links: Links,
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
    pub(super) fn new(keys: HashKeys) -> BysourceTable {
        let none = BysourceKey { address: Ipv4Addr::UNSPECIFIED.into(), key: 0, protocol: 0, zone: 0 };
        let last = (none, none.hash(&keys));
        BysourceTable { newest: Index::new(1), keys, last, links: Links(ChunkedArray::new()) }
    }

    /// Hashes the source of a new connection.
    pub(super) fn hash_ahead(&mut self, source: &BysourceKey) {
        self.last = (*source, source.hash(&self.keys));
    }

    #[inline]
    fn hash(&self, source: &BysourceKey) -> u64 {
        if self.last.0 == *source { self.last.1 } else { source.hash(&self.keys) }
    }

    fn newest(&self, source: &BysourceKey, hash: u64, records: &Records) -> Option<u32> {
        // Most sources are new.
        self.newest.first_match(hash)?;
        let fits = |found: TupleRef| (source_of(records, found.slot()) == Some(*source)).then_some(found.slot());
        self.newest.search(hash, fits)
    }

    /// Inserts the connection in `slot`. If memory is short it is left out, and the source's next connection is translated without regard to it.
    pub(super) fn insert(&mut self, slot: u32, records: &Records) {
        let Some(source) = source_of(records, slot) else { return };
        let hash = self.hash(&source);
        if !self.links.0.ensure_chunk(slot as usize) {
            return;
        }
        let before = self.newest(&source, hash, records);
        let done = match before {
            Some(before) => self.newest.replace(hash, reference(before), reference(slot)),
            None => self.newest.insert(hash, reference(slot)),
        };
        if !done {
            return;
        }
        self.links.set(slot, NEWER, None);
        self.links.set(slot, OLDER, before);
        if let Some(before) = before {
            self.links.set(before, NEWER, Some(slot));
        }
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
    use crate::{Secret, Status, Zone};
    use alloc::vec::Vec;

    fn source(port: u16) -> BysourceKey {
        BysourceKey { address: IpAddr::from([10, 0, 0, 1]), key: port, protocol: 6, zone: 0 }
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
        (Table::new(keys(0), 16), BysourceTable::new(keys(1)))
    }

    #[test]
    fn removing_any_element_keeps_the_chain_intact() {
        for gone in 0..3 {
            let (mut table, mut sources) = tables();
            let slots = [1, 2, 3].map(|peer| connect(&mut table, 1, peer));
            slots.iter().for_each(|slot| sources.insert(*slot, &table.records));
            let other = connect(&mut table, 2, 1);
            sources.insert(other, &table.records);
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
                sources.insert(slots[slots.len() - 1], &table.records);
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
