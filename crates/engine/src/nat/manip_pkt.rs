//! What to change in one packet: read off its connection's tuples, never decided.
use super::range::Manip;
use crate::{Direction, Status, Tuple};
use core::net::IpAddr;
use keepstate_types::ipproto;
use keepstate_wire::rewrite::PacketMut;

/// A change of one end of a packet: small, and good for every packet of the connection in this direction as long as the connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRewrite(Option<ManipPkt>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ManipPkt {
    manip: Manip,
    address: IpAddr,
    key: u16,
    /// The connection's protocol, which the packet has, or the one that an ICMP error quotes.
    protocol: u8,
    /// The packet is an ICMP error: what it quotes is changed at its other end.
    icmp_error: bool,
}

/// What the connection's tuples say for a packet that travels in `direction`; `opposite` is the tuple of the other direction.
pub(super) fn nat_rewrite(
    status: Status,
    opposite: &Tuple,
    direction: Direction,
    manip: Manip,
    about: bool,
) -> NatRewrite {
    // What the original direction has changed at its source, the reply direction changes back at its destination.
    let of_original = match direction {
        Direction::Original => manip,
        Direction::Reply => manip.opposite(),
    };
    let (changed, _) = super::range::nat_status_bits(of_original);
    if !status.contains(changed) {
        return NatRewrite::NONE;
    }
    // The packet is to look like what the other direction's tuple answers.
    let (address, key) = match (manip, opposite.protocol) {
        (Manip::Source, ipproto::ICMP | ipproto::ICMPV6) => (opposite.destination, opposite.source_key),
        (Manip::Source, _) => (opposite.destination, opposite.destination_key),
        (Manip::Destination, _) => (opposite.source, opposite.source_key),
    };
    NatRewrite(Some(ManipPkt { manip, address, key, protocol: opposite.protocol, icmp_error: about }))
}

impl NatRewrite {
    /// Nothing to change.
    pub const NONE: NatRewrite = NatRewrite(None);

    /// Is there nothing to change?
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Changes the packet, and every checksum that covers what is changed. False, and nothing is changed, where the packet cannot be read
    /// (or is not of the connection's family): such a packet must not be sent on.
    pub fn apply(&self, datagram: &mut [u8]) -> bool {
        self.0.is_none() || PacketMut::new(datagram).is_ok_and(|mut rewrite| self.apply_to(&mut rewrite))
    }

    /// As [`NatRewrite::apply`], for a packet that is being changed already.
    pub fn apply_to(&self, rewrite: &mut PacketMut<'_>) -> bool {
        let Some(edit) = &self.0 else { return true };
        if edit.icmp_error {
            let mut inside = false;
            let outside = rewrite.edit_icmp_inner(|quote| inside = edit.manip_pkt(quote, edit.manip.opposite()));
            return outside && inside && edit.manip_address(rewrite, edit.manip);
        }
        edit.manip_pkt(rewrite, edit.manip)
    }
}

impl ManipPkt {
    fn manip_pkt(&self, rewrite: &mut PacketMut<'_>, manip: Manip) -> bool {
        if !self.manip_address(rewrite, manip) {
            return false;
        }
        // A quote may end before its ports, and a later fragment has none: then there is nothing more to change.
        match (self.protocol, manip) {
            (ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP, Manip::Source) => {
                rewrite.set_source_port(self.key);
            }
            (ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP, Manip::Destination) => {
                rewrite.set_destination_port(self.key);
            }
            (ipproto::ICMP | ipproto::ICMPV6, _) => {
                rewrite.set_icmp_id(self.key);
            }
            (ipproto::GRE, Manip::Destination) => {
                rewrite.set_gre_call_id(self.key);
            }
            _ => (),
        }
        true
    }

    fn manip_address(&self, rewrite: &mut PacketMut<'_>, manip: Manip) -> bool {
        match manip {
            Manip::Source => rewrite.set_source(self.address),
            Manip::Destination => rewrite.set_destination(self.address),
        }
    }
}
