//! Who may begin a connection to a mapped port (RFC 4787, 5 and 6): nobody, the addresses that its source talks to, everybody; and always those within.
//!
//! What is let in is translated to the mapped source and RELATED, so that rulesets let it pass with what else was waited for. Asked only where no rule has
//! translated the packet.
use super::Translated;
use super::mapping::{Filtering, Outside};
use super::range::{Manip, Range};
use crate::table::Reference;
use crate::tuple::protocol;
use crate::{Direction, Engine, Info, Instant, Passage, Status, Tuple, Zone};
use core::net::IpAddr;

/// Connections of a source that are looked at for one to an address.
const MOST_PEERS: usize = 1024;

impl Engine {
    /// A connection to a mapped port is let in, as one that was waited for; one from the inside leaves by its own mapped port.
    pub(super) fn by_mapping(
        &mut self,
        passage: &mut Passage,
        present: &Tuple,
        manip: Manip,
        now: Instant,
    ) -> Option<Translated> {
        let fresh = passage.unconfirmed()?;
        if fresh.is_decided(manip) {
            return None;
        }
        let range = match manip {
            Manip::Destination => {
                let (address, port) = self.let_in(present, fresh.zone)?;
                fresh.status |= Status::EXPECTED;
                passage.outcome.info = Info::Related;
                Range::to_port(address, port)
            }
            Manip::Source if !fresh.status.has(Status::DST_NAT) => return None,
            Manip::Source => Range::to(self.meets_as(&fresh.original(), fresh.zone)?),
        };
        Some(self.translate(passage, manip, &range, now))
    }

    /// The inside end that a new connection to a mapped port is for, if it is to be let in.
    fn let_in(&self, present: &Tuple, zone: Zone) -> Option<(IpAddr, u16)> {
        let mappings = &self.nat.mappings;
        let Tuple { destination: address, destination_key: port, protocol, .. } = *present;
        if !mappings.independent() || matches!(protocol, protocol::ICMP | protocol::ICMPV6) {
            return None;
        }
        let inside = mappings.by_outside.get(&Outside { address, port, protocol, zone: zone.id })?;
        // Who is inside himself comes in by the other's outside port, whoever else may (RFC 4787, REQ-9).
        let neighbour = mappings.blocks.address(&(present.source, zone.of(Direction::Original))).is_some();
        let wanted = match mappings.asked.filtering {
            _ if neighbour => true,
            Filtering::PerConnection => false,
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self.nat.sources.of(inside).take(MOST_PEERS).any(|slot| {
                let peer = self.table.records.key(Reference::new(slot, Direction::Original));
                peer.is_some_and(|peer| peer.tuple().destination == present.source)
            }),
        };
        wanted.then_some((inside.address, inside.key))
    }

    /// The outside address under which an inside source meets another that it has called by its outside port.
    fn meets_as(&self, original: &Tuple, zone: Zone) -> Option<IpAddr> {
        let Tuple { destination: address, destination_key: port, protocol, .. } = *original;
        let called = Outside { address, port, protocol, zone: zone.id };
        let mappings = &self.nat.mappings;
        mappings.by_outside.contains_key(&called).then_some(())?;
        mappings.blocks.address(&(original.source, zone.of(Direction::Original)))
    }
}
