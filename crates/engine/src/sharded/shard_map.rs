//! Which shard a packet belongs to, for whoever has packets at hand: a driver, on any thread.
use super::shard_place::{ShardHash, SharedCount};
use crate::classify::packet_tuple;
use crate::icmp_error::quoted_key;
use crate::table::key::{PackedAddrs, TupleKey};
use crate::{Tuple, classify};
use alloc::sync::Arc;
use core::fmt;
use keepstate_wire::Packet;

/// Says which shard has a packet's connection. It is copied to each thread that reads packets.
#[derive(Clone)]
pub struct ShardMap {
    pub(super) hash: ShardHash,
    pub(super) total: Arc<SharedCount>,
}

impl ShardMap {
    /// The shard of this packet's connection, known or not; an ICMP error belongs to the connection of the packet it quotes. `None`: it has no connection, and any shard may count it.
    #[inline]
    pub fn shard_of(&self, packet: &Packet<'_>) -> Option<usize> {
        match packet.flow_key_v4() {
            Some((word, keys)) => {
                let key = TupleKey { addresses: PackedAddrs::V4(word), keys, protocol: packet.protocol() };
                Some(self.hash.shard_of(&key))
            }
            None => self.shard_of_other(packet),
        }
    }

    fn shard_of_other(&self, packet: &Packet<'_>) -> Option<usize> {
        if packet.fragment().is_some() {
            return None;
        }
        let quoted = if classify::is_icmp_of_family(packet) { quoted_key(packet) } else { None };
        let key = quoted.or_else(|| packet_tuple(packet).map(|tuple| TupleKey::from(&tuple)))?;
        Some(self.hash.shard_of(&key))
    }

    /// The shard of the connection that has this tuple. A zone changes nothing about it.
    pub fn shard_of_tuple(&self, tuple: &Tuple) -> usize {
        self.hash.shard_of(&tuple.into())
    }

    /// The number of shards.
    pub fn shards(&self) -> usize {
        self.hash.shards()
    }

    /// The connections of all shards.
    pub fn count(&self) -> usize {
        self.total.get()
    }
}

impl fmt::Debug for ShardMap {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardMap").field("shards", &self.shards()).field("count", &self.count()).finish_non_exhaustive()
    }
}
