//! Expiry timers: a lower bound of the deadlines of every 16 slots, of every 16 such blocks, and so on up to one bound for all.
//!
//! A bound means "nothing in this block expires before this tick". Refreshing a timeout makes a deadline later and need not touch the bound; only a
//! deadline earlier than before lowers it. So a packet of a known connection costs nothing here, and a timer needs about a quarter of a byte.
//! Expiry is exact: a block is scanned when its bound has passed, and the bound is then recomputed.
//! All ticks are modulo 2³². A bound must never be later than the earliest deadline in its block.
use super::chunked::DenseArray;
use super::simd;
use alloc::vec::Vec;

/// The size of a block: this many slots (level 0), or blocks of the level below.
pub(crate) const FANOUT: usize = 16;
const SHIFT: u32 = FANOUT.trailing_zeros();
/// The bound of a block without deadlines, relative to now: a quarter of the clock's range.
const IDLE_TICKS: u32 = 1 << 30;
/// 2 KiB of bounds: those of a quarter of a run of records.
const BOUNDS_PER_CHUNK: usize = 1 << 9;

/// The bounds, by level; the last level has a single one.
#[derive(Clone)]
pub(crate) struct TimerBounds {
    levels: Vec<Level>,
    slots: usize,
}

/// The bounds of one level. They never move in memory: growing copies nothing.
#[derive(Clone)]
struct Level {
    bounds: DenseArray<u32, BOUNDS_PER_CHUNK>,
    length: usize,
}

/// The result of scanning a block of 16 slots.
pub(crate) struct BlockScan {
    /// The earliest remaining deadline, if any.
    pub(crate) earliest: Option<u32>,
    /// How many expired.
    pub(crate) removed: usize,
}

/// What reading a block costs of the budget of [`TimerBounds::scan_due`], in connections removed.
pub(crate) const BLOCK_COST: usize = 2;

impl TimerBounds {
    pub(crate) const fn new() -> Self {
        TimerBounds { levels: Vec::new(), slots: 0 }
    }

    /// Grows to `slots` slots. New blocks have no deadlines. False if out of memory; call it again before a slot beyond the old size is used.
    #[inline(always)]
    pub(crate) fn grow(&mut self, slots: usize, now: u32) -> bool {
        slots <= self.slots || self.add_blocks(slots, now)
    }

    #[cold]
    fn add_blocks(&mut self, slots: usize, now: u32) -> bool {
        let idle = now.wrapping_add(IDLE_TICKS);
        let mut blocks = slots;
        let mut level = 0;
        loop {
            blocks = blocks.div_ceil(FANOUT);
            if self.levels.len() == level {
                // The bound of a new top level covers the previous top level.
                let below = level.checked_sub(1).and_then(|at| self.levels.get(at)?.earliest(now));
                let mut top = Level { bounds: DenseArray::new(), length: 0 };
                if self.levels.try_reserve(1).is_err() || !top.grow(blocks, below.unwrap_or(idle)) {
                    return false;
                }
                self.levels.push(top);
            } else if !self.levels[level].grow(blocks, idle) {
                return false;
            }
            level += 1;
            if blocks == 1 && level >= self.levels.len() {
                break;
            }
        }
        self.slots = slots;
        true
    }

    /// Prefetches what [`TimerBounds::lower`] reads for `slot`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: usize) {
        if let Some(bound) = self.levels.first().and_then(|level| level.bounds.get(slot >> SHIFT)) {
            simd::prefetch(bound);
        }
    }

    /// Lowers the bounds above `slot` to `deadline` where they are later.
    #[inline]
    pub(crate) fn lower(&mut self, slot: usize, deadline: u32) {
        let mut at = slot;
        for level in &mut self.levels {
            at >>= SHIFT;
            let Some(bound) = level.bounds.get_mut(at) else { return };
            if (deadline.wrapping_sub(*bound) as i32) >= 0 {
                return;
            }
            *bound = deadline;
        }
    }

    /// The earliest tick at which anything may have expired.
    pub(crate) fn earliest(&self) -> Option<u32> {
        self.levels.last()?.bounds.get(0).copied()
    }

    /// Calls `look` for the blocks whose bound has passed and updates their bounds, until the budget is used up: [`BLOCK_COST`] for each block, one for each slot that
    /// expired. The last block may exceed it.
    pub(crate) fn scan_due(
        &mut self,
        now: u32,
        budget: &mut usize,
        look: &mut impl FnMut(core::ops::Range<usize>) -> BlockScan,
    ) {
        if let Some(top) = self.levels.len().checked_sub(1) {
            self.scan_block(top, 0, now, budget, look);
        }
    }

    fn scan_block(
        &mut self,
        level: usize,
        at: usize,
        now: u32,
        budget: &mut usize,
        look: &mut impl FnMut(core::ops::Range<usize>) -> BlockScan,
    ) -> u32 {
        let Some(bound) = self.levels.get(level).and_then(|level| level.bounds.get(at)).copied() else { return now };
        if (bound.wrapping_sub(now) as i32) > 0 || *budget == 0 {
            return bound;
        }
        let begin = at << SHIFT;
        let mut earliest = now.wrapping_add(IDLE_TICKS);
        match level.checked_sub(1) {
            None => {
                let found = look(begin..(begin + FANOUT).min(self.slots));
                *budget = budget.saturating_sub(BLOCK_COST + found.removed);
                earliest = found.earliest.unwrap_or(earliest);
            }
            Some(below) => {
                let end = (begin + FANOUT).min(self.levels[below].length);
                for child in begin..end {
                    let bound = self.scan_block(below, child, now, budget, look);
                    if (bound.wrapping_sub(earliest) as i32) < 0 {
                        earliest = bound;
                    }
                }
            }
        }
        if let Some(bound) = self.levels[level].bounds.get_mut(at) {
            *bound = earliest;
        }
        earliest
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.bounds.memory_bytes()).sum()
    }
}

impl Level {
    /// Grows to `length` bounds, the new ones `bound`. False if out of memory.
    fn grow(&mut self, length: usize, bound: u32) -> bool {
        if length <= self.length {
            return true;
        }
        if !self.bounds.ensure_chunk(length - 1) {
            return false;
        }
        for at in self.length..length {
            if let Some(place) = self.bounds.get_mut(at) {
                *place = bound;
            }
        }
        self.length = length;
        true
    }

    /// The earliest bound. One that has passed is earlier than `now`.
    fn earliest(&self, now: u32) -> Option<u32> {
        let bounds = (0..self.length).filter_map(|at| self.bounds.get(at).copied());
        bounds.min_by_key(|bound| bound.wrapping_sub(now) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any deadlines in any order expire exactly at their tick, never earlier or later.
        #[test]
        fn every_deadline_expires_exactly_at_its_tick(start in any::<u32>(), waits in proptest::collection::vec((0usize..3000, 1u32..5000), 1..200)) {
            let mut deadlines = TimerBounds::new();
            let mut slots: Vec<Option<u32>> = Vec::new();
            for (slot, wait) in waits {
                if slots.len() <= slot {
                    slots.resize(slot + 1, None);
                    deadlines.grow(slots.len(), start);
                }
                slots[slot] = Some(wait);
                deadlines.lower(slot, start.wrapping_add(wait));
            }
            for passed in 0..5000u32 {
                let now = start.wrapping_add(passed);
                let mut budget = usize::MAX;
                deadlines.scan_due(now, &mut budget, &mut |range| {
                    let mut earliest: Option<u32> = None;
                    for slot in &mut slots[range] {
                        if slot.is_some_and(|wait| wait <= passed) { *slot = None; }
                        if let Some(wait) = *slot { earliest = Some(earliest.map_or(wait, |least: u32| least.min(wait))); }
                    }
                    BlockScan { earliest: earliest.map(|wait| start.wrapping_add(wait)), removed: 0 }
                });
                prop_assert!(slots.iter().all(|slot| slot.is_none_or(|wait| wait > passed)));
            }
        }
    }
    /// A level is added while a deadline has passed that nobody has asked for yet.
    #[test]
    fn a_passed_deadline_is_found_after_growth() {
        let mut deadlines = TimerBounds::new();
        assert!(deadlines.grow(FANOUT, 1000));
        deadlines.lower(3, 1005);
        assert!(deadlines.grow(20 * FANOUT, 1010));
        assert_eq!(deadlines.earliest(), Some(1005));
        let mut seen = Vec::new();
        deadlines.scan_due(1010, &mut 100, &mut |slots| {
            seen.push(slots.start);
            BlockScan { earliest: None, removed: 1 }
        });
        assert_eq!(seen, [0]);
    }
}
