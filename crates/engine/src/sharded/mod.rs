//! Many cores: the table as several engines, the shards, each of them used by one thread without locks.
//!
//! A connection is in the shard that a keyed hash of its tuples says, which is the same for both directions. NAT chooses the source port so that this stays true: a reply tuple of another shard
//! counts as taken. So no two shards have connections that could clash, and a packet needs one shard. What all share is the number of connections, one atomic counter, written when a
//! connection begins or ends. A shard must never begin a connection whose tuples are not its own: [`Reason::WrongShard`].
mod inboxes;
mod shard_map;
pub(crate) mod shard_place;

pub use inboxes::ShardInboxes;
pub use shard_map::ShardMap;

use crate::table::key::HashKeys;
use crate::{
    ConnId, Counters, Direction, Engine, Entry, Event, EventMask, Instant, Outcome, Reason, Secret, Sysctl,
    SysctlError, Sysctls, Tuple, Zone,
};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use keepstate_wire::Packet;
use shard_place::{ShardHash, ShardSlot, SharedCount};

/// The most shards there can be.
const MAX_SHARDS: usize = 64;

/// A connection of one of several shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardConnId {
    /// Its shard.
    pub shard: usize,
    /// Its id there.
    pub conn_id: ConnId,
}

/// Several engines that are one table: one limit, one count; listing, finding, deleting and statistics over all.
///
/// As one value it is used by one thread. [`ShardedEngine::shards_mut`] lends each shard to a thread of its own, [`ShardedEngine::into_shards`] gives them away; then packets that belong to another
/// thread's shard, and requests, are handed over by [`ShardInboxes`]. A shard is an [`Engine`]: rules, NAT and everything else work on it as on any other.
///
/// ```
/// use keepstate_engine::wire::Packet;
/// use keepstate_engine::{CtInfo, Instant, Secret, ShardedEngine, Sysctls, Zone};
/// // An echo request from 10.1.0.2 to 10.2.0.9.
/// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
/// let now = Instant(0);
/// let mut engine = ShardedEngine::new(Sysctls::default(), Secret([7; 16]), 2);
/// let (_, outcome) = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), now);
/// assert_eq!((outcome.info, engine.count()), (CtInfo::New, 1));
/// // Each shard with a thread of its own:
/// std::thread::scope(|scope| {
///     for shard in engine.shards_mut() {
///         scope.spawn(move || shard.poll(now));
///     }
/// });
/// ```
///
/// What a shard cannot do:
/// - Protocols without ports (GRE, ESP and others) are all in shard 0.
/// - A source translated to one fixed port, or by a [`NatPolicy`](crate::NatPolicy) other than Linux's, is dropped where the reply tuple belongs to another shard ([`Reason::WrongShard`]).
///   A destination that is translated needs the source's turn too ([`Engine::translate`] or [`Engine::nat_null_binding`]), as at Linux's postrouting hook: the source port may have to change.
/// - What a helper expects is expected by its shard alone. An [`AdmissionPolicy`](crate::AdmissionPolicy) counts reserves and sources by shard, and raises the limit of a shard.
pub struct ShardedEngine {
    map: ShardMap,
    shards: Vec<Engine>,
}

impl ShardedEngine {
    /// Engines without connections, `shards` of them (1 to 64). `secret` must be unknown to the senders of packets. `nf_conntrack_max` and `nf_conntrack_buckets` are for all together.
    pub fn new(sysctls: Sysctls, secret: Secret, shards: usize) -> ShardedEngine {
        let count = shards.clamp(1, MAX_SHARDS);
        // At most 64.
        let hash = ShardHash::new(HashKeys::derive(&secret, 7), count as u32);
        let map = ShardMap { hash, total: Arc::new(SharedCount::default()) };
        let connections = (sysctls[Sysctl::Buckets] as usize).div_ceil(count);
        let shard = |index: usize| {
            // A secret of its own, so that ids of connections are not the same in two shards.
            let (first, second) = HashKeys::derive(&secret, 8 + index as u64).words();
            let secret = Secret((u128::from(first) << 64 | u128::from(second)).to_be_bytes());
            let mut engine = Engine::with_index_for(sysctls.clone(), secret, connections);
            engine.shard = ShardSlot::new(hash, index, Arc::clone(&map.total));
            engine
        };
        ShardedEngine { shards: (0..count).map(shard).collect(), map }
    }

    /// Which shard a packet belongs to: for each thread that reads packets.
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// The shards, in order.
    pub fn shards(&self) -> &[Engine] {
        &self.shards
    }

    /// The shards, each of which may be lent to a thread.
    pub fn shards_mut(&mut self) -> &mut [Engine] {
        &mut self.shards
    }

    /// The shards, to be given away: one a thread.
    pub fn into_shards(self) -> (ShardMap, Vec<Engine>) {
        (self.map, self.shards)
    }

    /// All shards together again, in any order.
    ///
    /// # Errors
    /// They are not the shards of this map, or not all of them: here they are again.
    pub fn from_shards(map: ShardMap, mut shards: Vec<Engine>) -> Result<ShardedEngine, Vec<Engine>> {
        shards.sort_by_key(|engine| engine.shard.index());
        let is_right =
            |(index, engine): (usize, &Engine)| engine.shard.index() == Some(index) && engine.shard.shares(&map.total);
        if shards.len() != map.shards() || !shards.iter().enumerate().all(is_right) {
            return Err(shards);
        }
        Ok(ShardedEngine { map, shards })
    }

    /// The engine that has, or will have, this packet's connection, and its number.
    pub fn shard_for(&mut self, packet: &Packet<'_>) -> (usize, &mut Engine) {
        let index = self.map.shard_of(packet).unwrap_or(0);
        // There is at least one shard, and the map knows of no more than there are.
        (index, &mut self.shards[index])
    }

    /// Tracks one packet in its shard and immediately confirms its connection, as [`Engine::handle`].
    pub fn handle(&mut self, packet: &Packet<'_>, zone: Zone, now: Instant) -> (usize, Outcome) {
        let (index, engine) = self.shard_for(packet);
        (index, engine.handle(packet, zone, now))
    }

    /// The number of connections in all shards.
    pub fn count(&self) -> usize {
        self.map.count()
    }

    /// Every connection that has not expired at `now`, with its shard.
    pub fn entries(&self, now: Instant) -> impl Iterator<Item = (ShardConnId, Entry)> + '_ {
        let each = self.shards.iter().enumerate();
        each.flat_map(move |(shard, engine)| {
            engine.entries(now).map(move |entry| (ShardConnId { shard, conn_id: entry.conn_id }, entry))
        })
    }

    /// One connection, if it is in the table.
    pub fn entry(&self, id: ShardConnId, now: Instant) -> Option<Entry> {
        self.shards.get(id.shard)?.entry(id.conn_id, now)
    }

    /// Finds the connection that has `tuple`, and the direction that `tuple` names.
    pub fn find(&self, tuple: &Tuple, zone: Zone, now: Instant) -> Option<(ShardConnId, Direction)> {
        let shard = self.map.shard_of_tuple(tuple);
        let (conn_id, direction) = self.shards.get(shard)?.find(tuple, zone, now)?;
        Some((ShardConnId { shard, conn_id }, direction))
    }

    /// Removes one connection. False if it does not exist any more.
    pub fn remove(&mut self, id: ShardConnId, now: Instant) -> bool {
        self.shards.get_mut(id.shard).is_some_and(|engine| engine.remove(id.conn_id, now))
    }

    /// Removes every connection.
    pub fn flush(&mut self, now: Instant) {
        self.shards.iter_mut().for_each(|engine| engine.flush(now));
    }

    /// Sets a sysctl of all shards. While threads have them, each sets it in its own.
    ///
    /// # Errors
    /// The value is out of range, or the sysctl is read-only.
    pub fn set_sysctl(&mut self, sysctl: Sysctl, value: u64) -> Result<(), SysctlError> {
        self.shards.iter_mut().try_for_each(|engine| engine.set_sysctl(sysctl, value))
    }

    /// The counters of all shards, added up.
    pub fn counters(&self) -> Counters {
        self.shards.iter().fold(Counters::default(), |sum, engine| sum + *engine.counters())
    }

    /// The number of packets per [`Reason`], in all shards.
    pub fn reason_counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let of = |reason: Reason| move |engine: &Engine| engine.reason_count(reason);
        Reason::all().map(move |reason| (reason, self.shards.iter().map(of(reason)).sum()))
    }

    /// Bytes allocated for connections.
    pub fn memory_bytes(&self) -> usize {
        self.shards.iter().map(Engine::memory_bytes).sum()
    }

    /// [`Engine::poll`] of each shard.
    pub fn poll(&mut self, now: Instant) {
        self.shards.iter_mut().for_each(|engine| engine.poll(now));
    }

    /// When to call [`ShardedEngine::poll`] next; `None` while all are empty.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        self.shards.iter().filter_map(|engine| engine.next_wake(now)).min()
    }

    /// Selects the events to queue, at most `capacity` in each shard.
    pub fn subscribe(&mut self, mask: EventMask, capacity: usize) {
        self.shards.iter_mut().for_each(|engine| engine.subscribe(mask, capacity));
    }

    /// Takes the oldest queued event of a shard that has one. The order is that of each shard; [`Event::at`] says it of all.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.shards.iter_mut().find_map(Engine::poll_event)
    }

    /// Checks the invariants of each shard, that all their connections are its own, and that together they are as many as are counted.
    ///
    /// # Errors
    /// The first violated invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.shards.iter().try_for_each(Engine::check_invariants)?;
        let connections: usize = self.shards.iter().map(Engine::count).sum();
        if connections != self.count() {
            return Err(alloc::format!("{connections} connections in all shards, {} counted", self.count()));
        }
        Ok(())
    }
}

impl fmt::Debug for ShardedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardedEngine").field("map", &self.map).field("shards", &self.shards).finish()
    }
}
