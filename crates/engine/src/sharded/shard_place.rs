//! What an engine knows of being one of several shards: which tuples are its own, and how many connections all of them have. Without an engine.
use crate::table::key::{HashKeys, PackedAddrs, TupleKey};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use keepstate_types::ipproto;

/// Which shard a tuple belongs to: the same for a tuple and its inverse, and unpredictable without the secret.
#[derive(Clone, Copy)]
pub(crate) struct ShardHash {
    keys: HashKeys,
    shards: u32,
}

impl ShardHash {
    pub(super) const fn new(keys: HashKeys, shards: u32) -> ShardHash {
        ShardHash { keys, shards }
    }

    pub(super) const fn shards(&self) -> usize {
        self.shards as usize
    }

    /// The shard of this tuple. Protocols without ports have nothing that NAT could choose: they are all in shard 0.
    #[inline]
    pub(crate) fn shard_of(&self, key: &TupleKey) -> usize {
        let (source, destination) = match key.protocol {
            ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP => (key.keys >> 16, key.keys & 0xffff),
            // The id is the same in both directions; type and code are not.
            ipproto::ICMP | ipproto::ICMPV6 => (key.keys >> 16, key.keys >> 16),
            _ => return 0,
        };
        let protocol = u64::from(key.protocol);
        let hash = match key.addresses {
            PackedAddrs::V4(both) => {
                let one = both >> 32 << 16 | u64::from(source);
                let other = (both & 0xffff_ffff) << 16 | u64::from(destination);
                let (low, high) = (one.min(other), one.max(other));
                self.keys.hash_with_tail([low | high << 48], high >> 16 << 24 | protocol)
            }
            PackedAddrs::V6([from, to]) => {
                let (one, other) = ((from, source), (to, destination));
                let (([a, b], low), ([c, d], high)) = (one.min(other), one.max(other));
                self.keys.hash_with_tail([a, b, c, d], u64::from(low << 16 | high) << 24 | protocol)
            }
        };
        (((hash >> 32) * u64::from(self.shards)) >> 32) as usize
    }
}

/// The connections of all shards. In cache lines of its own: every shard writes it, but only when a connection begins or ends.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct SharedCount(AtomicUsize);

impl SharedCount {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, if there are fewer than `limit`; 0 is no limit. Nothing else is ordered by it: each shard's connections are its own.
    fn take(&self, limit: usize) -> bool {
        let more = |count: usize| (limit == 0 || count < limit).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, entries: usize) {
        self.0.fetch_sub(entries, Ordering::Relaxed);
    }
}

/// Which shard an engine is.
struct ShardPlace {
    hash: ShardHash,
    index: usize,
    total: Arc<SharedCount>,
    /// The entries it has taken of the total.
    taken: usize,
}

/// Its place, if the engine is a shard. A clone of a shard is an engine of its own, which shares no count.
#[derive(Default)]
pub(crate) struct ShardSlot(Option<ShardPlace>);

impl Clone for ShardSlot {
    fn clone(&self) -> ShardSlot {
        ShardSlot(None)
    }
}

impl Drop for ShardPlace {
    fn drop(&mut self) {
        self.total.give_back(self.taken);
    }
}

impl ShardSlot {
    pub(super) const fn new(hash: ShardHash, index: usize, total: Arc<SharedCount>) -> ShardSlot {
        ShardSlot(Some(ShardPlace { hash, index, total, taken: 0 }))
    }

    /// Its number, if it is a shard.
    pub(super) fn index(&self) -> Option<usize> {
        self.0.as_ref().map(|place| place.index)
    }

    /// Are there other shards?
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.0.as_ref().is_some_and(|place| place.hash.shards() > 1)
    }

    /// Does the tuple belong to this engine?
    #[inline(always)]
    pub(crate) fn owns(&self, key: &TupleKey) -> bool {
        self.0.as_ref().is_none_or(|place| place.hash.shard_of(key) == place.index)
    }

    /// Is it one of those that share this count?
    pub(super) fn shares(&self, total: &Arc<SharedCount>) -> bool {
        self.0.as_ref().is_some_and(|place| Arc::ptr_eq(&place.total, total))
    }

    /// The part of `connections` that this engine is sized for.
    pub(crate) fn share_of(&self, connections: usize) -> usize {
        self.0.as_ref().map_or(connections, |place| connections.div_ceil(place.hash.shards()))
    }

    /// The connections that count for the limit, of which the engine itself has `own`.
    #[inline(always)]
    pub(crate) fn entries_in_use(&self, own: usize) -> usize {
        self.0.as_ref().map_or(own, |place| place.total.get())
    }

    /// Takes one entry of all that there may be. An engine that is no shard has asked for room before, and nobody has taken it since.
    #[inline(always)]
    pub(crate) fn take_entry(&mut self, limit: usize) -> bool {
        let Some(place) = &mut self.0 else { return true };
        let taken = place.total.take(limit);
        place.taken += usize::from(taken);
        taken
    }

    /// Gives an entry back.
    #[inline(always)]
    pub(crate) fn give_entry_back(&mut self) {
        if let Some(place) = &mut self.0 {
            place.taken -= 1;
            place.total.give_back(1);
        }
    }

    /// The entries taken, for [`Engine::check_invariants`](crate::Engine::check_invariants).
    pub(crate) fn taken(&self) -> Option<usize> {
        self.0.as_ref().map(|place| place.taken)
    }
}
