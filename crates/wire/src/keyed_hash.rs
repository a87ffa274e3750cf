//! The one keyed hasher: SipHash-1-3 under a secret key, for every table whose keys a sender of packets can choose.
//!
//! Each purpose has a key of its own, derived from the secret: what one table shows of its hashes (an order, a port) says nothing about another. A bare `HashMap` is refused by
//! `clippy.toml` in the crates that packets pass through.
#![allow(clippy::disallowed_types, reason = "the tables with the keyed hasher are made here")]
use core::fmt;
use core::hash::{BuildHasher, Hasher};
use siphasher::sip::SipHasher13;

/// A map whose hashes cannot be predicted.
pub type KeyedMap<K, V> = hashbrown::HashMap<K, V, SipKey>;
/// A set whose hashes cannot be predicted.
pub type KeyedSet<K> = hashbrown::HashSet<K, SipKey>;

/// A secret key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SipKey {
    first: u64,
    second: u64,
}

impl SipKey {
    /// The key of these two random words.
    pub const fn new(first: u64, second: u64) -> SipKey {
        SipKey { first, second }
    }

    /// The key for one purpose, named by its number.
    #[must_use]
    pub fn derive(&self, purpose: u64) -> SipKey {
        let half = |half: u64| {
            let mut hasher = self.build_hasher();
            hasher.write_u64(purpose << 1 | half);
            hasher.finish()
        };
        SipKey { first: half(0), second: half(1) }
    }

    /// Its two words.
    pub const fn words(&self) -> (u64, u64) {
        (self.first, self.second)
    }

    /// An empty map.
    pub fn map<K, V>(&self) -> KeyedMap<K, V> {
        KeyedMap::with_hasher(*self)
    }

    /// An empty set.
    pub fn set<K>(&self) -> KeyedSet<K> {
        KeyedSet::with_hasher(*self)
    }
}

impl fmt::Debug for SipKey {
    /// Without the key: it must not get into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SipKey(..)")
    }
}

impl BuildHasher for SipKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.first, self.second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn each_purpose_has_its_own_key() {
        let secret = SipKey::new(1, 2);
        let hash = |key: SipKey| key.hash_one(7_u64);
        assert_ne!(hash(secret.derive(0)), hash(secret.derive(1)));
        assert_ne!(hash(secret.derive(0)), hash(SipKey::new(1, 3).derive(0)), "it depends on the secret");
        assert_eq!(hash(secret.derive(0)), hash(secret.derive(0)));
        assert_eq!(format!("{secret:?}"), "SipKey(..)");
    }
}
