//! Places of the table where something has changed, each told once until somebody has looked.
//!
//! Nobody pays for it who does not ask: noting is one test while it is off. What waits is never more than there are places.
use alloc::vec::Vec;

/// See the module's words.
#[derive(Default)]
pub(crate) struct Changes {
    on: bool,
    waiting: Vec<u32>,
    /// A bit a place: it waits.
    marked: Vec<u64>,
}

impl Changes {
    pub(crate) fn turn(&mut self, on: bool) {
        *self = Changes { on, ..Changes::default() };
    }

    /// Something has changed there.
    #[inline(always)]
    pub(crate) fn note(&mut self, slot: u32) {
        if self.on {
            self.mark(slot);
        }
    }

    #[inline(never)]
    fn mark(&mut self, slot: u32) {
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if self.marked.len() <= word {
            self.marked.resize(word + 1, 0);
        }
        let Some(marks) = self.marked.get_mut(word) else { return };
        if *marks & bit == 0 {
            *marks |= bit;
            self.waiting.push(slot);
        }
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        let slot = self.waiting.pop()?;
        if let Some(marks) = self.marked.get_mut(slot as usize / 64) {
            *marks &= !(1 << (slot % 64));
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_waits_once_until_it_was_looked_at() {
        let mut changes = Changes::default();
        changes.note(3);
        assert_eq!(changes.take(), None, "nobody has asked");
        changes.turn(true);
        [3, 70, 3, 64].into_iter().for_each(|slot| changes.note(slot));
        let mut told: Vec<u32> = core::iter::from_fn(|| changes.take()).collect();
        told.sort_unstable();
        assert_eq!(told, [3, 64, 70]);
        changes.note(3);
        assert_eq!((changes.take(), changes.take()), (Some(3), None));
    }
}
