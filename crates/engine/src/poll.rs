//! The functions a driver calls periodically: expiry in bounded steps, and the queues of events and log lines.
use crate::time::Ticks;
use crate::{Engine, Event, EventMask, Instant};
use alloc::string::String;

// What one [`Engine::poll`] does at most, of each kind: together well under 200 µs, even if nothing that it reads is in a cache (`cargo xtask bench table`, column step).
/// Work of expiring, as [`Engine::remove_expired`] counts it.
const EXPIRY_WORK_PER_POLL: usize = 512;
/// Slots read, and connections removed, while those to drop early are looked for after the table was full.
const GC_SLOTS_PER_POLL: usize = 2048;
const GC_REMOVALS_PER_POLL: usize = 128;
/// Slots read for timeouts to be cut while the table fills.
const CUT_SLOTS_PER_POLL: usize = 1024;
/// Bucket splits while the index grows.
const SPLITS_PER_POLL: usize = 32;
/// Expired expectations removed.
const EXPECTATIONS_PER_POLL: usize = 64;

impl Engine {
    /// Removes expired connections and expectations and grows the index by a few steps. The work per call is bounded: some hundred connections, whatever the size of the
    /// table. Call it at [`Engine::next_wake`], and repeat while that is not later than `now`.
    pub fn poll(&mut self, now: Instant) {
        self.remove_expired(now, EXPIRY_WORK_PER_POLL);
        self.adapt_timeouts();
        self.cut_timeouts(now, CUT_SLOTS_PER_POLL);
        self.gc_full(now, GC_SLOTS_PER_POLL, GC_REMOVALS_PER_POLL);
        self.counters.expect_delete += self.expectations.remove_expired(now, EXPECTATIONS_PER_POLL) as u64;
        self.table.grow_index(SPLITS_PER_POLL);
    }

    /// When to call [`Engine::poll`] next; `None` while the table is empty. It is never later than the earliest deadline, but may be earlier.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if self.table.needs_growth() && self.table.count() > 0 || self.cuts_timeouts() {
            return Some(now);
        }
        let connection = self.table.next_deadline().map(|deadline| now.after_ticks(deadline.wrapping_sub(now.tick())));
        // An expectation cannot outlive its master: an empty table has none.
        self.expectations
            .next_deadline()
            .map(|deadline| deadline.max(now))
            .into_iter()
            .chain(connection)
            .chain(self.next_gc_full(now))
            .min()
    }

    /// Sets how far the wall clock is ahead of the driver's clock, in nanoseconds: for the times of events, and the start and stop times of connections. Defaults to 0: the
    /// driver's clock counts from 1970. A change (the wall clock was set) moves no timeout.
    pub fn set_wall_clock_offset(&mut self, offset: i64) {
        self.wall_clock_offset = offset;
    }

    /// Selects the events to queue, at most `capacity`. When the queue is full, new events are lost and counted.
    pub fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.events.subscribe(mask, capacity);
    }

    /// Takes the oldest queued event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.poll()
    }

    /// The number of events lost since the start because the queue was full.
    pub fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    /// Takes the oldest log line: what the kernel would have logged, rate-limited as the kernel does.
    pub fn poll_log(&mut self) -> Option<String> {
        self.log.poll()
    }
}

#[cfg(test)]
mod tests;
