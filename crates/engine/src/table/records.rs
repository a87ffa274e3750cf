//! The records of all connections, by slot. What only some connections have is in arrays of its own, of which only those chunks exist in which one has it: translated reply
//! tuples, marks, IPv6 addresses, counters, start times, zones.
//!
//! A slot is allocated on insert and returned to its family's free list on removal. It never changes its family.
use super::chunked::ChunkedArray;
use super::index::TupleRef;
use super::key::{HashKeys, PackedAddrs, TupleKey};
use super::new_record::{AcctCounts, NewRecord};
use super::record::{ColdRecord, HotRecord, Ipv6Addrs, RecordKind, ZoneRecord};
use super::simd;
use crate::{Direction, Zone};
use alloc::boxed::Box;
use alloc::vec::Vec;
use keepstate_wire::Family;
use zerocopy::FromZeros;

/// Slots are allocated per address family, in runs of this many: 2 MiB of hot records.
pub(crate) const SLOTS_PER_RUN: usize = 1 << 15;
/// The most slots that a [`TupleRef`] can refer to.
const MAX_SLOTS: usize = 1 << 31;

/// The records. See the module documentation.
#[derive(Clone)]
pub(crate) struct Records {
    runs: Vec<Run>,
    cold: ChunkedArray<ColdRecord, { 1 << 17 }>,
    ipv6_originals: ChunkedArray<Ipv6Addrs, { 1 << 16 }>,
    ipv6_replies: ChunkedArray<Ipv6Addrs, { 1 << 16 }>,
    counts: ChunkedArray<AcctCounts, { 1 << 16 }>,
    /// When each was confirmed, in nanoseconds; 0 if not recorded.
    starts: ChunkedArray<u64, { 1 << 18 }>,
    zones: ChunkedArray<ZoneRecord, { 1 << 18 }>,
    /// Free slots for IPv4, then for IPv6.
    free_slots: [FreeSlots; 2],
    slot_count: usize,
}

/// What every connection of a run of slots has. Two boxes: that of the records is one huge page.
#[derive(Clone)]
struct Run {
    hot: Box<[HotRecord; SLOTS_PER_RUN]>,
    /// How many connections each slot has had. Never reset: together with the slot it names a connection for ever (but for wrapping), whatever a peer sends.
    generations: Box<[u32; SLOTS_PER_RUN]>,
}

/// The free slots of one address family.
#[derive(Clone, Default)]
struct FreeSlots {
    /// Freed slots, linked through `words[0]` (slot plus one); 0 ends the list.
    freelist_head: u32,
    /// The slots of the last run that were never used.
    unused: core::ops::Range<u32>,
}

/// The run that a slot is in.
#[inline(always)]
const fn run_of(slot: u32) -> usize {
    slot as usize / SLOTS_PER_RUN
}

/// Its place there.
#[inline(always)]
const fn place_of(slot: u32) -> usize {
    slot as usize % SLOTS_PER_RUN
}

impl Records {
    pub(crate) const fn new() -> Self {
        const NONE: FreeSlots = FreeSlots { freelist_head: 0, unused: 0..0 };
        Records {
            runs: Vec::new(),
            cold: ChunkedArray::new(),
            ipv6_originals: ChunkedArray::new(),
            ipv6_replies: ChunkedArray::new(),
            counts: ChunkedArray::new(),
            starts: ChunkedArray::new(),
            zones: ChunkedArray::new(),
            free_slots: [NONE; 2],
            slot_count: 0,
        }
    }

    #[inline(always)]
    pub(crate) fn hot(&self, slot: u32) -> Option<&HotRecord> {
        self.runs.get(run_of(slot)).map(|run| &run.hot[place_of(slot)])
    }

    #[inline(always)]
    pub(crate) fn hot_mut(&mut self, slot: u32) -> Option<&mut HotRecord> {
        self.runs.get_mut(run_of(slot)).map(|run| &mut run.hot[place_of(slot)])
    }

    /// Addresses and keys of the reply tuple of a translated IPv4 connection.
    #[inline(always)]
    pub(crate) fn translated_reply(&self, slot: u32) -> Option<(u64, u32)> {
        self.cold.get(slot as usize).map(|cold| (cold.packed_addresses(), cold.keys))
    }

    /// The original addresses of an IPv6 connection.
    #[inline(always)]
    pub(crate) fn ipv6_original(&self, slot: u32) -> Option<&Ipv6Addrs> {
        self.ipv6_originals.get(slot as usize)
    }

    /// As [`Records::translated_reply`], of a translated IPv6 connection.
    #[inline(always)]
    pub(crate) fn translated_reply_v6(&self, slot: u32) -> Option<(Ipv6Addrs, u32)> {
        Some((*self.ipv6_replies.get(slot as usize)?, self.cold.get(slot as usize)?.keys))
    }

    /// The mark of the connection in a slot.
    pub(crate) fn mark(&self, slot: u32) -> u32 {
        self.cold.get(slot as usize).map_or(0, |cold| cold.mark)
    }

    /// Sets the mark of the connection in a slot. False if out of memory.
    pub(crate) fn set_mark(&mut self, slot: u32, mark: u32) -> bool {
        // Where there is nothing, all marks are 0.
        if mark != 0 && !self.cold.ensure_chunk(slot as usize) {
            return false;
        }
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.mark = mark;
        }
        true
    }

    /// The generation of the connection in a slot, or of the last one.
    #[inline(always)]
    pub(crate) fn generation(&self, slot: u32) -> u32 {
        self.runs.get(run_of(slot)).map_or(0, |run| run.generations[place_of(slot)])
    }

    pub(crate) fn counts(&self, slot: u32) -> Option<&AcctCounts> {
        self.counts.get(slot as usize)
    }

    pub(crate) fn counts_mut(&mut self, slot: u32) -> Option<&mut AcctCounts> {
        self.counts.get_mut(slot as usize)
    }

    pub(crate) fn start(&self, slot: u32) -> u64 {
        self.starts.get(slot as usize).copied().unwrap_or(0)
    }

    pub(crate) fn zone(&self, slot: u32) -> Zone {
        let zoned = self.hot(slot).is_some_and(|hot| hot.kind.has(RecordKind::ZONED));
        let zone = if zoned { self.zones.get(slot as usize) } else { None };
        zone.copied().map_or(Zone::default(), Zone::from)
    }

    /// The number of slots, in use or not.
    pub(crate) fn slot_count(&self) -> usize {
        self.slot_count
    }

    /// Prefetches what tracking a packet reads of `reference`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, reference: TupleRef, family: Family) {
        let slot = reference.slot();
        self.prefetch_slot(slot);
        if family == Family::V6
            && let Some(addresses) = self.ipv6_originals.get(slot as usize)
        {
            simd::prefetch(addresses);
        }
    }

    /// Prefetches the hot record and the generation.
    #[inline(always)]
    fn prefetch_slot(&self, slot: u32) {
        if let Some(run) = self.runs.get(run_of(slot)) {
            simd::prefetch(&run.hot[place_of(slot)]);
            simd::prefetch(&run.generations[place_of(slot)]);
        }
    }

    /// Prefetches what counting packets of a connection reads and writes.
    pub(crate) fn prefetch_for_stats(&self, slot: u32) {
        self.prefetch_slot(slot);
        if let Some(counts) = self.counts.get(slot as usize) {
            simd::prefetch(counts);
        }
    }

    /// Prefetches what [`Records::hash`] reads of `reference`.
    pub(crate) fn prefetch_for_hash(&self, reference: TupleRef) {
        if let Some(hot) = self.hot(reference.slot()) {
            simd::prefetch(hot);
        }
    }

    /// The hash under which `reference` is in the index.
    pub(crate) fn hash(&self, reference: TupleRef, keys: &HashKeys) -> Option<u64> {
        let zone = self.zone(reference.slot()).id_for(reference.direction());
        Some(self.key(reference)?.hash(zone, keys))
    }

    /// The key that `reference` names.
    #[inline]
    pub(crate) fn key(&self, reference: TupleRef) -> Option<TupleKey> {
        let (slot, direction) = (reference.slot(), reference.direction());
        let hot = self.hot(slot)?;
        let is_ipv6 = hot.kind.has(RecordKind::IPV6);
        if direction == Direction::Original || hot.kind.has(RecordKind::UNTRANSLATED) {
            let addresses = match is_ipv6 {
                true => PackedAddrs::V6(*self.ipv6_originals.get(slot as usize)?),
                false => PackedAddrs::V4(hot.addresses),
            };
            let original = TupleKey { addresses, keys: hot.keys, protocol: hot.protocol() };
            return if direction == Direction::Original { Some(original) } else { original.invert() };
        }
        let cold = self.cold.get(slot as usize)?;
        let addresses = match is_ipv6 {
            true => PackedAddrs::V6(*self.ipv6_replies.get(slot as usize)?),
            false => PackedAddrs::V4(cold.packed_addresses()),
        };
        Some(TupleKey { addresses, keys: cold.keys, protocol: hot.protocol() })
    }

    /// Does `reference` name a confirmed connection with tuple `key` in `zone`?
    #[inline(always)]
    pub(crate) fn matches(&self, reference: TupleRef, key: &TupleKey, zone: Zone) -> bool {
        let Some(hot) = self.hot(reference.slot()) else { return false };
        // The common case needs only the hot part: IPv4, no NAT, default zone. A reply is inverted before the comparison.
        if let PackedAddrs::V4(both) = key.addresses {
            let (both, keys) = match reference.direction() {
                Direction::Original => (both, key.keys),
                Direction::Reply => (both.rotate_left(32), key.keys.rotate_left(16)),
            };
            if hot.addresses == both && hot.keys == keys && hot.kind.is_untranslated_v4(key.protocol) && zone.id == 0 {
                // A batch may still refer to a freed slot; its bytes are zero, which is a possible tuple.
                return hot.is_confirmed();
            }
        }
        self.matches_slow(reference, key, zone)
    }

    #[inline(never)]
    fn matches_slow(&self, reference: TupleRef, key: &TupleKey, zone: Zone) -> bool {
        let Some(hot) = self.hot(reference.slot()) else { return false };
        let direction = reference.direction();
        let own = if hot.kind.has(RecordKind::ZONED) { self.zone(reference.slot()).id_for(direction) } else { 0 };
        hot.is_confirmed() && own == zone.id_for(direction) && self.key(reference) == Some(*key)
    }

    /// Stores `record` in a free slot and returns the slot. `None` if out of memory.
    pub(crate) fn insert(&mut self, record: &NewRecord<'_>) -> Option<u32> {
        let is_ipv6 = matches!(record.original.addresses, PackedAddrs::V6(_));
        let slot = self.alloc_slot(is_ipv6)?;
        let at = slot as usize;
        let is_translated = record.kind & RecordKind::UNTRANSLATED == 0;
        let allocated = (record.mark == 0 && !is_translated || self.cold.ensure_chunk(at))
            && (!is_translated || !is_ipv6 || self.ipv6_replies.ensure_chunk(at))
            && (record.counts.is_none() || self.counts.ensure_chunk(at))
            && (record.start == 0 || self.starts.ensure_chunk(at))
            && (record.zone.id == 0 || self.zones.ensure_chunk(at));
        if !allocated {
            self.free_slot(slot);
            return None;
        }
        let mut kind = record.kind;
        kind |= if is_ipv6 { RecordKind::IPV6 } else { 0 };
        kind |= if record.zone.id != 0 { RecordKind::ZONED } else { 0 };
        kind |= if record.counts.is_some() { RecordKind::COUNTED } else { 0 };
        let run = self.runs.get_mut(run_of(slot))?;
        run.hot[place_of(slot)] = HotRecord {
            addresses: record.original.packed_addresses(),
            keys: record.original.keys,
            kind: RecordKind::new(record.original.protocol, kind),
            ..record.hot
        };
        let generation = &mut run.generations[place_of(slot)];
        *generation = generation.wrapping_add(1);
        if let Some(cold) = self.cold.get_mut(at) {
            cold.init(record.reply, record.mark);
        }
        if let (PackedAddrs::V6(addresses), Some(original)) =
            (record.original.addresses, self.ipv6_originals.get_mut(at))
        {
            *original = addresses;
        }
        if let (PackedAddrs::V6(addresses), Some(reply)) = (record.reply.addresses, self.ipv6_replies.get_mut(at)) {
            *reply = addresses;
        }
        if let (Some(counts), Some(counters)) = (record.counts, self.counts.get_mut(at)) {
            *counters = counts;
        }
        if let Some(start) = self.starts.get_mut(at) {
            *start = record.start;
        }
        if let Some(zone) = self.zones.get_mut(at) {
            *zone = record.zone.into();
        }
        Some(slot)
    }

    /// Stores a connection in the default zone without mark, counters and start time, and returns the slot. `None` if out of memory.
    #[inline(always)]
    pub(crate) fn insert_plain(
        &mut self,
        record: HotRecord,
        (original, reply): (&TupleKey, Option<&TupleKey>),
    ) -> Option<u32> {
        let is_ipv6 = matches!(original.addresses, PackedAddrs::V6(_));
        let slot = self.alloc_slot(is_ipv6)?;
        let at = slot as usize;
        let allocated =
            reply.is_none() || self.cold.ensure_chunk(at) && (!is_ipv6 || self.ipv6_replies.ensure_chunk(at));
        if !allocated {
            self.free_slot(slot);
            return None;
        }
        let run = self.runs.get_mut(run_of(slot))?;
        run.hot[place_of(slot)] = record;
        let generation = &mut run.generations[place_of(slot)];
        *generation = generation.wrapping_add(1);
        if let (PackedAddrs::V6(addresses), Some(place)) = (original.addresses, self.ipv6_originals.get_mut(at)) {
            *place = addresses;
        }
        match reply {
            Some(reply) => self.set_translated_reply(slot, reply),
            // Others of its kind left a mark behind, which is read whatever the kind.
            None => {
                if let Some(cold) = self.cold.get_mut(at) {
                    cold.mark = 0;
                }
            }
        }
        if let Some(start) = self.starts.get_mut(at) {
            *start = 0;
        }
        Some(slot)
    }

    /// Writes the reply tuple of a translated connection.
    #[inline(always)]
    fn set_translated_reply(&mut self, slot: u32, reply: &TupleKey) {
        if let Some(cold) = self.cold.get_mut(slot as usize) {
            cold.init(reply, 0);
        }
        if let (PackedAddrs::V6(addresses), Some(place)) = (reply.addresses, self.ipv6_replies.get_mut(slot as usize)) {
            *place = addresses;
        }
    }

    #[inline(always)]
    fn alloc_slot(&mut self, is_ipv6: bool) -> Option<u32> {
        let family = usize::from(is_ipv6);
        if let Some(slot) = self.free_slots[family].freelist_head.checked_sub(1) {
            let next = self.hot(slot)?.words[0];
            self.free_slots[family].freelist_head = next;
            // The next connection will be written to it.
            if let Some(next) = next.checked_sub(1) {
                self.prefetch_slot(next);
            }
            return Some(slot);
        }
        match self.free_slots[family].unused.next() {
            Some(slot) => Some(slot),
            None => self.alloc_run(is_ipv6),
        }
    }

    /// Begins another run, and allocates its first slot. `None` if out of memory.
    #[cold]
    fn alloc_run(&mut self, is_ipv6: bool) -> Option<u32> {
        let (begin, end) = (self.slot_count, self.slot_count + SLOTS_PER_RUN);
        if end > MAX_SLOTS || is_ipv6 && !self.ipv6_originals.ensure_chunk(begin) || !self.add_run() {
            return None;
        }
        self.slot_count = end;
        let unused = &mut self.free_slots[usize::from(is_ipv6)].unused;
        *unused = u32::try_from(begin).ok()?..u32::try_from(end).ok()?;
        unused.next()
    }

    /// False if out of memory.
    fn add_run(&mut self) -> bool {
        let (Ok(hot), Ok(generations)) = (<[HotRecord; SLOTS_PER_RUN]>::new_box_zeroed(), FromZeros::new_box_zeroed())
        else {
            return false;
        };
        let has_room = self.runs.try_reserve(1).is_ok();
        if has_room {
            self.runs.push(Run { hot, generations });
        }
        has_room
    }

    /// Frees `slot` and zeroes its hot record; a [`ConnId`](crate::ConnId) of it becomes invalid.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        if let Some(hot) = self.runs.get_mut(run_of(slot)).map(|run| &mut run.hot[place_of(slot)]) {
            let freed = &mut self.free_slots[usize::from(hot.kind.has(RecordKind::IPV6))].freelist_head;
            *hot = HotRecord::default();
            hot.words[0] = *freed;
            *freed = slot + 1;
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let optional = self.counts.memory_bytes() + self.starts.memory_bytes() + self.zones.memory_bytes();
        self.runs.len() * SLOTS_PER_RUN * (size_of::<HotRecord>() + size_of::<u32>())
            + self.runs.capacity() * size_of::<Run>()
            + self.cold.memory_bytes()
            + self.ipv6_originals.memory_bytes()
            + self.ipv6_replies.memory_bytes()
            + optional
    }
}
