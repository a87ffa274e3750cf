//! Kinds of values: how wide each is, and what its constants are called.
//!
//! Every value is a number of at most 128 bits: an address by its bits, an interface by the letters of its name (the first letter highest), a time in seconds.
use keepstate_engine::Status;

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
}

impl Kind {
    /// How many bits its values have.
    pub const fn bits(self) -> u8 {
        match self {
            Kind::Address6 | Kind::InterfaceName | Kind::Label | Kind::Helper => 128,
            Kind::Address4 | Kind::Mark | Kind::Interface | Kind::CtState | Kind::CtStatus | Kind::Time => 32,
            Kind::AddressType => 32,
            Kind::Port | Kind::EtherType => 16,
            Kind::Protocol | Kind::IcmpType | Kind::Icmp6Type | Kind::IcmpCode | Kind::Icmp6Code => 8,
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

const CT_STATES: &[(&str, u128)] = &[
    ("invalid", STATE_INVALID),
    ("established", STATE_ESTABLISHED),
    ("related", STATE_RELATED),
    ("new", STATE_NEW),
    ("untracked", STATE_UNTRACKED),
];

const CT_STATUS: &[(&str, u128)] = &[
    ("expected", Status::EXPECTED.0 as u128),
    ("seen-reply", Status::SEEN_REPLY.0 as u128),
    ("assured", Status::ASSURED.0 as u128),
    ("confirmed", Status::CONFIRMED.0 as u128),
    ("snat", Status::SRC_NAT.0 as u128),
    ("dnat", Status::DST_NAT.0 as u128),
    ("dying", Status::DYING.0 as u128),
];

const TCP_FLAGS: &[(&str, u128)] =
    &[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)];

const PROTOCOLS: &[(&str, u128)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("ospf", 89),
    ("pim", 103),
    ("comp", 108),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
];

const SERVICES: &[(&str, u128)] = &[
    ("ftp-data", 20),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("kerberos", 88),
    ("pop3", 110),
    ("sunrpc", 111),
    ("ntp", 123),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("microsoft-ds", 445),
    ("submissions", 465),
    ("isakmp", 500),
    ("syslog", 514),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("rtsp", 554),
    ("submission", 587),
    ("ipp", 631),
    ("ldaps", 636),
    ("domain-s", 853),
    ("rsync", 873),
    ("imaps", 993),
    ("pop3s", 995),
    ("openvpn", 1194),
    ("radius", 1812),
    ("mqtt", 1883),
    ("nfs", 2049),
    ("mysql", 3306),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("postgresql", 5432),
    ("http-alt", 8080),
    ("ipsec-nat-t", 4500),
    ("secure-mqtt", 8883),
];

const ICMP_TYPES: &[(&str, u128)] = &[
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];

const ICMP6_TYPES: &[(&str, u128)] = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("nd-router-advert", 134),
    ("nd-neighbor-solicit", 135),
    ("nd-neighbor-advert", 136),
    ("nd-redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];

/// Codes of ICMP's destination unreachable, by the names that `reject with` has.
const ICMP_CODES: &[(&str, u128)] = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];

/// Codes of ICMPv6's destination unreachable, by the names that `reject with` has.
const ICMP6_CODES: &[(&str, u128)] = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

const DSCP: &[(&str, u128)] = &[
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("df", 0),
    ("be", 0),
    ("lephb", 1),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
];

const ADDRESS_TYPES: &[(&str, u128)] = &[
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
];
