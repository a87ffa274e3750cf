//! Which connections depend on something that may change: an address whose routes change, a lookup whose set changes.
use keepstate_engine::{ConnId, ConnIdMap};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// The connections that depend on each of these.
#[derive(Debug)]
pub(super) struct Dependents<K> {
    by_key: BTreeMap<K, ConnIdMap<()>>,
}

impl<K: Ord + Copy> Dependents<K> {
    pub(super) fn new() -> Dependents<K> {
        Dependents { by_key: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, key: K, conn_id: ConnId) {
        self.by_key.entry(key).or_default().insert(conn_id, ());
    }

    pub(super) fn remove(&mut self, key: K, conn_id: ConnId) {
        if let Some(of_key) = self.by_key.get_mut(&key) {
            of_key.remove(&conn_id);
            if of_key.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    /// Those that depend on something in a range.
    pub(super) fn of(&self, range: RangeInclusive<K>) -> impl Iterator<Item = (K, ConnId)> {
        self.by_key.range(range).flat_map(|(key, of_key)| of_key.keys().map(|conn_id| (*key, *conn_id)))
    }
}
