//! The addresses and ports that a NAT rule allows, and how one of them is selected.
use crate::{Status, Tuple};
use core::net::IpAddr;
use core::ops::RangeInclusive;
use keepstate_types::ipproto;

/// Which end of a connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Manip {
    /// The source: snat and masquerade, in postrouting.
    Source,
    /// The destination: dnat and redirect, in prerouting.
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

/// How a port is selected when several are allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PortSelection {
    /// The packet's own port if it is free; otherwise the first free one. For a source the search starts at a random port.
    #[default]
    PreferOriginal,
    /// Always a new port, starting at a random one: `random` and `fully-random`, which are the same since Linux 5.0.
    Random,
    /// The range's first port plus the difference between the packet's port and this one: port forwarding of whole ranges.
    Offset(u16),
}

/// Addresses and ports that a translation may select. The default allows the packet's own address, and any port of the same class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NatRange {
    /// Addresses, all of the packet's family; `None` keeps the packet's address.
    pub addresses: Option<RangeInclusive<IpAddr>>,
    /// Ports or ICMP ids; `None` allows any of the same class: below 512, below 1024, or above.
    pub ports: Option<RangeInclusive<u16>>,
    /// How a port is selected.
    pub port_selection: PortSelection,
    /// A client always gets the same address of several, whatever its peer.
    pub persistent: bool,
    /// The address is the interface's of that moment (masquerade): the connection ends with it, see [`Engine::end_masqueraded`](crate::Engine::end_masqueraded).
    pub masquerade: bool,
    /// `addresses` is a prefix: only the bits that all its addresses share are replaced.
    pub prefix: bool,
}

impl NatRange {
    /// One address, any port.
    pub fn to(address: IpAddr) -> NatRange {
        NatRange { addresses: Some(address..=address), ..NatRange::default() }
    }

    /// One address, that of the interface at this moment; any port.
    pub fn masquerade(address: IpAddr) -> NatRange {
        NatRange { masquerade: true, ..NatRange::to(address) }
    }

    /// One address and one port.
    pub fn to_port(address: IpAddr, port: u16) -> NatRange {
        NatRange { ports: Some(port..=port), ..NatRange::to(address) }
    }

    /// Does the end `manip` of `tuple` lie in the range?
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

/// The key of one end; ICMP has only one key.
pub(super) fn end_key(tuple: &Tuple, manip: Manip) -> u16 {
    match (tuple.protocol, manip) {
        (ipproto::ICMP | ipproto::ICMPV6, _) | (_, Manip::Source) => tuple.source_key,
        (_, Manip::Destination) => tuple.destination_key,
    }
}

/// The key of one end, mutable.
pub(super) fn end_key_mut(tuple: &mut Tuple, manip: Manip) -> &mut u16 {
    match (tuple.protocol, manip) {
        (ipproto::ICMP | ipproto::ICMPV6, _) | (_, Manip::Source) => &mut tuple.source_key,
        (_, Manip::Destination) => &mut tuple.destination_key,
    }
}

/// The status bits of one end: translated, and NAT initialized.
pub(super) fn nat_status_bits(manip: Manip) -> (Status, Status) {
    match manip {
        Manip::Source => (Status::SRC_NAT, Status::SRC_NAT_DONE),
        Manip::Destination => (Status::DST_NAT, Status::DST_NAT_DONE),
    }
}
