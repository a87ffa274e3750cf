//! Client affinity: a source that had a connection not long ago gets the same backend for the next.
//!
//! As with kube-proxy's `ClientIP`: the time runs from the source's last *new* connection. The table is bounded: when it is full, the oldest
//! source is evicted, so that a flood of sources costs bounded memory and nothing else.
use keepstate_engine::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Sources of one service, at most.
pub(super) const MAX_SOURCES: usize = 65_536;

/// The sources of one service.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    /// The backend of a source, and the time of its last new connection.
    by_source: BTreeMap<IpAddr, (u32, Instant)>,
    /// The sources by that time, the oldest first.
    by_age: BTreeSet<(Instant, IpAddr)>,
}

impl Affinity {
    /// The key of the backend of `source`, unless that has expired.
    pub(super) fn lookup(&self, source: IpAddr, seconds: u32, now: Instant) -> Option<u32> {
        let (member, since) = self.by_source.get(&source)?;
        (!is_expired(*since, seconds, now)).then_some(*member)
    }

    /// Records a new connection of `source` to a backend.
    pub(super) fn record(&mut self, source: IpAddr, member: u32, seconds: u32, now: Instant) {
        if let Some((_, since)) = self.by_source.insert(source, (member, now)) {
            self.by_age.remove(&(since, source));
        }
        self.by_age.insert((now, source));
        self.expire(seconds, now);
        while self.by_source.len() > MAX_SOURCES && self.evict_oldest() {}
    }

    /// Removes expired sources.
    pub(super) fn expire(&mut self, seconds: u32, now: Instant) {
        while self.by_age.first().is_some_and(|(since, _)| is_expired(*since, seconds, now)) && self.evict_oldest() {}
    }

    fn evict_oldest(&mut self) -> bool {
        let oldest = self.by_age.pop_first();
        oldest.is_some_and(|(_, source)| self.by_source.remove(&source).is_some())
    }

    /// Number of sources.
    pub(super) fn len(&self) -> usize {
        self.by_source.len()
    }
}

fn is_expired(since: Instant, seconds: u32, now: Instant) -> bool {
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
    fn affinity_expires_after_the_last_new_connection() {
        let mut affinity = Affinity::default();
        affinity.record(source(1), 7, 100, at(0));
        assert_eq!(affinity.lookup(source(1), 100, at(100)), Some(7));
        assert_eq!(affinity.lookup(source(1), 100, at(101)), None);
        assert_eq!(affinity.lookup(source(2), 100, at(0)), None);
        // A new connection begins the time anew; looking does not.
        affinity.record(source(1), 7, 100, at(90));
        assert_eq!(affinity.lookup(source(1), 100, at(190)), Some(7));
        assert_eq!(affinity.lookup(source(1), 100, at(191)), None);
        affinity.expire(100, at(191));
        assert_eq!(affinity.len(), 0);
        assert!(affinity.by_age.is_empty());
    }

    #[test]
    fn full_affinity_table_evicts_the_oldest() {
        let mut affinity = Affinity::default();
        let most = u32::try_from(MAX_SOURCES).unwrap();
        for number in 0..most {
            affinity.record(source(number), number, 1_000_000, at(u64::from(number)));
        }
        affinity.record(source(0), 0, 1_000_000, at(u64::from(most)));
        affinity.record(source(most), 3, 1_000_000, at(u64::from(most)));
        assert_eq!(affinity.len(), MAX_SOURCES);
        assert_eq!(affinity.by_age.len(), MAX_SOURCES);
        let known = |number| affinity.lookup(source(number), 1_000_000, at(u64::from(most)));
        assert_eq!((known(0), known(1), known(2), known(most)), (Some(0), None, Some(2), Some(3)));
    }
}
