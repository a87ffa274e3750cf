//! How many ports source NAT has in use: of one address towards one peer, which is what runs out.
//!
//! Two connections may share a port if their peers differ. So what is scarce is counted for each translated address, protocol and peer;
//! how many groups have which count is kept too, so that the largest is known without a look at all of them.
use crate::flow_key::FlowKey;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// The use of ports by source NAT, of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPortUse {
    /// The protocol's number.
    pub protocol: u8,
    /// Translated connections.
    pub connections: u64,
    /// Addresses that sources are translated to.
    pub addresses: u64,
    /// The most ports in use of one address towards one peer's address and port.
    pub most_to_one_peer: u64,
    /// The most connections of one address.
    pub most_of_one_address: u64,
}

/// Counts of groups, with the largest of each protocol.
#[derive(Debug)]
struct CountedGroups<K> {
    counts: HashMap<K, u64>,
    /// How many groups of a protocol have this count.
    with_count: BTreeMap<(u8, u64), u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct NatPorts {
    address: CountedGroups<(IpAddr, u8)>,
    peer: CountedGroups<(IpAddr, u8, IpAddr, u16)>,
    connections: BTreeMap<u8, u64>,
}

impl NatPorts {
    /// Counts the reply direction of a connection whose source is translated.
    pub(crate) fn add(&mut self, reply: &FlowKey) {
        self.change(reply, 1);
    }

    /// Counts it out.
    pub(crate) fn remove(&mut self, reply: &FlowKey) {
        self.change(reply, -1);
    }

    fn change(&mut self, reply: &FlowKey, by: i64) {
        let protocol = reply.protocol;
        self.address.change((reply.destination, protocol), protocol, by);
        self.peer.change((reply.destination, protocol, reply.source, reply.ports[0]), protocol, by);
        let all = self.connections.entry(protocol).or_default();
        *all = all.saturating_add_signed(by);
    }

    /// The use by protocol.
    pub(crate) fn by_protocol(&self) -> Vec<NatPortUse> {
        let used = self.connections.iter().filter(|(_, connections)| **connections > 0);
        used.map(|(&protocol, &connections)| NatPortUse {
            protocol,
            connections,
            addresses: self.address.groups(protocol),
            most_to_one_peer: self.peer.largest(protocol),
            most_of_one_address: self.address.largest(protocol),
        })
        .collect()
    }
}

impl<K> Default for CountedGroups<K> {
    fn default() -> CountedGroups<K> {
        CountedGroups { counts: HashMap::new(), with_count: BTreeMap::new() }
    }
}

impl<K: Eq + std::hash::Hash + Copy> CountedGroups<K> {
    fn change(&mut self, key: K, protocol: u8, by: i64) {
        let before = self.counts.get(&key).copied().unwrap_or(0);
        let after = before.saturating_add_signed(by);
        if before > 0
            && let Some(groups) = self.with_count.get_mut(&(protocol, before))
        {
            *groups -= 1;
            if *groups == 0 {
                self.with_count.remove(&(protocol, before));
            }
        }
        if after > 0 {
            *self.with_count.entry((protocol, after)).or_default() += 1;
            self.counts.insert(key, after);
        } else {
            self.counts.remove(&key);
        }
    }

    fn largest(&self, protocol: u8) -> u64 {
        self.with_count.range((protocol, 0)..=(protocol, u64::MAX)).next_back().map_or(0, |(&(_, count), _)| count)
    }

    fn groups(&self, protocol: u8) -> u64 {
        self.with_count.range((protocol, 0)..=(protocol, u64::MAX)).map(|(_, groups)| groups).sum()
    }
}
