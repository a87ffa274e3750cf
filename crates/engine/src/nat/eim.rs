//! Translation of sources beyond Linux's, by explicit choice: mappings that do not depend on the peer (RFC 4787, RFC 5382, RFC 5508), blocks of ports, arithmetic.
//!
//! A mapping lends one outside port to one inside source, whomever that talks to; it begins when the first of its connections is confirmed and ends with the last,
//! so that there are never more mappings than connections. Nothing here is asked, and nothing kept, as long as [`Mapping`] is the default: Linux's own way.
use super::bysource::BysourceKey;
use super::deterministic::DeterministicNat;
use super::port_bitmap::{BitmapKey, PortBitmap, PortConstraint};
use super::port_block::{PortBlockEvent, PortBlocks, Subscriber};
use super::range::{Manip, NatRange, PortSelection};
use super::unique_tuple::{NatBinding, NatRequest};
use crate::{Direction, Engine, Instant, Status, Tuple, Zone};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use hashbrown::HashMap;
use keepstate_types::ipproto;

/// What translations of sources do beyond what rules say. The default is Linux's own behaviour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatPolicy {
    /// Which outside port a source's next connection gets.
    pub mapping: MappingBehaviour,
    /// Who may answer to such a port. More than the peers of its connections only with [`Behaviour::EndpointIndependent`].
    pub filtering: FilteringBehaviour,
    /// Even ports become even ones, and what is above an even one is kept free for its neighbour as long as there are others (RFC 4787, 4.2.2 and 4.2.3);
    /// with [`Behaviour::EndpointIndependent`].
    pub parity: bool,
    /// So many ports in a row for each inside address, and no others.
    pub port_block_size: Option<u16>,
    /// Inside addresses whose outside address and ports are arithmetic, whatever addresses the rule that translates them names.
    pub deterministic: Vec<DeterministicNat>,
}

/// Which outside port the next connection of the same inside address and port gets (RFC 4787, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MappingBehaviour {
    /// The same if it is free towards that peer; else another. A port serves several sources as long as their peers differ.
    #[default]
    AddressAndPortDependent,
    /// The same towards every peer; and nobody else's as long as it has connections.
    EndpointIndependent,
}

/// From whom a new connection is let in to a mapped port (RFC 4787, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilteringBehaviour {
    /// From nobody: what comes must belong to a connection.
    #[default]
    AddressAndPortDependent,
    /// From every port of an address that the mapped source has a connection to.
    AddressDependent,
    /// From everybody.
    EndpointIndependent,
}

impl NatPolicy {
    fn is_default(&self) -> bool {
        self.mapping == MappingBehaviour::AddressAndPortDependent
            && self.port_block_size.is_none()
            && self.deterministic.is_empty()
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
#[derive(Default)]
pub(crate) struct EimTable {
    pub(super) policy: NatPolicy,
    in_use: bool,
    used_ports: PortBitmap,
    /// With the number of connections of each.
    by_inside: HashMap<BysourceKey, Vec<(OutsidePort, u32)>>,
    pub(super) by_outside: HashMap<OutsidePort, BysourceKey>,
    pub(super) port_blocks: PortBlocks,
}

/// Where a translation may go.
struct AllowedPorts {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

/// Ports tried that are free of mappings, but may be taken by connections without one.
const MAX_ATTEMPTS: usize = 128;

impl EimTable {
    fn new(policy: NatPolicy) -> EimTable {
        EimTable {
            in_use: !policy.is_default(),
            port_blocks: PortBlocks::new(policy.port_block_size),
            policy,
            ..EimTable::default()
        }
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

    fn deterministic_mapping(&self, inside: IpAddr) -> Option<(IpAddr, RangeInclusive<u16>)> {
        self.policy.deterministic.iter().find_map(|mapping| mapping.outside_ip(inside))
    }

    /// The mapped ports of a source.
    fn mappings_of(&self, source: &BysourceKey) -> impl Iterator<Item = OutsidePort> + '_ {
        self.by_inside.get(source).into_iter().flatten().map(|(outside, _)| *outside)
    }

    fn add_connection(&mut self, inside: BysourceKey, outside: OutsidePort, now: Instant) {
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

    fn remove_connection(&mut self, inside: BysourceKey, outside: OutsidePort, now: Instant) {
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

    /// The outside ports that neighbours of `source` leave to it: an RTP's RTCP is one above (RFC 3550, 11).
    fn rtp_pair_port(&self, source: &BysourceKey) -> Option<u16> {
        let (neighbour, up) =
            if source.key.is_multiple_of(2) { (source.key + 1, false) } else { (source.key - 1, true) };
        let port = self.mappings_of(&BysourceKey { key: neighbour, ..*source }).next()?.port;
        let fits = port % 2 == neighbour % 2;
        fits.then(|| if up { port.wrapping_add(1) } else { port.wrapping_sub(1) })
    }
}

impl OutsidePort {
    const fn bitmap_key(&self) -> BitmapKey {
        (self.address, self.protocol, self.zone)
    }
}

impl Engine {
    /// Has sources translated beyond what Linux does, from now on. Connections that are known keep what they have.
    pub fn set_nat_policy(&mut self, mapping: NatPolicy, now: Instant) {
        self.nat.eim = EimTable::new(mapping);
        let slots: Vec<u32> = self.table.used_slots().collect();
        for slot in slots {
            self.restore_mapping(slot, now);
        }
    }

    /// A connection is here that did not begin here, or not under this mapping.
    pub(crate) fn restore_mapping(&mut self, slot: u32, now: Instant) {
        if self.nat.eim.in_use
            && let Some((original, reply, zone)) = self.snat_tuples(slot)
        {
            self.insert_mapping(&original, &reply, zone, now);
        }
    }

    /// How sources are translated beyond what Linux does.
    pub fn nat_policy(&self) -> &NatPolicy {
        &self.nat.eim.policy
    }

    /// The next block of ports that was taken or given back.
    pub fn poll_port_block(&mut self) -> Option<PortBlockEvent> {
        self.nat.eim.port_blocks.pop_event()
    }

    /// Changes of blocks that nobody asked for in time.
    pub fn port_block_events_lost(&self) -> u64 {
        self.nat.eim.port_blocks.events_lost()
    }

    /// The tuples and zone of a connection whose source is translated.
    pub(super) fn snat_tuples(&self, slot: u32) -> Option<(Tuple, Tuple, Zone)> {
        let records = &self.table.records;
        let translated = records.hot(slot)?.status().contains(Status::SRC_NAT);
        let key = |direction| records.key(crate::table::TupleRef::new(slot, direction)).map(|key| key.tuple());
        translated.then_some((key(Direction::Original)?, key(Direction::Reply)?, records.zone(slot)))
    }

    /// A connection whose source is translated was entered.
    pub(super) fn insert_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = mapping_ends(original, reply, zone) {
            self.nat.eim.add_connection(inside, outside, now);
        }
    }

    /// It has ended.
    pub(super) fn remove_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = mapping_ends(original, reply, zone) {
            self.nat.eim.remove_connection(inside, outside, now);
        }
    }

    /// The tuple that was asked for beyond Linux, and whether it is free; `None` where Linux's way is to be gone.
    pub(super) fn unique_tuple_by_policy(&mut self, wanted: &NatRequest<'_>) -> Option<(Tuple, bool)> {
        let NatRequest { current: present, manip, range, .. } = wanted;
        let same =
            range.addresses.as_ref().is_none_or(|all| (*all.start(), *all.end()) == (present.source, present.source));
        let by_rule = *manip == Manip::Source && wanted.binding == NatBinding::Rule;
        if !self.nat.eim.in_use || !by_rule || same || range.prefix || !has_ports(present.protocol) {
            return None;
        }
        let Some(bounds) = self.allowed_ports(wanted) else {
            // Every block is somebody's.
            let address = range.addresses.as_ref().map_or(present.source, |addresses| *addresses.start());
            return Some((Tuple { source: address, ..*present }, false));
        };
        if self.nat.eim.is_endpoint_independent() {
            return Some(self.unique_tuple_eim(&bounds, wanted));
        }
        let narrowed = NatRange {
            ports: Some(bounds.ports),
            port_selection: range.port_selection,
            ..NatRange::to(bounds.address)
        };
        let narrowed = match (self.nat.eim.port_blocks.is_enabled(), self.nat.eim.deterministic_mapping(present.source))
        {
            (false, None) => return None,
            _ => narrowed,
        };
        Some(self.unique_tuple_linux(&NatRequest { range: &narrowed, ..*wanted }))
    }

    /// The address and ports that a subscriber may use. `None` if there is no block left for him.
    fn allowed_ports(&self, wanted: &NatRequest<'_>) -> Option<AllowedPorts> {
        let NatRequest { current: present, range, zone, .. } = wanted;
        let mappings = &self.nat.eim;
        if let Some((address, ports)) = mappings.deterministic_mapping(present.source) {
            return Some(AllowedPorts { address, ports });
        }
        let subscriber: Subscriber = (present.source, zone.id_for(Direction::Original));
        let held = mappings.port_blocks.find_allocation(&subscriber, range);
        if let Some((address, Some(ports))) = held {
            return Some(AllowedPorts { address, ports });
        }
        let address = held.map(|(address, _)| address).unwrap_or_else(|| {
            let persistent = NatRange { persistent: true, ..(*range).clone() };
            let mut tuple = *present;
            self.find_best_ip(&mut tuple, &NatRequest { range: &persistent, ..*wanted });
            tuple.source
        });
        if mappings.port_blocks.is_enabled() {
            let (address, ports) = mappings.port_blocks.find_free_block(address, subscriber.1, range)?;
            return Some(AllowedPorts { address, ports });
        }
        let ports = range.ports.clone().unwrap_or_else(|| port_class(present));
        Some(AllowedPorts { address, ports: *ports.start().min(ports.end())..=*ports.start().max(ports.end()) })
    }

    /// The source's own mapping, or a port that nobody has.
    fn unique_tuple_eim(&mut self, bounds: &AllowedPorts, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let NatRequest { current: present, range, zone, .. } = wanted;
        let source = BysourceKey::from_tuple(present, zone.id_for(Direction::Original));
        let at = |port| Tuple { source: bounds.address, source_key: port, ..*present };
        let fits = |outside: &OutsidePort| outside.address == bounds.address && bounds.ports.contains(&outside.port);
        let known = self.nat.eim.mappings_of(&source).find(fits);
        if let Some(tuple) = known.map(|outside| at(outside.port))
            && !self.used_tuple(&tuple, wanted)
        {
            return (tuple, true);
        }
        let (place, first) = ((bounds.address, present.protocol, zone.id), *bounds.ports.start());
        let own = if range.port_selection == PortSelection::Random { None } else { Some(present.source_key) };
        let beside = if self.nat.eim.policy.parity { self.nat.eim.rtp_pair_port(&source) } else { None };
        for port in beside.into_iter().chain(own) {
            let free = bounds.ports.contains(&port) && self.nat.eim.used_ports.is_free(&place, port);
            if free && self.nat.eim.used_ports.has_room(&place) && !self.used_tuple(&at(port), wanted) {
                return (at(port), true);
            }
        }
        let wishes: &[PortConstraint] = match (self.nat.eim.policy.parity, present.source_key) {
            (false, _) => &[PortConstraint::Any],
            (true, port) if port % 2 == 0 => {
                &[PortConstraint::Pair, PortConstraint::SameParity(0), PortConstraint::Any]
            }
            (true, _) => &[PortConstraint::SameParity(1), PortConstraint::Any],
        };
        for wish in wishes {
            // A remainder of a port is one.
            let mut from = first.wrapping_add((usize::from(self.nat.random_u16()) % bounds.ports.len()) as u16);
            for _ in 0..MAX_ATTEMPTS.min(bounds.ports.len()) {
                let Some(port) = self.nat.eim.used_ports.find_free(&place, &bounds.ports, from, *wish) else { break };
                if self.nat.eim.used_ports.has_room(&place) && !self.used_tuple(&at(port), wanted) {
                    return (at(port), true);
                }
                from = port.wrapping_add(1);
            }
        }
        (at(first), false)
    }
}

/// The inside source of a connection, and its outside port.
fn mapping_ends(original: &Tuple, reply: &Tuple, zone: Zone) -> Option<(BysourceKey, OutsidePort)> {
    let translated = reply.invert()?;
    let outside = OutsidePort {
        address: translated.source,
        port: translated.source_key,
        protocol: translated.protocol,
        zone: zone.id,
    };
    has_ports(outside.protocol).then(|| (BysourceKey::from_tuple(original, zone.id_for(Direction::Original)), outside))
}

const fn has_ports(number: u8) -> bool {
    use ipproto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
    matches!(number, TCP | UDP | UDPLITE | SCTP | ICMP | ICMPV6)
}

/// Ports of the same class as the present one's.
fn port_class(present: &Tuple) -> RangeInclusive<u16> {
    match (present.protocol, present.source_key) {
        (ipproto::ICMP | ipproto::ICMPV6, _) => 0..=u16::MAX,
        (_, 0..=511) => 1..=511,
        (_, 512..=1023) => 600..=1023,
        _ => 1024..=u16::MAX,
    }
}

#[cfg(test)]
mod tests;
