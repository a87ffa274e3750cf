//! A lease as its holder sees it: how long it surely holds, when it is to be renewed.
//!
//! It holds from the moment its request was made, not from its answer, by this machine's monotonic clock; and ends a part earlier than in its store, for clocks that run differently.
use std::collections::VecDeque;
use std::time::Duration;

/// Requests whose answers are awaited.
const MAX_PENDING: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct LeaseClock {
    next_number: u64,
    pending: VecDeque<(u64, Duration)>,
    valid_until: Option<Duration>,
    last_request: Option<Duration>,
}

impl LeaseClock {
    /// A request made now: its number.
    pub(crate) fn request(&mut self, now: Duration) -> u64 {
        self.next_number += 1;
        if self.pending.len() == MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back((self.next_number, now));
        self.last_request = Some(now);
        self.next_number
    }

    /// Ours, by the answer to a request; false if no such request is known.
    pub(crate) fn granted(&mut self, number: u64, ttl: Duration) -> bool {
        let Some((_, made)) = self.pending.iter().find(|(pending, _)| *pending == number).copied() else {
            return false;
        };
        self.pending.retain(|(pending, _)| *pending > number);
        let until = made.saturating_add(ttl - ttl / 8);
        self.valid_until = Some(self.valid_until.map_or(until, |before| before.max(until)));
        true
    }

    /// Is this number that of a request of ours? It is answered.
    pub(crate) fn refused(&mut self, number: u64) -> bool {
        let known = self.pending.iter().any(|(pending, _)| *pending == number);
        self.pending.retain(|(pending, _)| *pending > number);
        known
    }

    pub(crate) fn is_valid(&self, now: Duration) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    pub(crate) fn valid_until(&self) -> Option<Duration> {
        self.valid_until
    }

    /// It has ended; answers to what was asked before do not count.
    pub(crate) fn end(&mut self) {
        self.pending.clear();
        self.valid_until = None;
    }

    /// Was nothing asked for this long?
    pub(crate) fn rested(&self, now: Duration, interval: Duration) -> bool {
        self.last_request.is_none_or(|last| now.saturating_sub(last) >= interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const TTL: Duration = Duration::from_millis(800);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn it_holds_from_the_answered_request_on_and_ends_earlier_than_in_its_store() {
        let mut lease = LeaseClock::default();
        let first = lease.request(ms(1000));
        let second = lease.request(ms(1200));
        assert!(lease.granted(first, TTL), "its answer came late, and is that of the first");
        assert!(lease.is_valid(ms(1699)) && !lease.is_valid(ms(1700)));
        assert!(lease.granted(second, TTL));
        assert!(lease.is_valid(ms(1899)) && !lease.is_valid(ms(1900)));
        assert!(!lease.granted(second, TTL), "an answer counts once");
        lease.end();
        assert!(!lease.is_valid(ms(1300)));
    }
}
