//! Expiry timers: a lower bound of the deadlines of every 16 slots, of every 16 such blocks, and so on up to one bound for all.
//!
//! A bound means "nothing in this block expires before this tick". Refreshing a timeout makes a deadline later and need not touch the bound; only a
//! deadline earlier than before lowers it. So a packet of a known connection costs nothing here, and a timer needs about a quarter of a byte.
//! Expiry is exact: a block is scanned when its bound has passed, and the bound is then recomputed.
//! All ticks are modulo 2³². A bound must never be later than the earliest deadline in its block.
use super::simd;
use alloc::vec::Vec;

/// The size of a block: this many slots (level 0), or blocks of the level below.
pub(crate) const FANOUT: usize = 16;
const SHIFT: u32 = FANOUT.trailing_zeros();
/// The bound of a block without deadlines, relative to now: a quarter of the clock's range.
const IDLE_TICKS: u32 = 1 << 30;

/// The bounds, by level; the last level has a single one.
#[derive(Clone)]
pub(crate) struct TimerBounds {
    levels: Vec<Vec<u32>>,
    slots: usize,
}

/// The result of scanning a block of 16 slots.
pub(crate) struct BlockScan {
    /// The earliest remaining deadline, if any.
    pub(crate) earliest: Option<u32>,
}

impl TimerBounds {
    pub(crate) const fn new() -> Self {
        TimerBounds { levels: Vec::new(), slots: 0 }
    }

    /// Grows to `slots` slots. New blocks have no deadlines.
    pub(crate) fn grow(&mut self, slots: usize, now: u32) {
        if slots <= self.slots {
            return;
        }
        self.slots = slots;
        let idle = now.wrapping_add(IDLE_TICKS);
        let mut blocks = slots;
        let mut level = 0;
        loop {
            blocks = blocks.div_ceil(FANOUT);
            if self.levels.len() == level {
                // The bound of a new top level covers the previous top level.
                let below = level
                    .checked_sub(1)
                    .and_then(|at| self.levels.get(at)?.iter().copied().min_by_key(|bound| bound.wrapping_sub(now)));
                self.levels.push(Vec::new());
                self.levels[level].resize(blocks, idle);
                if let Some(bound) = below {
                    self.levels[level].fill(bound);
                }
            } else if self.levels[level].len() < blocks {
                self.levels[level].resize(blocks, idle);
            }
            level += 1;
            if blocks == 1 && level >= self.levels.len() {
                break;
            }
        }
    }

    /// Prefetches what [`TimerBounds::lower`] reads for `slot`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: usize) {
        if let Some(bound) = self.levels.first().and_then(|level| level.get(slot >> SHIFT)) {
            simd::prefetch(bound);
        }
    }

    /// Lowers the bounds above `slot` to `deadline` where they are later.
    #[inline]
    pub(crate) fn lower(&mut self, slot: usize, deadline: u32) {
        let mut at = slot;
        for level in &mut self.levels {
            at >>= SHIFT;
            let Some(bound) = level.get_mut(at) else { return };
            if (deadline.wrapping_sub(*bound) as i32) >= 0 {
                return;
            }
            *bound = deadline;
        }
    }

    /// The earliest tick at which anything may have expired.
    pub(crate) fn earliest(&self) -> Option<u32> {
        self.levels.last()?.first().copied()
    }

    /// Calls `look` for the blocks whose bound has passed, at most `budget` blocks, and updates their bounds.
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
        let bound = self.levels[level][at];
        if (bound.wrapping_sub(now) as i32) > 0 || *budget == 0 {
            return bound;
        }
        let begin = at << SHIFT;
        let fresh = if level == 0 {
            *budget -= 1;
            let end = (begin + FANOUT).min(self.slots);
            look(begin..end).earliest.unwrap_or(now.wrapping_add(IDLE_TICKS))
        } else {
            let end = (begin + FANOUT).min(self.levels[level - 1].len());
            let mut earliest = now.wrapping_add(IDLE_TICKS);
            for child in begin..end {
                let bound = self.scan_block(level - 1, child, now, budget, look);
                if (bound.wrapping_sub(earliest) as i32) < 0 {
                    earliest = bound;
                }
            }
            earliest
        };
        self.levels[level][at] = fresh;
        fresh
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| level.capacity() * 4).sum()
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
                    BlockScan { earliest: earliest.map(|wait| start.wrapping_add(wait)) }
                });
                prop_assert!(slots.iter().all(|slot| slot.is_none_or(|wait| wait > passed)));
            }
        }
    }
}
