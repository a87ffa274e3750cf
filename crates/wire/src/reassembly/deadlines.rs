//! When queues end, in the order they were made.
//!
//! All queues of a family live equally long, so that the order of making is the order of ending and a plain queue serves.
//! Entries of queues that ended early are left where they are and met later; there are never more of them than of living
//! ones, but for a small constant.
use super::FragmentKey;
use alloc::collections::VecDeque;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    order: VecDeque<(u64, u64, FragmentKey)>,
    live: usize,
}

impl Deadlines {
    pub fn add(&mut self, deadline: u64, serial: u64, key: FragmentKey) {
        self.order.push_back((deadline, serial, key));
        self.live += 1;
    }

    /// Takes out the oldest entry when its time has come.
    pub fn pop_expired(&mut self, now: u64) -> Option<(u64, FragmentKey)> {
        let &(deadline, serial, key) = self.order.front()?;
        if deadline > now {
            return None;
        }
        self.order.pop_front();
        Some((serial, key))
    }

    /// One queue has ended; `lives` tells whether an entry still belongs to a living one.
    pub fn remove_one(&mut self, lives: impl Fn(u64, &FragmentKey) -> bool) {
        self.live = self.live.saturating_sub(1);
        while let Some((_, serial, key)) = self.order.front()
            && !lives(*serial, key)
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.live + SLACK {
            self.order.retain(|(_, serial, key)| lives(*serial, key));
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.order.front().map(|&(deadline, ..)| deadline)
    }
}

const SLACK: usize = 64;
