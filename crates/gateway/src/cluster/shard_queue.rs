//! Slots of one shard that have changed and are to be sent: each once, the oldest change first, so the list is never longer than the table.
use std::collections::VecDeque;

/// The list; see the module.
#[derive(Debug, Default)]
pub(super) struct ShardQueue {
    slots: VecDeque<u32>,
    /// One bit a slot: it is in the list.
    queued: Vec<u64>,
}

impl ShardQueue {
    /// Adds a slot, if it is not there.
    pub(super) fn push(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.queued.len() <= word {
            self.queued.resize(word + 1, 0);
        }
        if let Some(bits) = self.queued.get_mut(word).filter(|bits| **bits & bit == 0) {
            *bits |= bit;
            self.slots.push_back(slot);
        }
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let slot = self.slots.pop_front()?;
        if let Some(bits) = self.queued.get_mut(slot as usize / 64) {
            *bits &= !(1 << (slot % 64));
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_in_it_once_until_it_is_taken() {
        let mut queue = ShardQueue::default();
        [3, 70, 3, 64].into_iter().for_each(|slot| queue.push(slot));
        assert_eq!([queue.pop(), queue.pop()], [Some(3), Some(70)]);
        queue.push(3);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], [Some(64), Some(3), None]);
    }
}
