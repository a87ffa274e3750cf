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
    ("tcpmux", 1),
    ("echo", 7),
    ("discard", 9),
    ("systat", 11),
    ("daytime", 13),
    ("netstat", 15),
    ("qotd", 17),
    ("chargen", 19),
    ("ftp-data", 20),
    ("fsp", 21),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("time", 37),
    ("whois", 43),
    ("tacacs", 49),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("gopher", 70),
    ("finger", 79),
    ("http", 80),
    ("www", 80),
    ("kerberos", 88),
    ("iso-tsap", 102),
    ("acr-nema", 104),
    ("pop3", 110),
    ("sunrpc", 111),
    ("auth", 113),
    ("nntp", 119),
    ("ntp", 123),
    ("epmap", 135),
    ("netbios-ns", 137),
    ("netbios-dgm", 138),
    ("netbios-ssn", 139),
    ("imap", 143),
    ("imap2", 143),
    ("snmp", 161),
    ("snmp-trap", 162),
    ("snmptrap", 162),
    ("cmip-man", 163),
    ("mailq", 174),
    ("xdmcp", 177),
    ("bgp", 179),
    ("smux", 199),
    ("qmtp", 209),
    ("z3950", 210),
    ("ipx", 213),
    ("ptp-event", 319),
    ("ptp-general", 320),
    ("pawserv", 345),
    ("rpc2portmap", 369),
    ("codaauth2", 370),
    ("clearcase", 371),
    ("ldap", 389),
    ("svrloc", 427),
    ("https", 443),
    ("snpp", 444),
    ("microsoft-ds", 445),
    ("kpasswd", 464),
    ("submissions", 465),
    ("saft", 487),
    ("isakmp", 500),
    ("biff", 512),
    ("exec", 512),
    ("login", 513),
    ("who", 513),
    ("shell", 514),
    ("syslog", 514),
    ("printer", 515),
    ("talk", 517),
    ("ntalk", 518),
    ("gdomap", 538),
    ("uucp", 540),
    ("klogin", 543),
    ("kshell", 544),
    ("dhcpv6-client", 546),
    ("dhcpv6-server", 547),
    ("afpovertcp", 548),
    ("rtsp", 554),
    ("nntps", 563),
    ("submission", 587),
    ("nqs", 607),
    ("ipp", 631),
    ("ldaps", 636),
    ("ldp", 646),
    ("tinc", 655),
    ("silc", 706),
    ("kerberos-adm", 749),
    ("domain-s", 853),
    ("rsync", 873),
    ("ftps-data", 989),
    ("ftps", 990),
    ("telnets", 992),
    ("imaps", 993),
    ("pop3s", 995),
    ("socks", 1080),
    ("proofd", 1093),
    ("rootd", 1094),
    ("rmiregistry", 1099),
    ("openvpn", 1194),
    ("lotusnote", 1352),
    ("ms-sql-s", 1433),
    ("ms-sql-m", 1434),
    ("ingreslock", 1524),
    ("datametrics", 1645),
    ("l2f", 1701),
    ("l2tp", 1701),
    ("radius", 1812),
    ("radius-acct", 1813),
    ("cisco-sccp", 2000),
    ("nfs", 2049),
    ("gsigatekeeper", 2119),
    ("gris", 2135),
    ("cvspserver", 2401),
    ("venus", 2430),
    ("mon", 2583),
    ("f5-globalsite", 2792),
    ("iscsi-target", 3260),
    ("mysql", 3306),
    ("ms-wbt-server", 3389),
    ("nut", 3493),
    ("ipsec-nat-t", 4500),
    ("munin", 4949),
    ("sip", 5060),
    ("sip-tls", 5061),
    ("xmpp-client", 5222),
    ("xmpp-server", 5269),
    ("cfengine", 5308),
    ("mdns", 5353),
    ("postgresql", 5432),
    ("freeciv", 5556),
    ("nrpe", 5666),
    ("amqps", 5671),
    ("amqp", 5672),
    ("x11", 6000),
    ("gnutella-svc", 6346),
    ("redis", 6379),
    ("syslog-tls", 6514),
    ("ircs-u", 6697),
    ("http-alt", 8080),
    ("webcache", 8080),
    ("puppet", 8140),
    ("bacula-dir", 9101),
    ("bacula-fd", 9102),
    ("bacula-sd", 9103),
    ("git", 9418),
    ("xmms2", 9667),
    ("zope", 9673),
    ("zabbix-agent", 10050),
    ("zabbix-trapper", 10051),
    ("nbd", 10809),
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
