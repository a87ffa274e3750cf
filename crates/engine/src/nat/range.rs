//! What a rule allows a translation to choose from.
use crate::{Status, Tuple};
use core::net::IpAddr;
use core::ops::RangeInclusive;
use keepstate_types::ipproto;

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Manip {
    /// The source: snat, masquerade; decided where packets leave.
    Source,
    /// The destination: dnat, redirect; decided where packets come in.
    Destination,
}

impl Manip {
    /// The other end.
    pub const fn opposite(self) -> Manip {
        match self {
            Manip::Source => Manip::Destination,
            Manip::Destination => Manip::Source,
        }
    }
}

/// How a port is chosen where more than one is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortSelection {
    /// The packet's own if that is free; else the first free one, from a random place on for a source.
    #[default]
    PreferOriginal,
    /// Always a new one, from a random place on: `random` and `fully-random`, which are one since Linux 5.0.
    Random,
    /// As far above the range's beginning as the packet's port is above this one: port forwarding of whole ranges.
    Offset(u16),
}

/// Addresses and ports that a translation may choose from. The default allows the packet's own address, and any port of its class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// Addresses, all of the packet's family; `None` keeps the packet's.
    pub addresses: Option<RangeInclusive<IpAddr>>,
    /// Ports, or ICMP ids; `None` is any of the same class: below 512, below 1024, or above.
    pub ports: Option<RangeInclusive<u16>>,
    /// How a port is chosen.
    pub port_selection: PortSelection,
    /// The same client gets the same address of several, whatever its peer.
    pub persistent: bool,
    /// `addresses` are a prefix: only the bits that all of them share are replaced.
    pub prefix: bool,
}

impl NatRange {
    /// One address, and any port.
    pub fn to(address: IpAddr) -> NatRange {
        NatRange { addresses: Some(address..=address), ..NatRange::default() }
    }

    /// One address and one port.
    pub fn to_port(address: IpAddr, port: u16) -> NatRange {
        NatRange { ports: Some(port..=port), ..NatRange::to(address) }
    }

    /// Does the end `manip` of `tuple` lie in it?
    pub(super) fn contains(&self, tuple: &Tuple, manip: Manip) -> bool {
        let address = end_address(tuple, manip);
        self.addresses.as_ref().is_none_or(|addresses| addresses.contains(&address)) && self.contains_port(tuple, manip)
    }

    pub(super) fn contains_port(&self, tuple: &Tuple, manip: Manip) -> bool {
        let Some(ports) = &self.ports else { return true };
        match tuple.protocol {
            ipproto::ICMP | ipproto::ICMPV6 => ports.contains(&tuple.source_key),
            ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP | ipproto::GRE => {
                ports.contains(&end_key(tuple, manip))
            }
            _ => true,
        }
    }
}

/// The address of one end.
pub(super) fn end_address(tuple: &Tuple, manip: Manip) -> IpAddr {
    match manip {
        Manip::Source => tuple.source,
        Manip::Destination => tuple.destination,
    }
}

/// The key of one end; ICMP has but one.
pub(super) fn end_key(tuple: &Tuple, manip: Manip) -> u16 {
    match (tuple.protocol, manip) {
        (ipproto::ICMP | ipproto::ICMPV6, _) | (_, Manip::Source) => tuple.source_key,
        (_, Manip::Destination) => tuple.destination_key,
    }
}

/// The key of one end, to be changed.
pub(super) fn end_key_mut(tuple: &mut Tuple, manip: Manip) -> &mut u16 {
    match (tuple.protocol, manip) {
        (ipproto::ICMP | ipproto::ICMPV6, _) | (_, Manip::Source) => &mut tuple.source_key,
        (_, Manip::Destination) => &mut tuple.destination_key,
    }
}

/// Translated; decided.
pub(super) fn nat_status_bits(manip: Manip) -> (Status, Status) {
    match manip {
        Manip::Source => (Status::SRC_NAT, Status::SRC_NAT_DONE),
        Manip::Destination => (Status::DST_NAT, Status::DST_NAT_DONE),
    }
}
