//! The connections of each source, so that its next connection is translated the same way.
//!
//! A connection is inserted when its source NAT is initialized (even if that changed nothing), and removed when it ends. The connections of one
//! source form a linked list, newest first. Nothing is allocated before the first translation.
use crate::Tuple;
use crate::table::ChunkedArray;
use core::net::IpAddr;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

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
}

/// All sources whose NAT is initialized.
#[derive(Clone)]
pub(crate) struct BysourceTable {
    newest: KeyedMap<BysourceKey, u32>,
    links: Links,
}

/// By slot: the newer and the older neighbour, each plus one; 0 means none.
#[derive(Clone)]
struct Links(ChunkedArray<[u32; 2], { 1 << 18 }>);

const NEWER: usize = 0;
const OLDER: usize = 1;

impl BysourceTable {
    pub(super) fn new(key: SipKey) -> BysourceTable {
        BysourceTable { newest: key.map(), links: Links(ChunkedArray::new()) }
    }

    /// Inserts a connection. If memory is short it is left out, and the source's next connection is translated without regard to it.
    pub(super) fn insert(&mut self, source: BysourceKey, slot: u32) {
        if !self.links.0.ensure_chunk(slot as usize) {
            return;
        }
        let before = self.newest.insert(source, slot);
        self.links.set(slot, NEWER, None);
        self.links.set(slot, OLDER, before);
        if let Some(before) = before {
            self.links.set(before, NEWER, Some(slot));
        }
    }

    /// Removes a connection, if it is there.
    pub(super) fn remove(&mut self, source: &BysourceKey, slot: u32) {
        let (younger, older) = (self.links.neighbour(slot, NEWER), self.links.neighbour(slot, OLDER));
        match (younger, older) {
            (Some(younger), older) => self.links.set(younger, OLDER, older),
            // Only the newest has no newer neighbour. A connection that was never inserted has no neighbour either, and is not the newest.
            (None, _) if self.newest.get(source) != Some(&slot) => return,
            (None, Some(older)) => {
                self.newest.insert(*source, older);
            }
            (None, None) => {
                self.newest.remove(source);
            }
        }
        if let Some(older) = older {
            self.links.set(older, NEWER, younger);
        }
        self.links.set(slot, NEWER, None);
        self.links.set(slot, OLDER, None);
    }

    /// The slots of the source's connections, newest first.
    pub(super) fn connections(&self, source: &BysourceKey) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.newest.get(source).copied(), |slot| self.links.neighbour(*slot, OLDER))
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
    use alloc::vec::Vec;

    fn source(port: u16) -> BysourceKey {
        BysourceKey { address: IpAddr::from([10, 0, 0, 1]), key: port, protocol: 6, zone: 0 }
    }

    #[test]
    fn removing_any_element_keeps_the_chain_intact() {
        for gone in 0..3 {
            let mut sources = BysourceTable::new(SipKey::new(1, 2));
            (0..3).for_each(|slot| sources.insert(source(1), slot));
            sources.insert(source(2), 7);
            sources.remove(&source(1), gone);
            let left: Vec<u32> = sources.connections(&source(1)).collect();
            assert_eq!(left, [2, 1, 0].into_iter().filter(|slot| *slot != gone).collect::<Vec<_>>());
            sources.remove(&source(1), gone);
            assert_eq!(sources.connections(&source(1)).count(), 2, "twice is once");
            assert_eq!(sources.connections(&source(2)).collect::<Vec<_>>(), [7]);
            (0..3).for_each(|slot| sources.remove(&source(1), slot));
            assert!(sources.connections(&source(1)).next().is_none() && sources.newest.len() == 1);
        }
    }
}
