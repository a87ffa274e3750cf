//! What to change in one packet: read off its connection's tuples, never decided.
use super::Manip;
use crate::tuple::protocol;
use crate::{Direction, Status, Tuple};
use core::net::IpAddr;
use keepstate_wire::edit::Rewrite;

/// A change of one end of a packet: small, and good for every packet of the connection in this direction as long as the connection lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits(Option<Edit>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    manip: Manip,
    address: IpAddr,
    key: u16,
    /// The connection's protocol, which the packet has, or the one that an ICMP error quotes.
    protocol: u8,
    /// The packet is an ICMP error: what it quotes is changed at its other end.
    about: bool,
}

/// What the connection's tuples say for a packet that travels in `direction`; `opposite` is the tuple of the other direction.
pub(super) fn edits(status: Status, opposite: &Tuple, direction: Direction, manip: Manip, about: bool) -> Edits {
    // What the original direction has changed at its source, the reply direction changes back at its destination.
    let of_original = match direction {
        Direction::Original => manip,
        Direction::Reply => manip.opposite(),
    };
    let (changed, _) = super::bits(of_original);
    if !status.has(changed) {
        return Edits::NONE;
    }
    // The packet is to look like what the other direction's tuple answers.
    let (address, key) = match (manip, opposite.protocol) {
        (Manip::Source, protocol::ICMP | protocol::ICMPV6) => (opposite.destination, opposite.source_key),
        (Manip::Source, _) => (opposite.destination, opposite.destination_key),
        (Manip::Destination, _) => (opposite.source, opposite.source_key),
    };
    Edits(Some(Edit { manip, address, key, protocol: opposite.protocol, about }))
}

impl Edits {
    /// Nothing to change.
    pub const NONE: Edits = Edits(None);

    /// Is there nothing to change?
    pub const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Changes the datagram, and every checksum that covers what is changed. False, and nothing is changed, where the datagram cannot be read
    /// (or is not of the connection's family): such a packet must not be sent on.
    pub fn apply(&self, datagram: &mut [u8]) -> bool {
        self.0.is_none() || Rewrite::new(datagram).is_ok_and(|mut rewrite| self.change(&mut rewrite))
    }

    /// As [`Edits::apply`], for a datagram that is being changed already.
    pub fn change(&self, rewrite: &mut Rewrite<'_>) -> bool {
        let Some(edit) = &self.0 else { return true };
        if edit.about {
            let mut inside = false;
            let outside = rewrite.quoted(|quote| inside = edit.change(quote, edit.manip.opposite()));
            return outside && inside && edit.change_address(rewrite, edit.manip);
        }
        edit.change(rewrite, edit.manip)
    }
}

impl Edit {
    fn change(&self, rewrite: &mut Rewrite<'_>, manip: Manip) -> bool {
        if !self.change_address(rewrite, manip) {
            return false;
        }
        // A quote may end before its ports, and a later fragment has none: then there is nothing more to change.
        match (self.protocol, manip) {
            (protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP, Manip::Source) => {
                rewrite.source_port(self.key);
            }
            (protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP, Manip::Destination) => {
                rewrite.destination_port(self.key);
            }
            (protocol::ICMP | protocol::ICMPV6, _) => {
                rewrite.icmp_id(self.key);
            }
            (protocol::GRE, Manip::Destination) => {
                rewrite.gre_call_id(self.key);
            }
            _ => (),
        }
        true
    }

    fn change_address(&self, rewrite: &mut Rewrite<'_>, manip: Manip) -> bool {
        match manip {
            Manip::Source => rewrite.source(self.address),
            Manip::Destination => rewrite.destination(self.address),
        }
    }
}
