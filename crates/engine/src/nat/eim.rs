//! Source NAT beyond Linux's, enabled explicitly: endpoint-independent mapping (RFC 4787, RFC 5382, RFC 5508), port blocks, deterministic NAT.
//!
//! A mapping assigns one outside port to one inside source, whatever its peers. It is created when its first connection is confirmed and removed with its last,
//! so there are never more mappings than connections. While [`NatPolicy`] is the default (Linux's behaviour), nothing here runs and nothing is stored.
use super::eim_table::{InsideSource, NatPolicy, OutsidePort};
use super::port_bitmap::PortConstraint;
use super::port_block::{PortBlockEvent, Subscriber};
use super::port_part::PortPart;
use super::range::{Manip, NatRange, PortSelection};
use super::unique_tuple::{NatBinding, NatRequest, has_ports};
use crate::{Direction, Engine, Instant, Status, Tuple, Zone};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use keepstate_types::ipproto;

/// The address and ports a translation may select.
struct AllowedPorts {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

/// Maximum number of ports tried that have no mapping but may be in use by connections without one.
const MAX_ATTEMPTS: usize = 128;

impl Engine {
    /// Sets the source NAT policy. Known connections keep their translation.
    pub fn set_nat_policy(&mut self, mapping: NatPolicy, now: Instant) {
        self.nat.eim = self.nat.eim.with_policy(mapping);
        let slots: Vec<u32> = self.table.used_slots().collect();
        for slot in slots {
            self.restore_mapping(slot, now);
        }
    }

    /// Adds the mapping of a connection that was imported, or that was created under another policy.
    pub(crate) fn restore_mapping(&mut self, slot: u32, now: Instant) {
        if self.nat.eim.in_use
            && let Some((original, reply, zone)) = self.snat_tuples(slot)
        {
            self.insert_mapping(&original, &reply, zone, now);
        }
    }

    /// The source NAT policy.
    pub fn nat_policy(&self) -> &NatPolicy {
        &self.nat.eim.policy
    }

    /// The next port block event: a block was allocated or released.
    pub fn poll_port_block(&mut self) -> Option<PortBlockEvent> {
        self.nat.eim.port_blocks.pop_event()
    }

    /// From now on, until it is set again: are the changes of the table those that another node has decided and told? Their connection events are marked so, and of port blocks there are none:
    /// whoever has decided has both in its logs.
    pub fn set_replicated(&mut self, is_replicated: bool) {
        self.events.is_replicated = is_replicated;
        self.nat.eim.port_blocks.set_replicated(is_replicated);
    }

    /// Number of port block events lost because the queue was full.
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

    /// Adds a connection whose source is translated.
    pub(super) fn insert_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = mapping_ends(original, reply, zone) {
            self.nat.eim.add_connection(inside, outside, now);
        }
    }

    /// Removes a connection that has ended.
    pub(super) fn remove_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = mapping_ends(original, reply, zone) {
            self.nat.eim.remove_connection(inside, outside, now);
        }
    }

    /// The tuple that the policy selects, and whether it is free; `None` where Linux's selection applies.
    pub(super) fn unique_tuple_by_policy(&mut self, wanted: &NatRequest<'_>) -> Option<(Tuple, bool)> {
        let NatRequest { current: present, manip, range, .. } = wanted;
        let same =
            range.addresses.as_ref().is_none_or(|all| (*all.start(), *all.end()) == (present.source, present.source));
        let by_rule = *manip == Manip::Source && wanted.binding == NatBinding::Rule;
        if !self.nat.eim.in_use || !by_rule || same || range.prefix || !has_ports(present.protocol) {
            return None;
        }
        let Some(bounds) = self.allowed_ports(wanted) else {
            // No block is free.
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

    /// The address and ports that a subscriber may use. `None` if no block is left.
    fn allowed_ports(&self, wanted: &NatRequest<'_>) -> Option<AllowedPorts> {
        let NatRequest { current: present, range, zone, .. } = wanted;
        let mappings = &self.nat.eim;
        if let Some((address, ports)) = mappings.deterministic_mapping(present.source) {
            return Some(AllowedPorts { address, ports });
        }
        let subscriber: Subscriber = (present.source, zone.id_for(Direction::Original));
        let may_choose = |address: IpAddr| self.may_choose_address(address, wanted);
        let held = mappings.port_blocks.find_allocation(&subscriber, range, may_choose);
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
            let own = self.own_sources_for(wanted);
            let (address, ports) = mappings.port_blocks.find_free_block(address, subscriber.1, range, own)?;
            return Some(AllowedPorts { address, ports });
        }
        let ports = range.ports.clone().unwrap_or_else(|| port_class(present));
        Some(AllowedPorts { address, ports: *ports.start().min(ports.end())..=*ports.start().max(ports.end()) })
    }

    /// The source's existing mapping, or a port without a mapping.
    fn unique_tuple_eim(&mut self, bounds: &AllowedPorts, wanted: &NatRequest<'_>) -> (Tuple, bool) {
        let NatRequest { current: present, zone, .. } = wanted;
        let source = InsideSource::from_tuple(present, zone.id_for(Direction::Original));
        let at = |port| Tuple { source: bounds.address, source_key: port, ..*present };
        let fits = |outside: &OutsidePort| outside.address == bounds.address && bounds.ports.contains(&outside.port);
        let known = self.nat.eim.mappings_of(&source).find(fits);
        if let Some(tuple) = known.map(|outside| at(outside.port))
            && !self.used_tuple(&tuple, wanted)
        {
            return (tuple, true);
        }
        let part = self.port_part(wanted, bounds.address);
        let found = self.free_mapping(bounds, wanted, part).or_else(|| match part {
            Some(part) if !part.is_exclusive() => self.free_mapping(bounds, wanted, None),
            _ => None,
        });
        found.map_or((at(*bounds.ports.start()), false), |port| (at(port), true))
    }

    /// A port without a mapping, of `part` if there is one.
    fn free_mapping(&mut self, bounds: &AllowedPorts, wanted: &NatRequest<'_>, part: Option<PortPart>) -> Option<u16> {
        let NatRequest { current: present, range, zone, .. } = wanted;
        let source = InsideSource::from_tuple(present, zone.id_for(Direction::Original));
        let at = |port| Tuple { source: bounds.address, source_key: port, ..*present };
        let is_own = |port: u16| part.is_none_or(|part| part.contains(port));
        let (place, first) = ((bounds.address, present.protocol, zone.id), *bounds.ports.start());
        let own = if range.port_selection == PortSelection::Random { None } else { Some(present.source_key) };
        let beside = if self.nat.eim.policy.parity { self.nat.eim.rtp_pair_port(&source) } else { None };
        for port in beside.into_iter().chain(own).filter(|port| is_own(*port)) {
            let free = bounds.ports.contains(&port) && self.nat.eim.used_ports.is_free(&place, port);
            if free && self.nat.eim.used_ports.has_room(&place) && !self.used_tuple(&at(port), wanted) {
                return Some(port);
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
            // A remainder of a division by at most 65,536 fits a port.
            let mut from = first.wrapping_add((usize::from(self.nat.random_u16()) % bounds.ports.len()) as u16);
            let mut attempts = MAX_ATTEMPTS.min(bounds.ports.len());
            let mut steps = bounds.ports.len();
            while attempts > 0 && steps > 0 {
                let Some(port) = self.nat.eim.used_ports.find_free(&place, &bounds.ports, from, *wish) else { break };
                steps -= 1;
                from = port.wrapping_add(1);
                if !is_own(port) {
                    continue;
                }
                attempts -= 1;
                if self.nat.eim.used_ports.has_room(&place) && !self.used_tuple(&at(port), wanted) {
                    return Some(port);
                }
            }
        }
        None
    }
}

/// The inside source of a connection, and its outside port.
fn mapping_ends(original: &Tuple, reply: &Tuple, zone: Zone) -> Option<(InsideSource, OutsidePort)> {
    let translated = reply.invert()?;
    let outside = OutsidePort {
        address: translated.source,
        port: translated.source_key,
        protocol: translated.protocol,
        zone: zone.id,
    };
    has_ports(outside.protocol).then(|| (InsideSource::from_tuple(original, zone.id_for(Direction::Original)), outside))
}

/// The ports of the same class as the current one.
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
