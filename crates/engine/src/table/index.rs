//! The hash index: maps a hash to the few references that may have it. Linear hashing, with buckets of one cache line.
//!
//! ```text
//! Bucket: one cache line
//!   0                    20                                      60       64
//!   ├────────────────────┼───────────────────────────────────────┼────────┤
//!   │ 10 fingerprints u16│ 10 references u32 (slot × 2 + direct.)│overflow│
//!   └────────────────────┴───────────────────────────────────────┴────────┘
//! ```
//! A fingerprint of 0 marks an empty slot. A full bucket is continued in an overflow bucket from a pool. The index grows one bucket at a time
//! (Litwin, "Linear hashing", 1980): one bucket is split, and its entries with the next hash bit set move to the new one. So no packet ever
//! waits for a rehash of the whole table. The index must never shrink, and never moves a bucket in memory,
//! not one of the pool either.
use super::chunked::{ChunkedArray, DenseArray};
use super::simd;
use crate::Direction;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const ENTRIES_PER_BUCKET: usize = 10;
/// 2 MiB of buckets.
const BUCKETS_PER_CHUNK: usize = 1 << 15;
/// 32 KiB of overflow buckets.
const OVERFLOWS_PER_CHUNK: usize = 1 << 9;
/// Grow above this many entries per 20 buckets, that is 7 of 10 slots. With more, more lookups need an overflow bucket; with fewer,
/// memory is wasted.
const ENTRIES_PER_20_BUCKETS: usize = 140;

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    fingerprints: [u16; ENTRIES_PER_BUCKET],
    references: [u32; ENTRIES_PER_BUCKET],
    /// Number of an overflow bucket plus one; 0 for none.
    overflow: u32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Refers to one tuple of a connection: its slot and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TupleRef(u32);

impl TupleRef {
    pub(crate) const fn new(slot: u32, direction: Direction) -> Self {
        TupleRef(slot << 1 | direction as u32)
    }
    pub(crate) const fn from_bits(bits: u32) -> Self {
        TupleRef(bits)
    }
    pub(crate) const fn bits(self) -> u32 {
        self.0
    }
    #[inline(always)]
    pub(crate) const fn slot(self) -> u32 {
        self.0 >> 1
    }
    #[inline(always)]
    pub(crate) const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Original } else { Direction::Reply }
    }
}

/// The index. See the module documentation.
#[derive(Clone)]
pub(crate) struct Index {
    buckets: ChunkedArray<Bucket, BUCKETS_PER_CHUNK>,
    /// Buckets in use.
    length: usize,
    /// The smallest power of two not below `length`, less one.
    mask: usize,
    /// It grows to this many buckets even without entries.
    target_length: usize,
    entries: usize,
    overflow: DenseArray<Bucket, OVERFLOWS_PER_CHUNK>,
    /// Overflow buckets that were ever used.
    overflow_length: usize,
    /// Free overflow buckets, chained by their `overflow` field (number plus one).
    free_overflow: u32,
}

/// The fingerprint of a hash: its upper 16 bits, which no bucket number uses, but never 0.
#[inline(always)]
fn fingerprint(hash: u64) -> u16 {
    let top = (hash >> 48) as u16;
    if top == 0 { 1 } else { top }
}

impl Index {
    /// Creates an index of `buckets` buckets. Their memory is not taken until used.
    pub(crate) fn new(buckets: usize) -> Self {
        let mut index = Index {
            buckets: ChunkedArray::new(),
            length: 1,
            mask: 0,
            target_length: 1,
            entries: 0,
            overflow: DenseArray::new(),
            overflow_length: 0,
            free_overflow: 0,
        };
        index.set_target(buckets);
        // The index is empty: growing moves nothing, and a chunk that is missing is a chunk of empty buckets.
        index.length = index.target_length;
        index.mask = index.length.next_power_of_two() - 1;
        index
    }

    /// Buckets needed to hold `connections` without growing.
    pub(crate) fn buckets_for(connections: usize) -> usize {
        (connections.saturating_mul(2 * 20) / ENTRIES_PER_20_BUCKETS).max(1)
    }

    /// Sets the number of buckets to grow to, at least. [`Index::split_bucket`] does the growing.
    pub(crate) fn set_target(&mut self, buckets: usize) {
        self.target_length = buckets.clamp(1, 1 << 31);
    }

    /// Is the index smaller than its target, or too full?
    #[inline(always)]
    pub(crate) fn needs_growth(&self) -> bool {
        self.length < self.target_length || self.entries * 20 > self.length * ENTRIES_PER_20_BUCKETS
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    #[cfg(test)]
    pub(crate) fn bucket_count(&self) -> usize {
        self.length
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.buckets.memory_bytes() + self.overflow.memory_bytes()
    }

    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> usize {
        let low = hash as usize & self.mask;
        if low < self.length { low } else { low & (self.mask >> 1) }
    }

    /// Prefetches the bucket of `hash`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(self.bucket_of(hash)) {
            simd::prefetch(bucket);
        }
    }

    /// Prefetches the bucket of `hash` and returns it. `None` if it has no memory yet, being empty.
    #[inline(always)]
    pub(crate) fn prefetched(&self, hash: u64) -> Option<&Bucket> {
        let bucket = self.buckets.get(self.bucket_of(hash))?;
        simd::prefetch(bucket);
        Some(bucket)
    }

    /// The first reference with the fingerprint of `hash`, in its bucket or those that continue it.
    #[inline(always)]
    pub(crate) fn first_match(&self, hash: u64) -> Option<TupleRef> {
        self.first_match_in(self.buckets.get(self.bucket_of(hash))?, hash)
    }

    /// As [`Index::first_match`], of a hash whose bucket is known.
    #[inline(always)]
    pub(crate) fn first_match_in(&self, bucket: &Bucket, hash: u64) -> Option<TupleRef> {
        let fits = bucket.match_mask(fingerprint(hash));
        match bucket.references.get(fits.trailing_zeros() as usize) {
            Some(reference) => Some(TupleRef(*reference)),
            None if bucket.overflow == 0 => None,
            None => self.first_match_in_overflow(bucket.overflow, fingerprint(hash)),
        }
    }

    #[cold]
    fn first_match_in_overflow(&self, mut next: u32, wanted: u16) -> Option<TupleRef> {
        loop {
            let bucket = self.overflow.get((next as usize).checked_sub(1)?)?;
            let fits = bucket.match_mask(wanted);
            if let Some(reference) = bucket.references.get(fits.trailing_zeros() as usize) {
                return Some(TupleRef(*reference));
            }
            next = bucket.overflow;
        }
    }

    /// Calls `try_reference` with each reference whose fingerprint matches, until it returns `Some`.
    #[inline(always)]
    pub(crate) fn search<T>(&self, hash: u64, mut try_reference: impl FnMut(TupleRef) -> Option<T>) -> Option<T> {
        let wanted = fingerprint(hash);
        let mut bucket = self.buckets.get(self.bucket_of(hash))?;
        loop {
            let mut fits = bucket.match_mask(wanted);
            while fits != 0 {
                let place = fits.trailing_zeros() as usize;
                fits &= fits - 1;
                if let Some(found) =
                    bucket.references.get(place).and_then(|reference| try_reference(TupleRef(*reference)))
                {
                    return Some(found);
                }
            }
            bucket = self.overflow.get((bucket.overflow as usize).checked_sub(1)?)?;
        }
    }

    /// Calls `see` with the references of each of `count` buckets, beginning with that of `hash`, until it returns `Some`. Overflow buckets
    /// are not searched.
    pub(crate) fn scan_buckets<T>(
        &self,
        hash: u64,
        count: usize,
        mut see: impl FnMut(&[TupleRef]) -> Option<T>,
    ) -> Option<T> {
        let home = self.bucket_of(hash);
        for step in 0..count.min(self.length) {
            let mut found = [TupleRef(0); ENTRIES_PER_BUCKET];
            let mut length = 0;
            let Some(bucket) = self.buckets.get((home + step) % self.length) else { continue };
            for (mark, reference) in bucket.fingerprints.iter().zip(bucket.references) {
                if *mark != 0 {
                    found[length] = TupleRef(reference);
                    length += 1;
                }
            }
            if let Some(answer) = see(&found[..length]) {
                return Some(answer);
            }
        }
        None
    }

    /// Inserts `reference` under `hash`. False if out of memory for an overflow bucket.
    #[inline(always)]
    pub(crate) fn insert(&mut self, hash: u64, reference: TupleRef) -> bool {
        let home = self.bucket_of(hash);
        let has_place =
            self.buckets.get_mut(home).is_some_and(|bucket| bucket.insert_slot(fingerprint(hash), reference));
        let done = has_place || self.insert_entry(home, fingerprint(hash), reference);
        self.entries += usize::from(done);
        done
    }

    #[inline(never)]
    fn insert_entry(&mut self, home: usize, mark: u16, reference: TupleRef) -> bool {
        if !self.buckets.ensure_chunk(home) {
            return false;
        }
        let Some(bucket) = self.buckets.get_mut(home) else { return false };
        if bucket.insert_slot(mark, reference) {
            return true;
        }
        let first = bucket.overflow;
        let mut next = first;
        while let Some(at) = (next as usize).checked_sub(1) {
            let Some(bucket) = self.overflow.get_mut(at) else { return false };
            if bucket.insert_slot(mark, reference) {
                return true;
            }
            next = bucket.overflow;
        }
        let mut fresh = Bucket { overflow: first, ..Bucket::default() };
        fresh.insert_slot(mark, reference);
        let Some(number) = self.alloc_overflow(fresh) else { return false };
        if let Some(bucket) = self.buckets.get_mut(home) {
            bucket.overflow = number;
        }
        true
    }

    fn alloc_overflow(&mut self, fresh: Bucket) -> Option<u32> {
        if let Some(at) = (self.free_overflow as usize).checked_sub(1) {
            let number = self.free_overflow;
            let bucket = self.overflow.get_mut(at)?;
            self.free_overflow = bucket.overflow;
            *bucket = fresh;
            return Some(number);
        }
        let at = self.overflow_length;
        let number = u32::try_from(at + 1).ok()?;
        if !self.overflow.ensure_chunk(at) {
            return None;
        }
        *self.overflow.get_mut(at)? = fresh;
        self.overflow_length += 1;
        Some(number)
    }

    /// Removes `reference`, inserted under `hash`. False if it is not there.
    pub(crate) fn remove(&mut self, hash: u64, reference: TupleRef) -> bool {
        let home = self.bucket_of(hash);
        let Some(bucket) = self.buckets.get_mut(home) else { return false };
        let mut next = bucket.overflow;
        let mut done = bucket.remove_slot(reference);
        let mut previous = 0;
        while let (false, Some(at)) = (done, (next as usize).checked_sub(1)) {
            let Some(bucket) = self.overflow.get_mut(at) else { return false };
            done = bucket.remove_slot(reference);
            let (after, empty) = (bucket.overflow, bucket.is_empty());
            if done && empty {
                bucket.overflow = self.free_overflow;
                self.free_overflow = next;
                self.relink_overflow(home, previous, after);
            }
            previous = next;
            next = after;
        }
        self.entries -= usize::from(done);
        done
    }

    /// Puts `new` in the place of `old`, inserted under `hash`. False if it is not there.
    pub(crate) fn replace(&mut self, hash: u64, old: TupleRef, new: TupleRef) -> bool {
        let home = self.bucket_of(hash);
        let Some(bucket) = self.buckets.get_mut(home) else { return false };
        let mut next = bucket.overflow;
        let mut done = bucket.replace_slot(old, new);
        while let (false, Some(at)) = (done, (next as usize).checked_sub(1)) {
            let Some(bucket) = self.overflow.get_mut(at) else { return false };
            done = bucket.replace_slot(old, new);
            next = bucket.overflow;
        }
        done
    }

    /// Links overflow bucket `after` behind `previous`, or behind the home bucket if `previous` is 0.
    fn relink_overflow(&mut self, home: usize, previous: u32, after: u32) {
        let link = match (previous as usize).checked_sub(1) {
            None => self.buckets.get_mut(home),
            Some(at) => self.overflow.get_mut(at),
        };
        if let Some(bucket) = link {
            bucket.overflow = after;
        }
    }

    /// Splits one bucket. `hash_of` recomputes an entry's hash; `fetch` prefetches what `hash_of` will read. No effect if out of memory.
    pub(crate) fn split_bucket(&mut self, fetch: impl Fn(TupleRef), hash_of: impl Fn(TupleRef) -> u64) {
        if !self.buckets.ensure_chunk(self.length) {
            return;
        }
        let half = if self.length.is_power_of_two() { self.length } else { (self.mask >> 1) + 1 };
        let home = self.length - half;
        let mut taken = self.buckets.get_mut(home).map(core::mem::take).unwrap_or_default();
        self.length += 1;
        self.mask = self.length.next_power_of_two() - 1;
        loop {
            taken.iter().for_each(|(_, reference)| fetch(reference));
            for (mark, reference) in taken.iter() {
                let home = self.bucket_of(hash_of(reference));
                // There is a free bucket in the pool for each that was taken out of the chain: no new one can be needed.
                self.insert_entry(home, mark, reference);
            }
            let next = taken.overflow;
            let Some(bucket) = (next as usize).checked_sub(1).and_then(|at| self.overflow.get_mut(at)) else { return };
            taken = core::mem::take(bucket);
            bucket.overflow = self.free_overflow;
            self.free_overflow = next;
        }
    }
}

impl Bucket {
    /// One bit for each slot whose fingerprint is `wanted`, slot 0 lowest.
    #[inline(always)]
    fn match_mask(&self, wanted: u16) -> u32 {
        simd::match_fingerprints(&self.fingerprints, wanted)
    }

    fn replace_slot(&mut self, old: TupleRef, new: TupleRef) -> bool {
        let mut entries = self.fingerprints.iter().zip(&mut self.references);
        let found = entries.find(|(mark, reference)| **mark != 0 && **reference == old.0);
        found.map(|(_, reference)| *reference = new.0).is_some()
    }

    #[inline(always)]
    fn insert_slot(&mut self, mark: u16, reference: TupleRef) -> bool {
        let free = self.match_mask(0).trailing_zeros() as usize;
        match (self.fingerprints.get_mut(free), self.references.get_mut(free)) {
            (Some(fingerprint), Some(place)) => {
                *fingerprint = mark;
                *place = reference.0;
                true
            }
            _ => false,
        }
    }

    fn remove_slot(&mut self, reference: TupleRef) -> bool {
        for (mark, place) in self.fingerprints.iter_mut().zip(self.references) {
            if *mark != 0 && place == reference.0 {
                *mark = 0;
                return true;
            }
        }
        false
    }

    fn is_empty(&self) -> bool {
        self.fingerprints == [0; ENTRIES_PER_BUCKET]
    }

    fn iter(&self) -> impl Iterator<Item = (u16, TupleRef)> + use<> {
        let Bucket { fingerprints, references, .. } = *self;
        fingerprints
            .into_iter()
            .zip(references)
            .filter(|(mark, _)| *mark != 0)
            .map(|(mark, reference)| (mark, TupleRef(reference)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hash(of: u32) -> u64 {
        super::super::key::HashKeys::derive(&crate::Secret([3; 16]), 0).hash([u64::from(of)])
    }

    proptest! {
        /// After any inserts, removals and splits, exactly the references inserted and not removed are found.
        #[test]
        fn index_matches_a_set_model_through_inserts_removals_and_splits(steps in proptest::collection::vec((0u32..400, any::<bool>()), 1..1500)) {
            let mut index = Index::new(1);
            let mut model = alloc::collections::BTreeSet::new();
            for (slot, insert) in steps {
                let reference = TupleRef::new(slot, if slot % 2 == 0 { Direction::Reply } else { Direction::Original });
                if insert && model.insert(slot) {
                    prop_assert!(index.insert(hash(slot), reference));
                } else if !insert {
                    prop_assert_eq!(index.remove(hash(slot), reference), model.remove(&slot));
                }
                if index.needs_growth() {
                    index.split_bucket(|_| (), |reference| hash(reference.slot()));
                }
                prop_assert_eq!(index.entries(), model.len());
            }
            for slot in 0..400 {
                let found = index.search(hash(slot), |reference| (reference.slot() == slot).then_some(()));
                prop_assert_eq!(found.is_some(), model.contains(&slot));
            }
        }
    }

    #[test]
    fn index_grows_one_bucket_at_a_time() {
        let mut index = Index::new(1);
        for slot in 0..100_000 {
            assert!(index.insert(hash(slot), TupleRef::new(slot, Direction::Original)));
            if index.needs_growth() {
                index.split_bucket(|_| (), |reference| hash(reference.slot()));
            }
        }
        assert!(!index.needs_growth());
        assert!(
            (0..100_000).all(|slot| index.search(hash(slot), |found| (found.slot() == slot).then_some(())).is_some())
        );
        // Between two doublings, buckets not yet split are twice as full as the others: up to a sixth overflow. More means a bad hash.
        assert!(index.overflow_length < index.length / 5, "{} of {}", index.overflow_length, index.length);
    }
}
