//! Translation of sources beyond Linux's, by explicit choice: mappings that do not depend on the peer (RFC 4787, RFC 5382, RFC 5508), blocks of ports, arithmetic.
//!
//! A mapping lends one outside port to one inside source, whomever that talks to; it begins when the first of its connections is confirmed and ends with the last,
//! so that there are never more mappings than connections. Nothing here is asked, and nothing kept, as long as [`Mapping`] is the default: Linux's own way.
use super::blocks::{BlockChange, Blocks, Subscriber};
use super::choose::{Cause, Wanted};
use super::deterministic::Deterministic;
use super::ports::{Place, Ports, Wish};
use super::range::{Choice, Manip, Range};
use super::sources::Source;
use crate::tuple::protocol;
use crate::{Direction, Engine, Instant, Status, Tuple, Zone};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use hashbrown::HashMap;

/// What translations of sources do beyond what rules say. The default is Linux's own behaviour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Which outside port a source's next connection gets.
    pub behaviour: Behaviour,
    /// Who may answer to such a port. More than the peers of its connections only with [`Behaviour::EndpointIndependent`].
    pub filtering: Filtering,
    /// Even ports become even ones, and what is above an even one is kept free for its neighbour as long as there are others (RFC 4787, 4.2.2 and 4.2.3);
    /// with [`Behaviour::EndpointIndependent`].
    pub parity: bool,
    /// So many ports in a row for each inside address, and no others.
    pub block: Option<u16>,
    /// Inside addresses whose outside address and ports are arithmetic, whatever addresses the rule that translates them names.
    pub deterministic: Vec<Deterministic>,
}

/// Which outside port the next connection of the same inside address and port gets (RFC 4787, 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// The same if it is free towards that peer; else another. A port serves several sources as long as their peers differ.
    #[default]
    PerConnection,
    /// The same towards every peer; and nobody else's as long as it has connections.
    EndpointIndependent,
}

/// From whom a new connection is let in to a mapped port (RFC 4787, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filtering {
    /// From nobody: what comes must belong to a connection.
    #[default]
    PerConnection,
    /// From every port of an address that the mapped source has a connection to.
    AddressDependent,
    /// From everybody.
    EndpointIndependent,
}

impl Mapping {
    fn is_linux(&self) -> bool {
        self.behaviour == Behaviour::PerConnection && self.block.is_none() && self.deterministic.is_empty()
    }
}

/// One mapped port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outside {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: u8,
    pub(super) zone: u16,
}

/// All mappings.
#[derive(Default)]
pub(crate) struct Mappings {
    pub(super) asked: Mapping,
    in_use: bool,
    ports: Ports,
    /// With the number of connections of each.
    by_inside: HashMap<Source, Vec<(Outside, u32)>>,
    pub(super) by_outside: HashMap<Outside, Source>,
    pub(super) blocks: Blocks,
}

/// Where a translation may go.
struct Bounds {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

/// Ports tried that are free of mappings, but may be taken by connections without one.
const MOST_TRIES: usize = 128;

impl Mappings {
    fn new(asked: Mapping) -> Mappings {
        Mappings { in_use: !asked.is_linux(), blocks: Blocks::new(asked.block), asked, ..Mappings::default() }
    }

    pub(super) fn in_use(&self) -> bool {
        self.in_use
    }

    pub(super) fn independent(&self) -> bool {
        self.asked.behaviour == Behaviour::EndpointIndependent
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_inside.is_empty() && self.by_outside.is_empty() && self.ports.is_empty() && self.blocks.is_empty()
    }

    fn arithmetic(&self, inside: IpAddr) -> Option<(IpAddr, RangeInclusive<u16>)> {
        self.asked.deterministic.iter().find_map(|mapping| mapping.of(inside))
    }

    /// The mapped ports of a source.
    fn of(&self, source: &Source) -> impl Iterator<Item = Outside> + '_ {
        self.by_inside.get(source).into_iter().flatten().map(|(outside, _)| *outside)
    }

    fn enter(&mut self, inside: Source, outside: Outside, now: Instant) {
        if self.arithmetic(inside.address).is_none() {
            self.blocks.enter((inside.address, inside.zone), outside.address, outside.port, now);
        }
        if !self.independent() {
            return;
        }
        let mapped = self.by_inside.entry(inside).or_default();
        if let Some((_, connections)) = mapped.iter_mut().find(|(known, _)| *known == outside) {
            *connections += 1;
        } else if self.ports.take(outside.place(), outside.port) {
            mapped.push((outside, 1));
            self.by_outside.insert(outside, inside);
        } else if mapped.is_empty() {
            self.by_inside.remove(&inside);
        }
    }

    fn leave(&mut self, inside: Source, outside: Outside, now: Instant) {
        self.blocks.leave((inside.address, inside.zone), outside.address, outside.port, now);
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
        self.ports.give_back(&outside.place(), outside.port);
    }

    /// The outside ports that neighbours of `source` leave to it: an RTP's RTCP is one above (RFC 3550, 11).
    fn beside(&self, source: &Source) -> Option<u16> {
        let (neighbour, up) =
            if source.key.is_multiple_of(2) { (source.key + 1, false) } else { (source.key - 1, true) };
        let port = self.of(&Source { key: neighbour, ..*source }).next()?.port;
        let fits = port % 2 == neighbour % 2;
        fits.then(|| if up { port.wrapping_add(1) } else { port.wrapping_sub(1) })
    }
}

impl Outside {
    const fn place(&self) -> Place {
        (self.address, self.protocol, self.zone)
    }
}

impl Engine {
    /// Has sources translated beyond what Linux does, from now on. Connections that are known keep what they have.
    pub fn set_mapping(&mut self, mapping: Mapping, now: Instant) {
        self.nat.mappings = Mappings::new(mapping);
        let slots: Vec<u32> = self.table.slots().collect();
        for slot in slots {
            self.remember_mapping(slot, now);
        }
    }

    /// A connection is here that did not begin here, or not under this mapping.
    pub(crate) fn remember_mapping(&mut self, slot: u32, now: Instant) {
        if self.nat.mappings.in_use
            && let Some((original, reply, zone)) = self.mapped(slot)
        {
            self.enter_mapping(&original, &reply, zone, now);
        }
    }

    /// How sources are translated beyond what Linux does.
    pub fn mapping(&self) -> &Mapping {
        &self.nat.mappings.asked
    }

    /// The next block of ports that was taken or given back.
    pub fn poll_block(&mut self) -> Option<BlockChange> {
        self.nat.mappings.blocks.take_change()
    }

    /// Changes of blocks that nobody asked for in time.
    pub fn blocks_lost(&self) -> u64 {
        self.nat.mappings.blocks.lost()
    }

    /// The tuples and zone of a connection whose source is translated.
    pub(super) fn mapped(&self, slot: u32) -> Option<(Tuple, Tuple, Zone)> {
        let records = &self.table.records;
        let translated = records.hot(slot)?.status().has(Status::SRC_NAT);
        let key = |direction| records.key(crate::table::Reference::new(slot, direction)).map(|key| key.tuple());
        translated.then_some((key(Direction::Original)?, key(Direction::Reply)?, records.zone(slot)))
    }

    /// A connection whose source is translated was entered.
    pub(super) fn enter_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = both_ends(original, reply, zone) {
            self.nat.mappings.enter(inside, outside, now);
        }
    }

    /// It has ended.
    pub(super) fn leave_mapping(&mut self, original: &Tuple, reply: &Tuple, zone: Zone, now: Instant) {
        if let Some((inside, outside)) = both_ends(original, reply, zone) {
            self.nat.mappings.leave(inside, outside, now);
        }
    }

    /// The tuple that was asked for beyond Linux, and whether it is free; `None` where Linux's way is to be gone.
    pub(super) fn choose_mapped(&mut self, wanted: &Wanted<'_>) -> Option<(Tuple, bool)> {
        let Wanted { present, manip, range, .. } = wanted;
        let same =
            range.addresses.as_ref().is_none_or(|all| (*all.start(), *all.end()) == (present.source, present.source));
        let by_rule = *manip == Manip::Source && wanted.cause == Cause::Rule;
        if !self.nat.mappings.in_use || !by_rule || same || range.prefix || !has_ports(present.protocol) {
            return None;
        }
        let Some(bounds) = self.bounds(wanted) else {
            // Every block is somebody's.
            let address = range.addresses.as_ref().map_or(present.source, |addresses| *addresses.start());
            return Some((Tuple { source: address, ..*present }, false));
        };
        if self.nat.mappings.independent() {
            return Some(self.choose_independent(&bounds, wanted));
        }
        let narrowed = Range { ports: Some(bounds.ports), choice: range.choice, ..Range::to(bounds.address) };
        let narrowed = match (self.nat.mappings.blocks.in_use(), self.nat.mappings.arithmetic(present.source)) {
            (false, None) => return None,
            _ => narrowed,
        };
        Some(self.choose_plainly(&Wanted { range: &narrowed, ..*wanted }))
    }

    /// The address and ports that a subscriber may use. `None` if there is no block left for him.
    fn bounds(&self, wanted: &Wanted<'_>) -> Option<Bounds> {
        let Wanted { present, range, zone, .. } = wanted;
        let mappings = &self.nat.mappings;
        if let Some((address, ports)) = mappings.arithmetic(present.source) {
            return Some(Bounds { address, ports });
        }
        let subscriber: Subscriber = (present.source, zone.of(Direction::Original));
        let held = mappings.blocks.held(&subscriber, range);
        if let Some((address, Some(ports))) = held {
            return Some(Bounds { address, ports });
        }
        let address = held.map(|(address, _)| address).unwrap_or_else(|| {
            let persistent = Range { persistent: true, ..(*range).clone() };
            let mut tuple = *present;
            self.choose_address(&mut tuple, &Wanted { range: &persistent, ..*wanted });
            tuple.source
        });
        if mappings.blocks.in_use() {
            let (address, ports) = mappings.blocks.free(address, subscriber.1, range)?;
            return Some(Bounds { address, ports });
        }
        let ports = range.ports.clone().unwrap_or_else(|| class(present));
        Some(Bounds { address, ports: *ports.start().min(ports.end())..=*ports.start().max(ports.end()) })
    }

    /// The source's own mapping, or a port that nobody has.
    fn choose_independent(&mut self, bounds: &Bounds, wanted: &Wanted<'_>) -> (Tuple, bool) {
        let Wanted { present, range, zone, .. } = wanted;
        let source = Source::of(present, zone.of(Direction::Original));
        let at = |port| Tuple { source: bounds.address, source_key: port, ..*present };
        let fits = |outside: &Outside| outside.address == bounds.address && bounds.ports.contains(&outside.port);
        let known = self.nat.mappings.of(&source).find(fits);
        if let Some(tuple) = known.map(|outside| at(outside.port))
            && !self.used(&tuple, wanted)
        {
            return (tuple, true);
        }
        let (place, first) = ((bounds.address, present.protocol, zone.id), *bounds.ports.start());
        let own = if range.choice == Choice::Random { None } else { Some(present.source_key) };
        let beside = if self.nat.mappings.asked.parity { self.nat.mappings.beside(&source) } else { None };
        for port in beside.into_iter().chain(own) {
            let free = bounds.ports.contains(&port) && self.nat.mappings.ports.is_free(&place, port);
            if free && self.nat.mappings.ports.has_room(&place) && !self.used(&at(port), wanted) {
                return (at(port), true);
            }
        }
        let wishes: &[Wish] = match (self.nat.mappings.asked.parity, present.source_key) {
            (false, _) => &[Wish::Any],
            (true, port) if port % 2 == 0 => &[Wish::Pair, Wish::Parity(0), Wish::Any],
            (true, _) => &[Wish::Parity(1), Wish::Any],
        };
        for wish in wishes {
            // A remainder of a port is one.
            let mut from = first.wrapping_add((usize::from(self.nat.draw()) % bounds.ports.len()) as u16);
            for _ in 0..MOST_TRIES.min(bounds.ports.len()) {
                let Some(port) = self.nat.mappings.ports.find(&place, &bounds.ports, from, *wish) else { break };
                if self.nat.mappings.ports.has_room(&place) && !self.used(&at(port), wanted) {
                    return (at(port), true);
                }
                from = port.wrapping_add(1);
            }
        }
        (at(first), false)
    }
}

/// The inside source of a connection, and its outside port.
fn both_ends(original: &Tuple, reply: &Tuple, zone: Zone) -> Option<(Source, Outside)> {
    let translated = reply.invert()?;
    let outside = Outside {
        address: translated.source,
        port: translated.source_key,
        protocol: translated.protocol,
        zone: zone.id,
    };
    has_ports(outside.protocol).then(|| (Source::of(original, zone.of(Direction::Original)), outside))
}

const fn has_ports(number: u8) -> bool {
    use protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
    matches!(number, TCP | UDP | UDPLITE | SCTP | ICMP | ICMPV6)
}

/// Ports of the same class as the present one's.
fn class(present: &Tuple) -> RangeInclusive<u16> {
    match (present.protocol, present.source_key) {
        (protocol::ICMP | protocol::ICMPV6, _) => 0..=u16::MAX,
        (_, 0..=511) => 1..=511,
        (_, 512..=1023) => 600..=1023,
        _ => 1024..=u16::MAX,
    }
}

#[cfg(test)]
mod tests;
