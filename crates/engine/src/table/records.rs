//! The records of all connections, by slot: hot and cold parts apart, IPv6 addresses, counts and start times only where used.
use super::chunked::Chunked;
use super::index::Reference;
use super::key::{Addresses, HashKeys, Key};
use super::processor;
use super::record::{Cold, Hot, Kind, Placed, Wide};
use super::{Counts, Record};
use crate::{Direction, Zone};
use keepstate_wire::Family;

/// Slots of one family come in runs of this many: 2 MiB of hot records.
pub(crate) const RUN: usize = 1 << 15;
/// More than this a [`Reference`] cannot name.
const MOST_SLOTS: usize = 1 << 31;

/// See the module's words.
pub(crate) struct Records {
    hot: Chunked<Hot, RUN>,
    /// 10 MiB a chunk: the least that is whole huge pages.
    cold: Chunked<Cold, { 1 << 19 }>,
    wide: Chunked<Wide, RUN>,
    counts: Chunked<Counts, { 1 << 16 }>,
    /// When each was confirmed, in nanoseconds; 0 if that is not kept.
    starts: Chunked<u64, { 1 << 18 }>,
    zones: Chunked<Placed, { 1 << 18 }>,
    /// IPv4, then IPv6.
    free: [Free; 2],
    slots: usize,
}

/// The slots of one family that are not in use.
#[derive(Default)]
struct Free {
    /// Freed slots, chained through their first word (slot plus one); 0 ends it.
    freed: u32,
    /// Never used yet, of the last run.
    fresh: core::ops::Range<u32>,
}

impl Records {
    pub(crate) const fn new() -> Self {
        const NONE: Free = Free { freed: 0, fresh: 0..0 };
        Records {
            hot: Chunked::new(),
            cold: Chunked::new(),
            wide: Chunked::new(),
            counts: Chunked::new(),
            starts: Chunked::new(),
            zones: Chunked::new(),
            free: [NONE; 2],
            slots: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn hot(&self, slot: u32) -> Option<&Hot> {
        self.hot.find(slot as usize)
    }

    #[inline(always)]
    pub(crate) fn hot_mut(&mut self, slot: u32) -> Option<&mut Hot> {
        self.hot.find_mut(slot as usize)
    }

    pub(crate) fn cold(&self, slot: u32) -> Option<&Cold> {
        self.cold.find(slot as usize)
    }

    pub(crate) fn cold_mut(&mut self, slot: u32) -> Option<&mut Cold> {
        self.cold.find_mut(slot as usize)
    }

    pub(crate) fn counts(&self, slot: u32) -> Option<&Counts> {
        self.counts.find(slot as usize)
    }

    pub(crate) fn counts_mut(&mut self, slot: u32) -> Option<&mut Counts> {
        self.counts.find_mut(slot as usize)
    }

    pub(crate) fn start(&self, slot: u32) -> u64 {
        self.starts.find(slot as usize).copied().unwrap_or(0)
    }

    pub(crate) fn zone(&self, slot: u32) -> Zone {
        let zoned = self.hot(slot).is_some_and(|hot| hot.kind.is(Kind::ZONED));
        let placed = if zoned { self.zones.find(slot as usize) } else { None };
        placed.copied().map_or(Zone::default(), Zone::from)
    }

    /// Slots there are, in use or not.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// Begins to fetch what a packet will read of `reference`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, reference: Reference, family: Family) {
        let slot = reference.slot() as usize;
        if let Some(hot) = self.hot.find(slot) {
            processor::prefetch(hot);
        }
        if let (Family::V6, Some(wide)) = (family, self.wide.find(slot)) {
            processor::prefetch(wide);
        }
    }

    /// Begins to fetch what [`Records::hash`] will read of `reference`.
    pub(crate) fn prefetch_for_hash(&self, reference: Reference) {
        if let Some(hot) = self.hot(reference.slot()) {
            processor::prefetch(hot);
        }
    }

    /// The hash under which `reference` stands in the index.
    pub(crate) fn hash(&self, reference: Reference, keys: &HashKeys) -> Option<u64> {
        let zone = self.zone(reference.slot()).of(reference.direction());
        Some(self.key(reference)?.hash(zone, keys))
    }

    /// The key that `reference` names.
    pub(crate) fn key(&self, reference: Reference) -> Option<Key> {
        let slot = reference.slot();
        let hot = self.hot(slot)?;
        let (word, keys) = match reference.direction() {
            Direction::Original => (hot.addresses, hot.keys),
            // From the hot part alone, if it is all there: a line of cache less.
            Direction::Reply if hot.kind.is_plain_ports(hot.protocol()) => {
                (hot.addresses.rotate_left(32), hot.keys.rotate_left(16))
            }
            Direction::Reply => self.cold(slot).map(|cold| (cold.word(), cold.keys))?,
        };
        let addresses = if hot.kind.is(Kind::WIDE) {
            let wide = self.wide.find(slot as usize)?;
            Addresses::V6(match reference.direction() {
                Direction::Original => wide.original,
                Direction::Reply => wide.reply,
            })
        } else {
            Addresses::V4(word)
        };
        Some(Key { addresses, keys, protocol: hot.protocol() })
    }

    /// Is `key` in `zone` the tuple that `reference` names, of a connection that stands?
    #[inline(always)]
    pub(crate) fn fits(&self, reference: Reference, key: &Key, zone: Zone) -> bool {
        let Some(hot) = self.hot(reference.slot()) else { return false };
        // The common case, from the hot part alone: IPv4, no NAT, no zone; an answer is compared turned round.
        if let Addresses::V4(both) = key.addresses {
            let (both, keys) = match reference.direction() {
                Direction::Original => (both, key.keys),
                Direction::Reply => (both.rotate_left(32), key.keys.rotate_left(16)),
            };
            if hot.addresses == both && hot.keys == keys && hot.kind.is_plain_ports(key.protocol) && zone.id == 0 {
                // A freed slot may still be remembered by a batch; its octets are zeros, which can be a tuple too.
                return hot.living();
            }
        }
        self.fits_otherwise(reference, key, zone)
    }

    #[inline(never)]
    fn fits_otherwise(&self, reference: Reference, key: &Key, zone: Zone) -> bool {
        let Some(hot) = self.hot(reference.slot()) else { return false };
        let direction = reference.direction();
        let own = if hot.kind.is(Kind::ZONED) { self.zone(reference.slot()).of(direction) } else { 0 };
        hot.living() && own == zone.of(direction) && self.key(reference) == Some(*key)
    }

    /// Puts `record` into a free slot. `None` if there is no memory.
    pub(crate) fn put(&mut self, record: &Record<'_>) -> Option<u32> {
        let wide = matches!(record.original.addresses, Addresses::V6(_));
        let slot = self.take(wide)?;
        let at = slot as usize;
        let made = (record.counts.is_none() || self.counts.make(at))
            && (record.start == 0 || self.starts.make(at))
            && (record.zone.id == 0 || self.zones.make(at));
        if !made {
            self.free(slot);
            return None;
        }
        let mut kind = record.kind;
        kind |= if wide { Kind::WIDE } else { 0 };
        kind |= if record.zone.id != 0 { Kind::ZONED } else { 0 };
        kind |= if record.counts.is_some() { Kind::COUNTED } else { 0 };
        *self.hot.find_mut(at)? = Hot {
            addresses: record.original.word(),
            keys: record.original.keys,
            kind: Kind::new(record.original.protocol, kind),
            ..record.hot
        };
        self.cold.find_mut(at)?.begin(record.reply, record.mark);
        if let (Addresses::V6(original), Addresses::V6(reply)) = (record.original.addresses, record.reply.addresses) {
            *self.wide.find_mut(at)? = Wide { original, reply };
        }
        if let (Some(counts), Some(place)) = (record.counts, self.counts.find_mut(at)) {
            *place = counts;
        }
        if let Some(start) = self.starts.find_mut(at) {
            *start = record.start;
        }
        if let Some(placed) = self.zones.find_mut(at) {
            *placed = record.zone.into();
        }
        Some(slot)
    }

    fn take(&mut self, wide: bool) -> Option<u32> {
        let family = usize::from(wide);
        if let Some(slot) = self.free[family].freed.checked_sub(1) {
            let next = self.hot(slot)?.words[0];
            self.free[family].freed = next;
            // The next connection will be written there.
            if let Some(hot) = next.checked_sub(1).and_then(|next| self.hot(next)) {
                processor::prefetch(hot);
            }
            return Some(slot);
        }
        if self.free[family].fresh.is_empty() {
            let (begin, end) = (self.slots, self.slots + RUN);
            if end > MOST_SLOTS || !self.hot.make(begin) || !self.cold.make(begin) || wide && !self.wide.make(begin) {
                return None;
            }
            self.slots = end;
            self.free[family].fresh = u32::try_from(begin).ok()?..u32::try_from(end).ok()?;
        }
        self.free[family].fresh.next()
    }

    /// Ends the record in `slot`; a handle to it no longer fits.
    pub(crate) fn free(&mut self, slot: u32) {
        if let Some(hot) = self.hot.find_mut(slot as usize) {
            let freed = &mut self.free[usize::from(hot.kind.is(Kind::WIDE))].freed;
            *hot = Hot::default();
            hot.words[0] = *freed;
            *freed = slot + 1;
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let optional = self.counts.bytes() + self.starts.bytes() + self.zones.bytes();
        self.hot.bytes() + self.cold.bytes() + self.wide.bytes() + optional
    }
}
