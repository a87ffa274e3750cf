//! Places of the table where something has changed, each told once until somebody has looked.
//!
//! Nobody pays for it who does not ask: noting is one test while it is off. What waits is never more than there are places.
use alloc::vec::Vec;

/// See the module's words.
#[derive(Default)]
pub(crate) struct DirtySlots {
    enabled: bool,
    queue: Vec<u32>,
    /// A bit a place: it waits.
    queued_bits: Vec<u64>,
}

impl DirtySlots {
    pub(crate) fn set_enabled(&mut self, on: bool) {
        *self = DirtySlots { enabled: on, ..DirtySlots::default() };
    }

    /// Something has changed there.
    #[inline(always)]
    pub(crate) fn mark_dirty(&mut self, slot: u32) {
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
            self.queue.push(slot);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<u32> {
        let slot = self.queue.pop()?;
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
        let mut changes = DirtySlots::default();
        changes.mark_dirty(3);
        assert_eq!(changes.pop(), None, "nobody has asked");
        changes.set_enabled(true);
        [3, 70, 3, 64].into_iter().for_each(|slot| changes.mark_dirty(slot));
        let mut told: Vec<u32> = core::iter::from_fn(|| changes.pop()).collect();
        told.sort_unstable();
        assert_eq!(told, [3, 64, 70]);
        changes.mark_dirty(3);
        assert_eq!((changes.pop(), changes.pop()), (Some(3), None));
    }
}
