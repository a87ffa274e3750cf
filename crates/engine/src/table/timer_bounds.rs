//! When to look where: a bound on the earliest deadline of every 16 slots, of every 16 such blocks, and so on up to one.
//!
//! A bound says "nothing here expires before". Refreshing a timeout makes deadlines later and need not touch the bound; only a deadline
//! earlier than before lowers it. So a packet of a known connection costs nothing here, a timer costs about a quarter of a byte,
//! and expiry is exact: a block is looked at when its bound has passed, and its bound is then made true again.
//! All ticks are modulo 2³²; a bound must never be later than the earliest deadline under it.
use super::simd;
use alloc::vec::Vec;

/// A block is this many slots (level 0) or this many blocks of the level below.
pub(crate) const FANOUT: usize = 16;
const SHIFT: u32 = FANOUT.trailing_zeros();
/// The bound of a block without deadlines: look again after half the clock's range.
const IDLE_TICKS: u32 = 1 << 30;

/// The bounds, level by level; the last level has one.
pub(crate) struct TimerBounds {
    levels: Vec<Vec<u32>>,
    slots: usize,
}

/// What a look at 16 slots found.
pub(crate) struct BlockScan {
    /// The earliest deadline left among them, if any.
    pub(crate) earliest: Option<u32>,
}

impl TimerBounds {
    pub(crate) const fn new() -> Self {
        TimerBounds { levels: Vec::new(), slots: 0 }
    }

    /// Makes room for `slots` slots. New blocks are idle as of `now`.
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
                // A new top covers what was the top before it.
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

    /// Begins to fetch what [`TimerBounds::lower`] will read for `slot`.
    #[inline(always)]
    pub(crate) fn prefetch(&self, slot: usize) {
        if let Some(bound) = self.levels.first().and_then(|level| level.get(slot >> SHIFT)) {
            simd::prefetch(bound);
        }
    }

    /// `slot` now has `deadline`, which may be earlier than anything around it.
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

    /// Calls `look` for the blocks whose bound has passed, `budget` blocks at most, and makes their bounds true again.
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
        /// Whatever deadlines are set in whatever order, each is met at its tick, never before, never missed.
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
