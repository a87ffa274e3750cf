//! Which connections a source has: so that its next one is translated alike.
//!
//! A connection comes in when its source's translation was decided (even to nothing), and goes when it ends. Those of one source hang in a
//! chain, the youngest first. Nothing here is made before the first translation.
use crate::table::{Chunked, Reference};
use crate::{Direction, Engine, Status, Tuple};
use core::net::IpAddr;
use hashbrown::HashMap;

/// Whose connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    pub(super) key: u16,
    pub(super) protocol: u8,
    pub(super) zone: u16,
}

impl Source {
    pub(super) fn of(original: &Tuple, zone: u16) -> Source {
        Source { address: original.source, key: original.source_key, protocol: original.protocol, zone }
    }
}

impl Engine {
    /// A connection that was decided elsewhere is entered under its source.
    pub(crate) fn remember_source(&mut self, slot: u32) {
        let decided = self.table.records.hot(slot).is_some_and(|hot| hot.status().has(Status::SRC_NAT_DONE));
        let zone = self.table.records.zone(slot).of(Direction::Original);
        if let (true, Some(original)) = (decided, self.table.records.key(Reference::new(slot, Direction::Original))) {
            self.nat.sources.insert(Source::of(&original.tuple(), zone), slot);
        }
    }
}

/// All sources with translated connections.
#[derive(Default)]
pub(crate) struct Sources {
    youngest: HashMap<Source, u32>,
    links: Links,
}

/// By slot: the younger and the older neighbour, each plus one; 0 is none.
struct Links(Chunked<[u32; 2], { 1 << 18 }>);

impl Default for Links {
    fn default() -> Self {
        Links(Chunked::new())
    }
}

const YOUNGER: usize = 0;
const OLDER: usize = 1;

impl Sources {
    /// Enters a connection. Without memory for it the source's next connection is translated as if this one were not.
    pub(super) fn insert(&mut self, source: Source, slot: u32) {
        if !self.links.0.make(slot as usize) {
            return;
        }
        let before = self.youngest.insert(source, slot);
        self.links.set(slot, YOUNGER, None);
        self.links.set(slot, OLDER, before);
        if let Some(before) = before {
            self.links.set(before, YOUNGER, Some(slot));
        }
    }

    /// Takes a connection out, if it is there.
    pub(super) fn remove(&mut self, source: &Source, slot: u32) {
        let (younger, older) = (self.links.neighbour(slot, YOUNGER), self.links.neighbour(slot, OLDER));
        match (younger, older) {
            (Some(younger), older) => self.links.set(younger, OLDER, older),
            // Only the youngest has nobody before it; one that was never entered has neither.
            (None, _) if self.youngest.get(source) != Some(&slot) => return,
            (None, Some(older)) => {
                self.youngest.insert(*source, older);
            }
            (None, None) => {
                self.youngest.remove(source);
            }
        }
        if let Some(older) = older {
            self.links.set(older, YOUNGER, younger);
        }
        self.links.set(slot, YOUNGER, None);
        self.links.set(slot, OLDER, None);
    }

    /// Its connections, the youngest first.
    pub(super) fn of(&self, source: &Source) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.youngest.get(source).copied(), |slot| self.links.neighbour(*slot, OLDER))
    }
}

impl Links {
    fn neighbour(&self, slot: u32, which: usize) -> Option<u32> {
        self.0.find(slot as usize)?[which].checked_sub(1)
    }

    fn set(&mut self, slot: u32, which: usize, neighbour: Option<u32>) {
        if let Some(links) = self.0.find_mut(slot as usize) {
            links[which] = neighbour.map_or(0, |slot| slot + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn source(port: u16) -> Source {
        Source { address: IpAddr::from([10, 0, 0, 1]), key: port, protocol: 6, zone: 0 }
    }

    #[test]
    fn a_chain_forgets_whom_it_loses_wherever_it_stood() {
        for gone in 0..3 {
            let mut sources = Sources::default();
            (0..3).for_each(|slot| sources.insert(source(1), slot));
            sources.insert(source(2), 7);
            sources.remove(&source(1), gone);
            let left: Vec<u32> = sources.of(&source(1)).collect();
            assert_eq!(left, [2, 1, 0].into_iter().filter(|slot| *slot != gone).collect::<Vec<_>>());
            sources.remove(&source(1), gone);
            assert_eq!(sources.of(&source(1)).count(), 2, "twice is once");
            assert_eq!(sources.of(&source(2)).collect::<Vec<_>>(), [7]);
            (0..3).for_each(|slot| sources.remove(&source(1), slot));
            assert!(sources.of(&source(1)).next().is_none() && sources.youngest.len() == 1);
        }
    }
}
