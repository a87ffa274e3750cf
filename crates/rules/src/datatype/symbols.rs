//! The names of constants, as nft has them.
use keepstate_engine::{EventBits, Status};

/// Bit of `ct state invalid`.
pub const CT_STATE_INVALID: u128 = 1;
/// Bit of `ct state established`.
pub const CT_STATE_ESTABLISHED: u128 = 2;
/// Bit of `ct state related`.
pub const CT_STATE_RELATED: u128 = 4;
/// Bit of `ct state new`.
pub const CT_STATE_NEW: u128 = 8;
/// Bit of `ct state untracked`.
pub const CT_STATE_UNTRACKED: u128 = 64;

pub(super) const CT_STATES: &[(&str, u128)] = &[
    ("invalid", CT_STATE_INVALID),
    ("established", CT_STATE_ESTABLISHED),
    ("related", CT_STATE_RELATED),
    ("new", CT_STATE_NEW),
    ("untracked", CT_STATE_UNTRACKED),
];

pub(super) const CT_STATUS: &[(&str, u128)] = &[
    ("expected", Status::EXPECTED.bits() as u128),
    ("seen-reply", Status::SEEN_REPLY.bits() as u128),
    ("assured", Status::ASSURED.bits() as u128),
    ("confirmed", Status::CONFIRMED.bits() as u128),
    ("snat", Status::SRC_NAT.bits() as u128),
    ("dnat", Status::DST_NAT.bits() as u128),
    ("dying", Status::DYING.bits() as u128),
];

pub(super) const CT_EVENTS: &[(&str, u128)] = &[
    ("new", EventBits::NEW.0 as u128),
    ("related", EventBits::RELATED.0 as u128),
    ("destroy", EventBits::DESTROY.0 as u128),
    ("reply", EventBits::REPLY.0 as u128),
    ("assured", EventBits::ASSURED.0 as u128),
    ("protoinfo", EventBits::PROTOINFO.0 as u128),
    ("helper", EventBits::HELPER.0 as u128),
    ("mark", EventBits::MARK.0 as u128),
    ("seqadj", 1 << 8),
    ("secmark", 1 << 9),
    ("label", EventBits::LABEL.0 as u128),
];

pub(super) const TCP_FLAGS: &[(&str, u128)] =
    &[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ecn", 64), ("cwr", 128)];

/// ARPHRD numbers.
pub(super) const LINK_TYPES: &[(&str, u128)] =
    &[("ether", 1), ("ppp", 512), ("ipip", 768), ("ipip6", 769), ("loopback", 772), ("sit", 776), ("ipgre", 778)];

pub(super) const ETHER_TYPES: &[(&str, u128)] =
    &[("ip", 0x0800), ("arp", 0x0806), ("ip6", 0x86dd), ("8021q", 0x8100), ("vlan", 0x8100), ("8021ad", 0x88a8)];

pub(super) const ICMP_TYPES: &[(&str, u128)] = &[
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

pub(super) const ICMP6_TYPES: &[(&str, u128)] = &[
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
pub(super) const ICMP_CODES: &[(&str, u128)] = &[
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
pub(super) const ICMP6_CODES: &[(&str, u128)] = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];

pub(super) const IGMP_TYPES: &[(&str, u128)] = &[
    ("membership-query", 0x11),
    ("membership-report-v1", 0x12),
    ("membership-report-v2", 0x16),
    ("leave-group", 0x17),
    ("membership-report-v3", 0x22),
];

pub(super) const DCCP_TYPES: &[(&str, u128)] = &[
    ("request", 0),
    ("response", 1),
    ("data", 2),
    ("ack", 3),
    ("dataack", 4),
    ("closereq", 5),
    ("close", 6),
    ("reset", 7),
    ("sync", 8),
    ("syncack", 9),
];

pub(super) const MOBILITY_TYPES: &[(&str, u128)] = &[
    ("binding-refresh-request", 0),
    ("home-test-init", 1),
    ("careof-test-init", 2),
    ("home-test", 3),
    ("careof-test", 4),
    ("binding-update", 5),
    ("binding-acknowledgement", 6),
    ("binding-error", 7),
    ("fast-binding-update", 8),
    ("fast-binding-acknowledgement", 9),
    ("fast-binding-advertisement", 10),
    ("experimental-mobility-header", 11),
    ("home-agent-switch-message", 12),
];

pub(super) const DAYS: &[(&str, u128)] =
    &[("Sunday", 0), ("Monday", 1), ("Tuesday", 2), ("Wednesday", 3), ("Thursday", 4), ("Friday", 5), ("Saturday", 6)];

pub(super) const DSCP: &[(&str, u128)] = &[
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

pub(super) const ADDRESS_TYPES: &[(&str, u128)] = &[
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
