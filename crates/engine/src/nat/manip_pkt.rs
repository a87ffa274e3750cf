//! The changes to one packet, derived from its connection's tuples; nothing is decided here.
use super::range::Manip;
use crate::{Direction, Status, Tuple};
use core::net::IpAddr;
use keepstate_types::ipproto;
use keepstate_wire::rewrite::PacketMut;

/// A change of one end of a packet. It is small, and valid for every packet of the connection in this direction as long as the connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatRewrite(Option<ManipPkt>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ManipPkt {
    manip: Manip,
    address: IpAddr,
    key: u16,
    /// The connection's protocol: that of the packet, or of the packet inside an ICMP error.
    protocol: u8,
    /// The packet is an ICMP error: the packet inside it is changed at its other end.
    icmp_error: bool,
}

/// The change for a packet in `direction`; `opposite` is the tuple of the other direction.
pub(super) fn nat_rewrite(
    status: Status,
    opposite: &Tuple,
    direction: Direction,
    manip: Manip,
    about: bool,
) -> NatRewrite {
    // A change at the source in the original direction is undone at the destination in the reply direction.
    let of_original = match direction {
        Direction::Original => manip,
        Direction::Reply => manip.opposite(),
    };
    let (changed, _) = super::range::nat_status_bits(of_original);
    if !status.contains(changed) {
        return NatRewrite::NONE;
    }
    // The changed packet is the inverse of the other direction's tuple.
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

    /// Applies the change to the packet, and to every checksum that covers it. False, with nothing changed, if the packet cannot be parsed
    /// or has another address family: such a packet must not be sent.
    pub fn apply(&self, datagram: &mut [u8]) -> bool {
        self.0.is_none() || PacketMut::new(datagram).is_ok_and(|mut rewrite| self.apply_to(&mut rewrite))
    }

    /// Like [`NatRewrite::apply`], for a packet that is already open for rewriting.
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
        // The packet inside an ICMP error may end before its ports, and a later fragment has none: then there is nothing more to change.
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
