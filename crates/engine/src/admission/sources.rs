//! The connections of each source, and what is left of its allowance of new ones: exact, for as many sources as have connections and some more.
//!
//! A source is remembered from its first connection until it has none and its allowance is whole again. Of those without connections a bounded number is kept; if
//! that is reached, unknown sources are refused rather than known ones forgotten.
use super::policy::{AdmissionPolicy, SourceLimit};
use crate::{Instant, Reason, Tuple};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// The map is many small ones, each of which grows in a short step: of 10 million sources, each has 10,000.
const SHARDS: usize = 1024;
/// The most sources that are remembered without a connection.
pub(super) const MAX_IDLE_SOURCES: usize = 65_536;
/// How many whose allowance is whole again are forgotten with each connection that begins or ends.
const FORGOTTEN_AT_ONCE: usize = 2;

/// One source under one limit, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SourceKey {
    limit: u8,
    source: IpAddr,
}

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SourceEntry {
    connections: u32,
    /// When its allowance of new connections is whole again: each takes an interval of it.
    whole_at: Instant,
}

/// All sources.
#[derive(Clone)]
pub(super) struct SourceTable {
    key: SipKey,
    shards: Vec<KeyedMap<SourceKey, SourceEntry>>,
    /// Those without a connection, by the time at which they are forgotten.
    idle: BTreeSet<(Instant, SourceKey)>,
    length: usize,
}

impl SourceTable {
    pub(super) fn new(key: SipKey) -> SourceTable {
        SourceTable { key, shards: Vec::new(), idle: BTreeSet::new(), length: 0 }
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// The limit that holds for a connection, and its source.
    fn key_of<'a>(policy: &'a AdmissionPolicy, tuple: &Tuple) -> Option<(&'a SourceLimit, SourceKey)> {
        let (at, limit) = policy.source_limits.iter().enumerate().find(|(_, limit)| limit.selector.matches(tuple))?;
        Some((limit, SourceKey { limit: u8::try_from(at).ok()?, source: limit.source_of(tuple.source) }))
    }

    fn shard_of(&self, key: &SourceKey) -> usize {
        self.key.hash_one(key) as usize % SHARDS
    }

    fn entry(&self, key: &SourceKey) -> Option<&SourceEntry> {
        self.shards.get(self.shard_of(key))?.get(key)
    }

    /// May a connection with `tuple` begin?
    pub(super) fn check(&self, policy: &AdmissionPolicy, tuple: &Tuple, now: Instant) -> Result<(), Reason> {
        let Some((limit, key)) = SourceTable::key_of(policy, tuple) else { return Ok(()) };
        let Some(entry) = self.entry(&key) else {
            let is_refused = limit.connections == Some(0);
            return if is_refused {
                Err(Reason::SourceConnections)
            } else if self.idle.len() >= MAX_IDLE_SOURCES && self.idle.first().is_some_and(|(due, _)| *due > now) {
                Err(Reason::SourceTableFull)
            } else {
                Ok(())
            };
        };
        if limit.connections.is_some_and(|most| entry.connections >= most) {
            return Err(Reason::SourceConnections);
        }
        // The allowance holds a burst; a connection takes one interval, which must still be there.
        let spent = entry.whole_at.0.saturating_sub(now.0);
        match limit.interval() {
            Some(interval) if spent > interval.saturating_mul(u64::from(limit.burst.max(1)) - 1) => {
                Err(Reason::SourceRate)
            }
            _ => Ok(()),
        }
    }

    /// A connection with `tuple` has begun. One that was not new to the network (`is_new`) takes nothing of the allowance.
    pub(super) fn add(&mut self, policy: &AdmissionPolicy, tuple: &Tuple, is_new: bool, now: Instant) {
        let Some((limit, key)) = SourceTable::key_of(policy, tuple) else { return };
        self.forget(now);
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, || self.key.derive(0).map());
        }
        let shard = self.shard_of(&key);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        let before = shard.len();
        let entry = shard.entry(key).or_default();
        if entry.connections == 0 {
            self.idle.remove(&(entry.whole_at, key));
        }
        entry.connections = entry.connections.saturating_add(1);
        if let (true, Some(interval)) = (is_new, limit.interval()) {
            entry.whole_at = Instant(entry.whole_at.max(now).0.saturating_add(interval));
        }
        self.length += shard.len() - before;
    }

    /// A connection with `tuple` has ended.
    pub(super) fn remove(&mut self, policy: &AdmissionPolicy, tuple: &Tuple, now: Instant) {
        let Some((_, key)) = SourceTable::key_of(policy, tuple) else { return };
        let shard = self.shard_of(&key);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        let Some(entry) = shard.get_mut(&key) else { return };
        entry.connections = entry.connections.saturating_sub(1);
        if entry.connections > 0 {
            return;
        }
        if entry.whole_at > now {
            self.idle.insert((entry.whole_at, key));
        } else {
            shard.remove(&key);
            self.length -= 1;
        }
        self.forget(now);
    }

    /// Forgets a few sources that nothing is to be remembered of.
    fn forget(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((due, key)) = self.idle.first().copied().filter(|(due, _)| *due <= now) else { return };
            self.idle.remove(&(due, key));
            let shard = self.shard_of(&key);
            if self.shards.get_mut(shard).is_some_and(|shard| shard.remove(&key).is_some()) {
                self.length -= 1;
            }
        }
    }

    /// The number of connections of each source that has one, for checks.
    pub(super) fn counts(&self) -> impl Iterator<Item = (SourceKey, u32)> + '_ {
        let entries = self.shards.iter().flatten();
        entries.filter(|(_, entry)| entry.connections > 0).map(|(key, entry)| (*key, entry.connections))
    }

    /// The key under which a connection is counted, for checks.
    pub(super) fn counted_under(policy: &AdmissionPolicy, tuple: &Tuple) -> Option<SourceKey> {
        SourceTable::key_of(policy, tuple).map(|(_, key)| key)
    }
}
