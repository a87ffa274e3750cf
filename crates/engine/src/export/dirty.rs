//! A queue of dirty slots: slots whose connection has changed since it was last polled, each queued once, the oldest change first: none waits longer than those before it.
//!
//! The engine has one; whoever divides its changes among several readers has one for each. While it is disabled, marking costs one test. The queue must never be longer than the number of slots.
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A queue of slots, each once, the oldest change first. By default it is disabled, and stays empty.
///
/// ```
/// use keepstate_engine::DirtySlots;
/// let mut changed = DirtySlots::enabled();
/// [3, 70, 3].into_iter().for_each(|slot| changed.mark_dirty(slot));
/// assert_eq!([changed.pop(), changed.pop(), changed.pop()], [Some(3), Some(70), None]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DirtySlots {
    enabled: bool,
    queue: VecDeque<u32>,
    /// One bit per slot: it is in the queue.
    queued_bits: Vec<u64>,
}

impl DirtySlots {
    /// An empty queue that takes slots.
    pub fn enabled() -> DirtySlots {
        DirtySlots { enabled: true, ..DirtySlots::default() }
    }

    pub(crate) fn set_enabled(&mut self, on: bool) {
        *self = DirtySlots { enabled: on, ..DirtySlots::default() };
    }

    /// Queues `slot` if the queue is enabled and does not contain it.
    #[inline(always)]
    pub fn mark_dirty(&mut self, slot: u32) {
        if self.enabled {
            self.push_slot(slot);
        }
    }

    #[inline(never)]
    fn push_slot(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.queued_bits.len() <= word {
            self.queued_bits.resize(word + 1, 0);
        }
        let Some(marks) = self.queued_bits.get_mut(word) else { return };
        if *marks & bit == 0 {
            *marks |= bit;
            self.queue.push_back(slot);
        }
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<u32> {
        let slot = self.queue.pop_front()?;
        if let Some(marks) = self.queued_bits.get_mut(slot as usize / 64) {
            *marks &= !(1 << (slot % 64));
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dirty_slot_is_queued_once_until_polled() {
        let mut dirty = DirtySlots::default();
        dirty.mark_dirty(3);
        assert_eq!(dirty.pop(), None, "the queue is disabled");
        dirty.set_enabled(true);
        [3, 70, 3, 64].into_iter().for_each(|slot| dirty.mark_dirty(slot));
        let polled: Vec<u32> = core::iter::from_fn(|| dirty.pop()).collect();
        assert_eq!(polled, [3, 70, 64], "the oldest change first");
        dirty.mark_dirty(3);
        assert_eq!((dirty.pop(), dirty.pop()), (Some(3), None));
    }
}
