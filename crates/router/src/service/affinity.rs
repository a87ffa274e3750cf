//! Sources that stay with their backend: who had a connection not long ago gets the same backend for the next.
//!
//! As with kube-proxy's `ClientIP`: the time runs from the source's last *new* connection. The table is bounded: when it is full, who has been silent longest
//! is forgotten first, so that a flood of sources costs memory to a limit and nothing else.
use keepstate_engine::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Sources that one service remembers.
pub(super) const MOST: usize = 65_536;

/// The sources of one service.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// To whom a source belongs, and since when.
    known: BTreeMap<IpAddr, (u32, Instant)>,
    /// The same by time, the oldest first.
    ages: BTreeSet<(Instant, IpAddr)>,
}

impl Affinity {
    /// The member, by its key, that `source` belongs to, unless that is over.
    pub(super) fn find(&self, source: IpAddr, seconds: u32, now: Instant) -> Option<u32> {
        let (member, since) = self.known.get(&source)?;
        (!is_over(*since, seconds, now)).then_some(*member)
    }

    /// `source` has got a connection to a member.
    pub(super) fn note(&mut self, source: IpAddr, member: u32, seconds: u32, now: Instant) {
        if let Some((_, since)) = self.known.insert(source, (member, now)) {
            self.ages.remove(&(since, source));
        }
        self.ages.insert((now, source));
        self.forget(seconds, now);
        while self.known.len() > MOST && self.forget_oldest() {}
    }

    /// Forgets whose time is over.
    pub(super) fn forget(&mut self, seconds: u32, now: Instant) {
        while self.ages.first().is_some_and(|(since, _)| is_over(*since, seconds, now)) && self.forget_oldest() {}
    }

    fn forget_oldest(&mut self) -> bool {
        let oldest = self.ages.pop_first();
        oldest.is_some_and(|(_, source)| self.known.remove(&source).is_some())
    }

    /// How many sources are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

fn is_over(since: Instant, seconds: u32, now: Instant) -> bool {
    now.0.saturating_sub(since.0) > u64::from(seconds) * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_source_stays_until_its_time_is_over_since_its_last_connection() {
        let mut affinity = Affinity::default();
        affinity.note(source(1), 7, 100, at(0));
        assert_eq!(affinity.find(source(1), 100, at(100)), Some(7));
        assert_eq!(affinity.find(source(1), 100, at(101)), None);
        assert_eq!(affinity.find(source(2), 100, at(0)), None);
        // A new connection begins the time anew; looking does not.
        affinity.note(source(1), 7, 100, at(90));
        assert_eq!(affinity.find(source(1), 100, at(190)), Some(7));
        assert_eq!(affinity.find(source(1), 100, at(191)), None);
        affinity.forget(100, at(191));
        assert_eq!(affinity.len(), 0);
        assert!(affinity.ages.is_empty());
    }

    #[test]
    fn a_full_table_forgets_who_was_silent_longest() {
        let mut affinity = Affinity::default();
        let most = u32::try_from(MOST).unwrap();
        for number in 0..most {
            affinity.note(source(number), number, 1_000_000, at(u64::from(number)));
        }
        affinity.note(source(0), 0, 1_000_000, at(u64::from(most)));
        affinity.note(source(most), 3, 1_000_000, at(u64::from(most)));
        assert_eq!(affinity.len(), MOST);
        assert_eq!(affinity.ages.len(), MOST);
        let known = |number| affinity.find(source(number), 1_000_000, at(u64::from(most)));
        assert_eq!((known(0), known(1), known(2), known(most)), (Some(0), None, Some(2), Some(3)));
    }
}
