//! Inbound filtering for mapped ports (RFC 4787, 5 and 6): who may open a connection to one: nobody, the addresses its source talks to, or everybody; inside hosts always may.
//!
//! An accepted connection is translated to the mapped source and is RELATED, so that rulesets accept it together with expected connections. This runs only if no rule has
//! translated the packet.
use super::NatResult;
use super::eim_table::{FilteringBehaviour, OutsidePort};
use super::range::{Manip, NatRange};
use crate::table::TupleRef;
use crate::{CtInfo, Direction, Engine, Instant, PacketCtx, Status, Tuple, Zone};
use core::net::IpAddr;
use keepstate_types::ipproto;

/// Maximum number of a source's connections searched for one to a given address.
const MAX_PEERS_CHECKED: usize = 1024;

impl Engine {
    /// Accepts a connection to a mapped port, as RELATED; translates the source of a hairpinned one to its own outside address.
    pub(super) fn translate_by_mapping(
        &mut self,
        ctx: &mut PacketCtx,
        present: &Tuple,
        manip: Manip,
        now: Instant,
    ) -> Option<NatResult> {
        let fresh = ctx.unconfirmed()?;
        if fresh.is_nat_initialized(manip) {
            return None;
        }
        let range = match manip {
            Manip::Destination => {
                let (address, port) = self.filter_inbound(present, fresh.zone)?;
                fresh.status |= Status::EXPECTED;
                ctx.outcome.info = CtInfo::Related;
                NatRange::to_port(address, port)
            }
            Manip::Source if !fresh.status.contains(Status::DST_NAT) => return None,
            Manip::Source => NatRange::to(self.hairpin_source(&fresh.original(), fresh.zone)?),
        };
        Some(self.translate(ctx, manip, &range, now))
    }

    /// The inside address and port of a new connection to a mapped port, if the filter accepts it.
    fn filter_inbound(&self, present: &Tuple, zone: Zone) -> Option<(IpAddr, u16)> {
        let mappings = &self.nat.eim;
        let Tuple { destination: address, destination_key: port, protocol, .. } = *present;
        if !mappings.is_endpoint_independent() || matches!(protocol, ipproto::ICMP | ipproto::ICMPV6) {
            return None;
        }
        let inside = mappings.by_outside.get(&OutsidePort { address, port, protocol, zone: zone.id })?;
        // An inside host may always use another's outside port, whatever the filter (RFC 4787, REQ-9).
        let neighbour =
            mappings.port_blocks.first_address(&(present.source, zone.id_for(Direction::Original))).is_some();
        let wanted = match mappings.policy.filtering {
            _ if neighbour => true,
            FilteringBehaviour::AddressAndPortDependent => false,
            FilteringBehaviour::EndpointIndependent => true,
            FilteringBehaviour::AddressDependent => {
                self.nat.bysource.connections(&inside.into(), &self.table.records).take(MAX_PEERS_CHECKED).any(|slot| {
                    let peer = self.table.records.key(TupleRef::new(slot, Direction::Original));
                    peer.is_some_and(|peer| peer.tuple().destination == present.source)
                })
            }
        };
        wanted.then_some((inside.address, inside.key))
    }

    /// Hairpinning: the outside address of an inside source that sends to another's outside port.
    fn hairpin_source(&self, original: &Tuple, zone: Zone) -> Option<IpAddr> {
        let Tuple { destination: address, destination_key: port, protocol, .. } = *original;
        let called = OutsidePort { address, port, protocol, zone: zone.id };
        let mappings = &self.nat.eim;
        mappings.by_outside.contains_key(&called).then_some(())?;
        mappings.port_blocks.first_address(&(original.source, zone.id_for(Direction::Original)))
    }
}
