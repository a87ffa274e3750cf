//! The last changes of what flows depend on: what was noted before one of them is compared with it.
use std::collections::VecDeque;

/// Numbers changes, and remembers the last ones.
#[derive(Debug)]
pub(super) struct ChangeLog<T> {
    /// The number of the last change.
    number: u64,
    recent: VecDeque<T>,
}

impl<T> ChangeLog<T> {
    pub(super) fn new() -> ChangeLog<T> {
        ChangeLog { number: 0, recent: VecDeque::new() }
    }

    /// The number of the last change, for what is noted now.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn push(&mut self, change: T) {
        self.number += 1;
        if self.recent.len() >= MAX_RECENT_CHANGES {
            self.recent.pop_front();
        }
        self.recent.push_back(change);
    }

    /// Has a change after the one of this number been such a one? Also if it is not remembered any more.
    pub(super) fn any_since(&self, number: u64, is_such: impl FnMut(&T) -> bool) -> bool {
        let changes = usize::try_from(self.number.wrapping_sub(number)).unwrap_or(usize::MAX);
        changes > self.recent.len() || self.recent.iter().rev().take(changes).any(is_such)
    }
}

/// Changes that are remembered.
pub(super) const MAX_RECENT_CHANGES: usize = 64;
