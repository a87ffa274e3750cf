//! The NAT policy, and the table of mapped outside ports.
use super::deterministic::DeterministicNat;
use super::port_bitmap::{BitmapKey, PortBitmap};
use super::port_block::PortBlocks;
use crate::{Instant, Tuple};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// Source NAT policy beyond the rules. The default is Linux's behaviour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatPolicy {
    /// Which outside port the next connection of a source gets.
    pub mapping: MappingBehaviour,
    /// Who may open connections to a mapped port. Anything but the default needs [`MappingBehaviour::EndpointIndependent`].
    pub filtering: FilteringBehaviour,
    /// Even ports are mapped to even ones, and the port above an even one is left to its RTCP neighbour while other ports are free (RFC 4787, 4.2.2 and 4.2.3).
    /// Needs [`MappingBehaviour::EndpointIndependent`].
    pub parity: bool,
    /// Number of consecutive ports in the block of each inside address, which uses no other ports; `None` is without blocks.
    pub port_block_size: Option<u16>,
    /// Inside prefixes whose outside address and ports are computed, whatever addresses the rule that translates them names.
    pub deterministic: Vec<DeterministicNat>,
}

/// Which outside port the next connection of the same inside address and port gets (RFC 4787, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MappingBehaviour {
    /// The same port if it is free towards that peer; otherwise another. A port may serve several sources with different peers.
    #[default]
    AddressAndPortDependent,
    /// The same port towards every peer; no other source uses it while it has connections.
    EndpointIndependent,
}

/// Who may open a connection to a mapped port (RFC 4787, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilteringBehaviour {
    /// Nobody: a packet must belong to a known connection.
    #[default]
    AddressAndPortDependent,
    /// Any port of an address that the mapped source has a connection to.
    AddressDependent,
    /// Everybody.
    EndpointIndependent,
}

impl NatPolicy {
    fn is_default(&self) -> bool {
        self.mapping == MappingBehaviour::AddressAndPortDependent
            && self.port_block_size.is_none()
            && self.deterministic.is_empty()
    }
}

/// The inside source of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InsideSource {
    pub(super) address: IpAddr,
    pub(super) key: u16,
    pub(super) protocol: u8,
    pub(super) zone: u16,
}

impl InsideSource {
    pub(super) fn from_tuple(original: &Tuple, zone: u16) -> InsideSource {
        InsideSource { address: original.source, key: original.source_key, protocol: original.protocol, zone }
    }
}

/// One mapped port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OutsidePort {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: u8,
    pub(super) zone: u16,
}

/// All mappings.
#[derive(Clone)]
pub(crate) struct EimTable {
    key: SipKey,
    pub(super) policy: NatPolicy,
    pub(super) in_use: bool,
    pub(super) used_ports: PortBitmap,
    /// Mappings, each with its number of connections.
    pub(super) by_inside: KeyedMap<InsideSource, Vec<(OutsidePort, u32)>>,
    pub(super) by_outside: KeyedMap<OutsidePort, InsideSource>,
    pub(super) port_blocks: PortBlocks,
}

impl EimTable {
    pub(super) fn new(policy: NatPolicy, key: SipKey) -> EimTable {
        EimTable {
            in_use: !policy.is_default(),
            port_blocks: PortBlocks::new(policy.port_block_size, key.derive(0)),
            policy,
            used_ports: PortBitmap::new(key.derive(1)),
            by_inside: key.derive(2).map(),
            by_outside: key.derive(3).map(),
            key,
        }
    }

    /// An empty table for another policy.
    pub(super) fn with_policy(&self, policy: NatPolicy) -> EimTable {
        EimTable::new(policy, self.key)
    }

    pub(super) fn in_use(&self) -> bool {
        self.in_use
    }

    pub(super) fn is_endpoint_independent(&self) -> bool {
        self.policy.mapping == MappingBehaviour::EndpointIndependent
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_inside.is_empty()
            && self.by_outside.is_empty()
            && self.used_ports.is_empty()
            && self.port_blocks.is_empty()
    }

    pub(super) fn deterministic_mapping(&self, inside: IpAddr) -> Option<(IpAddr, RangeInclusive<u16>)> {
        self.policy.deterministic.iter().find_map(|mapping| mapping.outside_ip(inside))
    }

    /// The mapped ports of a source.
    pub(super) fn mappings_of(&self, source: &InsideSource) -> impl Iterator<Item = OutsidePort> + '_ {
        self.by_inside.get(source).into_iter().flatten().map(|(outside, _)| *outside)
    }

    pub(super) fn add_connection(&mut self, inside: InsideSource, outside: OutsidePort, now: Instant) {
        if self.deterministic_mapping(inside.address).is_none() {
            self.port_blocks.add_connection((inside.address, inside.zone), outside.address, outside.port, now);
        }
        if !self.is_endpoint_independent() {
            return;
        }
        let mapped = self.by_inside.entry(inside).or_default();
        if let Some((_, connections)) = mapped.iter_mut().find(|(known, _)| *known == outside) {
            *connections += 1;
        } else if self.used_ports.reserve(outside.bitmap_key(), outside.port) {
            mapped.push((outside, 1));
            self.by_outside.insert(outside, inside);
        } else if mapped.is_empty() {
            self.by_inside.remove(&inside);
        }
    }

    pub(super) fn remove_connection(&mut self, inside: InsideSource, outside: OutsidePort, now: Instant) {
        self.port_blocks.remove_connection((inside.address, inside.zone), outside.address, outside.port, now);
        let Some(mapped) = self.by_inside.get_mut(&inside) else { return };
        let Some(at) = mapped.iter().position(|(known, _)| *known == outside) else { return };
        if let Some((_, connections)) = mapped.get_mut(at).filter(|(_, connections)| *connections > 1) {
            *connections -= 1;
            return;
        }
        mapped.swap_remove(at);
        if mapped.is_empty() {
            self.by_inside.remove(&inside);
        }
        self.by_outside.remove(&outside);
        self.used_ports.release(&outside.bitmap_key(), outside.port);
    }

    /// The outside port reserved for `source` beside a neighbour's: RTCP uses the port above RTP's (RFC 3550, 11).
    pub(super) fn rtp_pair_port(&self, source: &InsideSource) -> Option<u16> {
        let (neighbour, up) =
            if source.key.is_multiple_of(2) { (source.key + 1, false) } else { (source.key - 1, true) };
        let port = self.mappings_of(&InsideSource { key: neighbour, ..*source }).next()?.port;
        let fits = port % 2 == neighbour % 2;
        fits.then(|| if up { port.wrapping_add(1) } else { port.wrapping_sub(1) })
    }
}

impl OutsidePort {
    pub(super) const fn bitmap_key(&self) -> BitmapKey {
        (self.address, self.protocol, self.zone)
    }
}
