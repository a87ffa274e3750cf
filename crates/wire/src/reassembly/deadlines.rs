//! Deadlines of the queues, in the order of creation.
//!
//! All queues of a family have the same timeout, so the order of creation is the order of expiry and a FIFO is enough. Entries
//! of queues that ended early are removed lazily; there are never more of them than live entries plus a small constant.
use super::fragment::FragmentKey;
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

    /// Removes the oldest entry if its deadline has passed.
    pub fn pop_expired(&mut self, now: u64) -> Option<(u64, FragmentKey)> {
        let &(deadline, serial, key) = self.order.front()?;
        if deadline > now {
            return None;
        }
        self.order.pop_front();
        Some((serial, key))
    }

    /// A queue has ended; `is_live` tells whether an entry still belongs to a queue.
    pub fn remove_one(&mut self, is_live: impl Fn(u64, &FragmentKey) -> bool) {
        self.live = self.live.saturating_sub(1);
        while let Some((_, serial, key)) = self.order.front()
            && !is_live(*serial, key)
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.live + SLACK {
            self.order.retain(|(_, serial, key)| is_live(*serial, key));
        }
    }

    pub fn next(&self) -> Option<u64> {
        self.order.front().map(|&(deadline, ..)| deadline)
    }
}

const SLACK: usize = 64;
