//! Kinds of values: how wide each is, and what its constants are called.
//!
//! Every value is a number of at most 128 bits: an address by its bits, an interface by the letters of its name (the first letter highest), a time in seconds.
mod names;

use crate::tree::ObjectKind;
use names::{
    ADDRESS_TYPES, CT_STATES, CT_STATUS, DAYS, DCCP_TYPES, DSCP, ICMP_CODES, ICMP_TYPES, ICMP6_CODES, ICMP6_TYPES,
    IGMP_TYPES, MOBILITY_TYPES, PROTOCOLS, SERVICES, TCP_FLAGS,
};

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An IPv4 address.
    Address4,
    /// An IPv6 address.
    Address6,
    /// A transport protocol.
    Protocol,
    /// A port.
    Port,
    /// A mark of a packet or a connection.
    Mark,
    /// An interface's name.
    InterfaceName,
    /// An interface's index; written as a name, found when the ruleset is loaded.
    Interface,
    /// A plain number of so many bits.
    Number(u8),
    /// An ICMP type.
    IcmpType,
    /// An ICMPv6 type.
    Icmp6Type,
    /// An ICMP code.
    IcmpCode,
    /// An ICMPv6 code.
    Icmp6Code,
    /// A relation to the connection table; a set of bits.
    CtState,
    /// Status bits of a connection.
    CtStatus,
    /// A direction.
    CtDirection,
    /// Flags of TCP; a set of bits.
    TcpFlags,
    /// A differentiated services code point.
    Dscp,
    /// Explicit congestion notification.
    Ecn,
    /// A family: of addresses.
    Family,
    /// A link protocol.
    EtherType,
    /// Seconds.
    Time,
    /// A label of a connection, by its bit.
    Label,
    /// A helper's name.
    Helper,
    /// Unicast, broadcast, multicast, or our own.
    PacketType,
    /// What an address is here: local, unicast, ….
    AddressType,
    /// Is it there?
    Presence,
    /// An IGMP type.
    IgmpType,
    /// A packet type of DCCP.
    DccpType,
    /// A type of IPv6's mobility header.
    MobilityType,
    /// A class of a queueing discipline: major and minor number.
    Priority,
    /// A group of devices.
    DeviceGroup,
    /// Seconds since midnight.
    Hour,
    /// A day of the week, 0 is Sunday.
    Day,
    /// Nanoseconds since 1970, on the wall.
    Date,
    /// A named object, by its place.
    Object(ObjectKind),
}

impl Kind {
    /// How many bits its values have.
    pub const fn bits(self) -> u8 {
        match self {
            Kind::Address6 | Kind::InterfaceName | Kind::Label | Kind::Helper => 128,
            Kind::Address4 | Kind::Mark | Kind::Interface | Kind::CtState | Kind::CtStatus | Kind::Time => 32,
            Kind::Object(_) | Kind::AddressType | Kind::Priority | Kind::DeviceGroup | Kind::Hour => 32,
            Kind::Date => 64,
            Kind::Port | Kind::EtherType => 16,
            Kind::Protocol | Kind::IcmpType | Kind::Icmp6Type | Kind::IcmpCode | Kind::Icmp6Code => 8,
            Kind::IgmpType | Kind::MobilityType | Kind::Day => 8,
            Kind::DccpType => 4,
            Kind::CtDirection | Kind::TcpFlags | Kind::Family | Kind::PacketType => 8,
            Kind::Dscp => 6,
            Kind::Ecn => 2,
            Kind::Presence => 1,
            Kind::Number(bits) => bits,
        }
    }

    /// The greatest value.
    pub const fn greatest(self) -> u128 {
        u128::MAX >> (128 - self.bits())
    }

    /// Are its values sets of bits, so that a list without braces means any of them?
    pub const fn is_bits(self) -> bool {
        matches!(self, Kind::CtState | Kind::CtStatus | Kind::TcpFlags)
    }

    /// In words, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Address4 => "an IPv4 address",
            Kind::Address6 => "an IPv6 address",
            Kind::Protocol => "a transport protocol",
            Kind::Port => "a port",
            Kind::Mark => "a mark",
            Kind::InterfaceName | Kind::Interface => "an interface's name",
            Kind::Number(_) => "a number",
            Kind::IcmpType => "an ICMP type",
            Kind::Icmp6Type => "an ICMPv6 type",
            Kind::IcmpCode => "an ICMP code",
            Kind::Icmp6Code => "an ICMPv6 code",
            Kind::CtState => "a state of connection tracking",
            Kind::CtStatus => "a status of connection tracking",
            Kind::CtDirection => "original or reply",
            Kind::TcpFlags => "a flag of TCP",
            Kind::Dscp => "a DSCP class",
            Kind::Ecn => "an ECN value",
            Kind::Family => "ipv4 or ipv6",
            Kind::EtherType => "a link protocol",
            Kind::Time => "a time",
            Kind::Label => "a label",
            Kind::Helper => "a helper",
            Kind::PacketType => "a packet type",
            Kind::AddressType => "an address type",
            Kind::Presence => "exists or missing",
            Kind::IgmpType => "an IGMP type",
            Kind::DccpType => "a packet type of DCCP",
            Kind::MobilityType => "a type of mobility header",
            Kind::Priority => "a class, like 1:10",
            Kind::DeviceGroup => "a group of devices",
            Kind::Hour => "an hour",
            Kind::Day => "a day of the week",
            Kind::Date => "a date",
            Kind::Object(ObjectKind::Counter) => "a counter",
            Kind::Object(ObjectKind::Quota) => "a quota",
            Kind::Object(ObjectKind::Limit) => "a limit",
            Kind::Object(ObjectKind::Synproxy) => "a synproxy",
        }
    }

    /// The constants that have names.
    pub fn names(self) -> &'static [(&'static str, u128)] {
        match self {
            Kind::Protocol => PROTOCOLS,
            Kind::Port => SERVICES,
            Kind::IcmpType => ICMP_TYPES,
            Kind::Icmp6Type => ICMP6_TYPES,
            Kind::IcmpCode => ICMP_CODES,
            Kind::Icmp6Code => ICMP6_CODES,
            Kind::CtState => CT_STATES,
            Kind::CtStatus => CT_STATUS,
            Kind::CtDirection => &[("original", 0), ("reply", 1)],
            Kind::TcpFlags => TCP_FLAGS,
            Kind::Dscp => DSCP,
            Kind::Ecn => &[("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)],
            Kind::Family => &[("ipv4", 2), ("ipv6", 10)],
            Kind::EtherType => &[("ip", 0x0800), ("ip6", 0x86dd), ("arp", 0x0806), ("vlan", 0x8100)],
            Kind::PacketType => &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)],
            Kind::AddressType => ADDRESS_TYPES,
            Kind::Presence => &[("missing", 0), ("exists", 1)],
            Kind::IgmpType => IGMP_TYPES,
            Kind::DccpType => DCCP_TYPES,
            Kind::MobilityType => MOBILITY_TYPES,
            Kind::Priority => &[("none", 0), ("root", 0xffff_ffff)],
            Kind::DeviceGroup => &[("default", 0)],
            Kind::Day => DAYS,
            _ => &[],
        }
    }

    /// The value of a constant's name.
    pub fn named(self, name: &str) -> Option<u128> {
        if matches!(self, Kind::InterfaceName | Kind::Helper) {
            return letters(name);
        }
        self.names().iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A name of at most 15 letters as a number: the first letter highest.
pub fn letters(name: &str) -> Option<u128> {
    let mut octets = [0; 16];
    octets.get_mut(..name.len()).filter(|_| name.len() < 16)?.copy_from_slice(name.as_bytes());
    Some(u128::from_be_bytes(octets))
}

/// `ct state`, as bits.
pub const STATE_INVALID: u128 = 1;
/// See [`STATE_INVALID`].
pub const STATE_ESTABLISHED: u128 = 2;
/// See [`STATE_INVALID`].
pub const STATE_RELATED: u128 = 4;
/// See [`STATE_INVALID`].
pub const STATE_NEW: u128 = 8;
/// See [`STATE_INVALID`].
pub const STATE_UNTRACKED: u128 = 64;
