//! Types of values: their width, and the names of their constants.
//!
//! Every value is a number of at most 128 bits: an address by its bits, an interface by the bytes of its name (the first one highest), a time in seconds.
mod format;
mod protocols;
mod services;
mod symbols;

pub(crate) use format::format_duration;
use protocols::PROTOCOLS;
use services::SERVICES;
use symbols::{
    ADDRESS_TYPES, CT_EVENTS, CT_STATES, CT_STATUS, DAYS, DCCP_TYPES, DSCP, ETHER_TYPES, ICMP_CODES, ICMP_TYPES,
    ICMP6_CODES, ICMP6_TYPES, IGMP_TYPES, LINK_TYPES, MOBILITY_TYPES, TCP_FLAGS,
};
pub use symbols::{CT_STATE_ESTABLISHED, CT_STATE_INVALID, CT_STATE_NEW, CT_STATE_RELATED, CT_STATE_UNTRACKED};

/// A kind of named object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum ObjectKind {
    Counter,
    Quota,
    Limit,
    Synproxy,
    CtHelper,
    CtTimeout,
    CtExpectation,
    SecMark,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// An IPv4 address.
    Address4,
    /// An IPv6 address.
    Address6,
    /// An IP protocol number.
    Protocol,
    /// A port.
    Port,
    /// A mark of a packet or a connection.
    Mark,
    /// An interface's name.
    InterfaceName,
    /// An interface's index; written as a name and compared by name.
    InterfaceIndex,
    /// A number of this many bits.
    Number(u8),
    /// An ICMP type.
    IcmpType,
    /// An ICMPv6 type.
    Icmp6Type,
    /// An ICMP code.
    IcmpCode,
    /// An ICMPv6 code.
    Icmp6Code,
    /// A reason of `reject` that ICMP and ICMPv6 have.
    IcmpxCode,
    /// `ct state`, a bitmask.
    CtState,
    /// `ct status`, a bitmask.
    CtStatus,
    /// A direction.
    CtDirection,
    /// TCP flags, a bitmask.
    TcpFlags,
    /// A differentiated services code point.
    Dscp,
    /// Explicit congestion notification.
    Ecn,
    /// An address family.
    Family,
    /// An Ethernet type.
    EtherType,
    /// Seconds.
    Duration,
    /// Events of a connection, a bitmask.
    CtEvent,
    /// A connection label, by its bit.
    CtLabel,
    /// A helper's name.
    CtHelper,
    /// Packet type: host, broadcast, multicast, other.
    PacketType,
    /// Type of an address: local, unicast, ….
    AddressType,
    /// Exists or missing.
    Boolean,
    /// An IGMP type.
    IgmpType,
    /// A DCCP packet type.
    DccpType,
    /// An IPv6 mobility header type.
    MobilityType,
    /// A traffic class: major and minor number.
    ClassId,
    /// An interface group.
    DeviceGroup,
    /// Seconds since midnight.
    HourOfDay,
    /// A day of the week, 0 is Sunday.
    DayOfWeek,
    /// Nanoseconds since 1970, wall clock time.
    Timestamp,
    /// A link layer address.
    EtherAddress,
    /// The kind of an interface's link layer.
    LinkType,
    /// A user.
    UserId,
    /// A group of users.
    GroupId,
    /// A realm of routing.
    Realm,
    /// The kind of an interface.
    InterfaceKind,
    /// The name of an operating system.
    OsName,
    /// A control group, by its path.
    CgroupV2,
    /// A named object, by its index.
    Object(ObjectKind),
}

impl DataType {
    /// Width of its values, in bits.
    pub const fn bit_width(self) -> u8 {
        match self {
            DataType::Address6
            | DataType::InterfaceName
            | DataType::InterfaceKind
            | DataType::CtLabel
            | DataType::OsName
            | DataType::CtHelper => 128,
            DataType::Address4
            | DataType::Mark
            | DataType::InterfaceIndex
            | DataType::CtState
            | DataType::CtStatus
            | DataType::CtEvent
            | DataType::Duration => 32,
            DataType::Object(_)
            | DataType::AddressType
            | DataType::ClassId
            | DataType::DeviceGroup
            | DataType::HourOfDay => 32,
            DataType::UserId | DataType::GroupId | DataType::Realm => 32,
            DataType::EtherAddress => 48,
            DataType::LinkType => 16,
            DataType::Timestamp | DataType::CgroupV2 => 64,
            DataType::Port | DataType::EtherType => 16,
            DataType::Protocol
            | DataType::IcmpType
            | DataType::Icmp6Type
            | DataType::IcmpCode
            | DataType::Icmp6Code
            | DataType::IcmpxCode => 8,
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

    /// Is it a bitmask, where a list without braces means any of the bits?
    pub const fn is_bitmask(self) -> bool {
        matches!(
            self,
            DataType::CtState | DataType::CtStatus | DataType::CtEvent | DataType::CtLabel | DataType::TcpFlags
        )
    }

    /// Is it written as a name, so that an operator cannot follow?
    pub const fn is_name(self) -> bool {
        matches!(
            self,
            DataType::InterfaceName
                | DataType::InterfaceIndex
                | DataType::InterfaceKind
                | DataType::CtHelper
                | DataType::OsName
        )
    }

    /// For error messages.
    pub const fn description(self) -> &'static str {
        match self {
            DataType::Address4 => "an IPv4 address",
            DataType::Address6 => "an IPv6 address",
            DataType::Protocol => "an IP protocol",
            DataType::Port => "a port",
            DataType::Mark => "a mark",
            DataType::InterfaceName | DataType::InterfaceIndex => "an interface name",
            DataType::Number(_) => "a number",
            DataType::IcmpType => "an ICMP type",
            DataType::Icmp6Type => "an ICMPv6 type",
            DataType::IcmpCode => "an ICMP code",
            DataType::Icmp6Code => "an ICMPv6 code",
            DataType::IcmpxCode => "a reject reason",
            DataType::CtState => "a ct state",
            DataType::CtStatus => "a ct status",
            DataType::CtDirection => "a ct direction",
            DataType::TcpFlags => "a TCP flag",
            DataType::Dscp => "a DSCP class",
            DataType::Ecn => "an ECN value",
            DataType::Family => "an address family",
            DataType::EtherType => "an Ethernet type",
            DataType::Duration => "a duration",
            DataType::CtLabel => "a ct label",
            DataType::CtEvent => "an event of connections",
            DataType::CtHelper => "a ct helper",
            DataType::PacketType => "a packet type",
            DataType::AddressType => "an address type",
            DataType::Boolean => "`exists` or `missing`",
            DataType::IgmpType => "an IGMP type",
            DataType::DccpType => "a DCCP packet type",
            DataType::MobilityType => "a mobility header type",
            DataType::ClassId => "a traffic class like 1:10",
            DataType::DeviceGroup => "an interface group",
            DataType::HourOfDay => "a time of day",
            DataType::DayOfWeek => "a day of the week",
            DataType::Timestamp => "a date",
            DataType::EtherAddress => "a link layer address",
            DataType::LinkType => "an interface type",
            DataType::UserId => "a user id",
            DataType::GroupId => "a group id",
            DataType::Realm => "a realm",
            DataType::InterfaceKind => "the kind of an interface",
            DataType::OsName => "the name of a system",
            DataType::CgroupV2 => "the path of a control group",
            DataType::Object(ObjectKind::Counter) => "a counter",
            DataType::Object(ObjectKind::Quota) => "a quota",
            DataType::Object(ObjectKind::Limit) => "a limit",
            DataType::Object(ObjectKind::Synproxy) => "a synproxy",
            DataType::Object(ObjectKind::CtHelper) => "a ct helper",
            DataType::Object(ObjectKind::CtTimeout) => "a ct timeout",
            DataType::Object(ObjectKind::CtExpectation) => "a ct expectation",
            DataType::Object(ObjectKind::SecMark) => "a security mark",
        }
    }

    /// Named constants.
    pub fn symbols(self) -> &'static [(&'static str, u128)] {
        match self {
            DataType::Protocol => PROTOCOLS,
            DataType::Port => SERVICES,
            DataType::IcmpType => ICMP_TYPES,
            DataType::Icmp6Type => ICMP6_TYPES,
            DataType::IcmpCode => ICMP_CODES,
            DataType::Icmp6Code => ICMP6_CODES,
            DataType::IcmpxCode => {
                &[("no-route", 0), ("port-unreachable", 1), ("host-unreachable", 2), ("admin-prohibited", 3)]
            }
            DataType::CtState => CT_STATES,
            DataType::CtStatus => CT_STATUS,
            DataType::CtEvent => CT_EVENTS,
            DataType::CtDirection => &[("original", 0), ("reply", 1)],
            DataType::TcpFlags => TCP_FLAGS,
            DataType::Dscp => DSCP,
            DataType::Ecn => &[("not-ect", 0), ("ect1", 1), ("ect0", 2), ("ce", 3)],
            DataType::Family => &[("ipv4", 2), ("ipv6", 10)],
            DataType::EtherType => ETHER_TYPES,
            DataType::PacketType => &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3)],
            DataType::AddressType => ADDRESS_TYPES,
            DataType::Boolean => &[("missing", 0), ("exists", 1)],
            DataType::IgmpType => IGMP_TYPES,
            DataType::DccpType => DCCP_TYPES,
            DataType::MobilityType => MOBILITY_TYPES,
            DataType::ClassId => &[("none", 0), ("root", 0xffff_ffff)],
            DataType::DeviceGroup => &[("default", 0)],
            DataType::DayOfWeek => DAYS,
            DataType::LinkType => LINK_TYPES,
            DataType::UserId | DataType::GroupId => &[("root", 0)],
            // The name of iproute2 for no realm.
            DataType::Realm => &[("cosmos", 0)],
            _ => &[],
        }
    }

    /// Value of a named constant.
    pub fn symbol_value(self, name: &str) -> Option<u128> {
        if matches!(self, DataType::InterfaceName | DataType::InterfaceKind | DataType::CtHelper | DataType::OsName) {
            return encode_name(name);
        }
        self.symbols().iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A name of at most 15 bytes as a number: the first byte highest.
pub fn encode_name(name: &str) -> Option<u128> {
    let mut bytes = [0; 16];
    bytes.get_mut(..name.len()).filter(|_| name.len() < 16)?.copy_from_slice(name.as_bytes());
    Some(u128::from_be_bytes(bytes))
}
