//! Kinds of values: how wide each is, and what its constants are called.
//!
//! Every value is a number of at most 128 bits: an address by its bits, an interface by the letters of its name (the first letter highest), a time in seconds.
mod symbols;

use symbols::{
    ADDRESS_TYPES, CT_STATES, CT_STATUS, DAYS, DCCP_TYPES, DSCP, ICMP_CODES, ICMP_TYPES, ICMP6_CODES, ICMP6_TYPES,
    IGMP_TYPES, MOBILITY_TYPES, PROTOCOLS, SERVICES, TCP_FLAGS,
};
pub use symbols::{CT_STATE_ESTABLISHED, CT_STATE_INVALID, CT_STATE_NEW, CT_STATE_RELATED, CT_STATE_UNTRACKED};

/// A kind of named object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum ObjectKind {
    Counter,
    Quota,
    Limit,
    Synproxy,
}

/// What a number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
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
    InterfaceIndex,
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
    Duration,
    /// A label of a connection, by its bit.
    CtLabel,
    /// A helper's name.
    CtHelper,
    /// Unicast, broadcast, multicast, or our own.
    PacketType,
    /// What an address is here: local, unicast, ….
    AddressType,
    /// Is it there?
    Boolean,
    /// An IGMP type.
    IgmpType,
    /// A packet type of DCCP.
    DccpType,
    /// A type of IPv6's mobility header.
    MobilityType,
    /// A class of a queueing discipline: major and minor number.
    ClassId,
    /// A group of devices.
    DeviceGroup,
    /// Seconds since midnight.
    HourOfDay,
    /// A day of the week, 0 is Sunday.
    DayOfWeek,
    /// Nanoseconds since 1970, on the wall.
    Timestamp,
    /// A named object, by its place.
    Object(ObjectKind),
}

impl DataType {
    /// How many bits its values have.
    pub const fn bit_width(self) -> u8 {
        match self {
            DataType::Address6 | DataType::InterfaceName | DataType::CtLabel | DataType::CtHelper => 128,
            DataType::Address4
            | DataType::Mark
            | DataType::InterfaceIndex
            | DataType::CtState
            | DataType::CtStatus
            | DataType::Duration => 32,
            DataType::Object(_)
            | DataType::AddressType
            | DataType::ClassId
            | DataType::DeviceGroup
            | DataType::HourOfDay => 32,
            DataType::Timestamp => 64,
            DataType::Port | DataType::EtherType => 16,
            DataType::Protocol
            | DataType::IcmpType
            | DataType::Icmp6Type
            | DataType::IcmpCode
            | DataType::Icmp6Code => 8,
            DataType::IgmpType | DataType::MobilityType | DataType::DayOfWeek => 8,
            DataType::DccpType => 4,
            DataType::CtDirection | DataType::TcpFlags | DataType::Family | DataType::PacketType => 8,
            DataType::Dscp => 6,
            DataType::Ecn => 2,
            DataType::Boolean => 1,
            DataType::Number(bits) => bits,
        }
    }

    /// The greatest value.
    pub const fn max_value(self) -> u128 {
        u128::MAX >> (128 - self.bit_width())
    }

    /// Are its values sets of bits, so that a list without braces means any of them?
    pub const fn is_bitmask(self) -> bool {
        matches!(self, DataType::CtState | DataType::CtStatus | DataType::TcpFlags)
    }

    /// In words, for messages.
    pub const fn description(self) -> &'static str {
        match self {
            DataType::Address4 => "an IPv4 address",
            DataType::Address6 => "an IPv6 address",
            DataType::Protocol => "a transport protocol",
            DataType::Port => "a port",
            DataType::Mark => "a mark",
            DataType::InterfaceName | DataType::InterfaceIndex => "an interface's name",
            DataType::Number(_) => "a number",
            DataType::IcmpType => "an ICMP type",
            DataType::Icmp6Type => "an ICMPv6 type",
            DataType::IcmpCode => "an ICMP code",
            DataType::Icmp6Code => "an ICMPv6 code",
            DataType::CtState => "a state of connection tracking",
            DataType::CtStatus => "a status of connection tracking",
            DataType::CtDirection => "original or reply",
            DataType::TcpFlags => "a flag of TCP",
            DataType::Dscp => "a DSCP class",
            DataType::Ecn => "an ECN value",
            DataType::Family => "ipv4 or ipv6",
            DataType::EtherType => "a link protocol",
            DataType::Duration => "a time",
            DataType::CtLabel => "a label",
            DataType::CtHelper => "a helper",
            DataType::PacketType => "a packet type",
            DataType::AddressType => "an address type",
            DataType::Boolean => "exists or missing",
            DataType::IgmpType => "an IGMP type",
            DataType::DccpType => "a packet type of DCCP",
            DataType::MobilityType => "a type of mobility header",
            DataType::ClassId => "a class, like 1:10",
            DataType::DeviceGroup => "a group of devices",
            DataType::HourOfDay => "an hour",
            DataType::DayOfWeek => "a day of the week",
            DataType::Timestamp => "a date",
            DataType::Object(ObjectKind::Counter) => "a counter",
            DataType::Object(ObjectKind::Quota) => "a quota",
            DataType::Object(ObjectKind::Limit) => "a limit",
            DataType::Object(ObjectKind::Synproxy) => "a synproxy",
        }
    }

    /// The constants that have names.
    pub fn symbols(self) -> &'static [(&'static str, u128)] {
        match self {
            DataType::Protocol => PROTOCOLS,
            DataType::Port => SERVICES,
            DataType::IcmpType => ICMP_TYPES,
            DataType::Icmp6Type => ICMP6_TYPES,
            DataType::IcmpCode => ICMP_CODES,
            DataType::Icmp6Code => ICMP6_CODES,
            DataType::CtState => CT_STATES,
            DataType::CtStatus => CT_STATUS,
            DataType::CtDirection => &[("original", 0), ("reply", 1)],
            DataType::TcpFlags => TCP_FLAGS,
            DataType::Dscp => DSCP,
            DataType::Ecn => &[("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)],
            DataType::Family => &[("ipv4", 2), ("ipv6", 10)],
            DataType::EtherType => &[("ip", 0x0800), ("ip6", 0x86dd), ("arp", 0x0806), ("vlan", 0x8100)],
            DataType::PacketType => &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)],
            DataType::AddressType => ADDRESS_TYPES,
            DataType::Boolean => &[("missing", 0), ("exists", 1)],
            DataType::IgmpType => IGMP_TYPES,
            DataType::DccpType => DCCP_TYPES,
            DataType::MobilityType => MOBILITY_TYPES,
            DataType::ClassId => &[("none", 0), ("root", 0xffff_ffff)],
            DataType::DeviceGroup => &[("default", 0)],
            DataType::DayOfWeek => DAYS,
            _ => &[],
        }
    }

    /// The value of a constant's name.
    pub fn symbol_value(self, name: &str) -> Option<u128> {
        if matches!(self, DataType::InterfaceName | DataType::CtHelper) {
            return encode_name(name);
        }
        self.symbols().iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A name of at most 15 letters as a number: the first letter highest.
pub fn encode_name(name: &str) -> Option<u128> {
    let mut octets = [0; 16];
    octets.get_mut(..name.len()).filter(|_| name.len() < 16)?.copy_from_slice(name.as_bytes());
    Some(u128::from_be_bytes(octets))
}
