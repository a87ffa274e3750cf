//! What held connections have left, by slot. It must have no slot without a connection: [`HeldTimers::take`] is called when one is freed.
use alloc::vec::Vec;

/// What held connections have left.
#[derive(Clone, Default)]
pub(crate) struct HeldTimers {
    /// Ticks, by slot; 0: not held.
    remaining: Vec<u32>,
    count: usize,
}

impl HeldTimers {
    /// What the connection in `slot` has left, if it is held.
    #[inline(always)]
    pub(crate) fn remaining(&self, slot: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        self.remaining.get(slot as usize).copied().filter(|remaining| *remaining != 0)
    }

    pub(super) fn put(&mut self, slot: u32, remaining: u32) {
        let at = slot as usize;
        if self.remaining.len() <= at {
            self.remaining.resize(at + 1, 0);
        }
        if let Some(held) = self.remaining.get_mut(at) {
            self.count += usize::from(*held == 0);
            *held = remaining.max(1);
        }
    }

    /// Held: it has this left from now on. False if it is not.
    pub(crate) fn set_remaining(&mut self, slot: u32, remaining: u32) -> bool {
        let is_held = self.remaining(slot).is_some();
        if is_held {
            self.put(slot, remaining);
        }
        is_held
    }

    pub(crate) fn take(&mut self, slot: u32) -> Option<u32> {
        let remaining = self.remaining(slot)?;
        if let Some(held) = self.remaining.get_mut(slot as usize) {
            *held = 0;
        }
        self.count -= 1;
        Some(remaining)
    }

    /// How many are held.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The slots that are held.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let held = self.remaining.iter().enumerate().filter(|(_, remaining)| **remaining != 0);
        held.map(|(slot, _)| slot as u32)
    }
}
