//! What a driver calls from time to time: expiry in bounded steps, and the queues of events and log lines.
use crate::time::Ticks;
use crate::{Engine, Event, EventMask, Instant};
use alloc::string::String;

/// Blocks of sixteen records that one [`Engine::poll`] looks at.
const BLOCKS_PER_POLL: usize = 4096;
/// Slots where one [`Engine::poll`] of a table that was full looks for connections that are closing anyway.
const SLOTS_PER_POLL: usize = 65_536;
/// Splits that one [`Engine::poll`] does for a growing index.
const SPLITS_PER_POLL: usize = 256;
/// Expectations that one [`Engine::poll`] ends.
const EXPECTATIONS_PER_POLL: usize = 1024;

impl Engine {
    /// Removes what has expired, and does a few steps of any growing: a bounded piece of work. Call it at [`Engine::next_wake`]; again,
    /// while that is not later than `now`.
    pub fn poll(&mut self, now: Instant) {
        self.remove_expired(now, BLOCKS_PER_POLL);
        self.gc_full(now, SLOTS_PER_POLL);
        self.counters.expect_delete += self.expectations.remove_expired(now, EXPECTATIONS_PER_POLL) as u64;
        self.table.grow_index(SPLITS_PER_POLL);
    }

    /// When [`Engine::poll`] has something to do; `None` while the table is empty. Never later than a deadline; it may be earlier.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.table.needs_growth() && self.table.count() > 0 {
            return Some(now);
        }
        let connection = self.table.next_deadline().map(|deadline| now.after_ticks(deadline.wrapping_sub(now.tick())));
        // Without its master there is no expectation: an empty table has none.
        self.expectations
            .next_deadline()
            .map(|deadline| deadline.max(now))
            .into_iter()
            .chain(connection)
            .chain(self.next_gc_full(now))
            .min()
    }

    /// Which events to queue; at most `capacity` wait, later ones are lost and counted.
    pub fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.events.subscribe(mask, capacity);
    }

    /// The oldest event that waits.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// Events lost because the queue was full, since the start.
    pub fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    /// The next line the kernel would have logged, rate-limited as the kernel does.
    pub fn poll_log(&mut self) -> Option<String> {
        self.log.poll()
    }
}
