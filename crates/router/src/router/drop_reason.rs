//! Why a packet was dropped.
use keepstate_engine::Reason;

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Its headers cannot be parsed.
    Malformed,
    /// A fragment: its packet is not complete yet, or never will be. Not a loss if the others come.
    Fragment,
    /// A rule's verdict was drop.
    RulesetDrop,
    /// A rule's verdict was reject; the sender was answered.
    RulesetReject,
    /// Connection tracking dropped it: the table is full, or its tuple is taken.
    Conntrack(Reason),
    /// Its TTL or hop limit is used up.
    TtlExceeded,
    /// Its source or destination is an address that no packet from outside can have: a loopback address, one of our own, a multicast source.
    Martian,
    /// Its IPv4 options are malformed, or it has a source route.
    Ipv4Options,
    /// There is no route to its destination.
    NoRoute,
    /// A rule has given it to a transparent proxy, and its route leads elsewhere.
    NotToProxy,
    /// It came to a group that the machine has not joined.
    NotJoined,
    /// Its frame was not for this host alone, or a rule has said so: such packets are not forwarded.
    PacketType,
    /// The machine does not forward what comes by its interface: net.ipv4.ip_forward, net.ipv6.conf.all.forwarding.
    NotForwarding,
    /// An IPsec policy of the kernel's blocks it, or would encrypt it.
    IpsecPolicy,
    /// The kernel could not be asked for its route.
    RouteUnknown,
    /// It is longer than the MTU and must not be fragmented.
    PacketTooBig,
    /// It cannot be translated.
    NatFailed,
    /// Its service has no backend that is up, or its connection is being reset.
    NoBackend,
    /// It would begin a connection while the router drains.
    Draining,
    /// Another gateway of the cluster decides.
    Standby,
    /// It would begin a connection, and this gateway of a cluster may not decide at present.
    Fenced,
    /// Its source would be translated to an address of no shard of the cluster.
    NoShard,
    /// Synproxy answered it in its server's name.
    SynproxyAnswered,
    /// It acknowledges a SYN cookie that the router has not sent.
    SynproxyBadCookie,
}

impl DropReason {
    /// Its name, in statistics; which of tracking's reasons it was, those say.
    pub fn name(self) -> &'static str {
        NAMES.get(self.place()).copied().unwrap_or("other")
    }

    fn place(self) -> usize {
        match self {
            DropReason::Malformed => 0,
            DropReason::Fragment => 1,
            DropReason::RulesetDrop => 2,
            DropReason::RulesetReject => 3,
            DropReason::Conntrack(_) => 4,
            DropReason::TtlExceeded => 5,
            DropReason::Martian => 6,
            DropReason::Ipv4Options => 7,
            DropReason::NoRoute => 8,
            DropReason::PacketType => 9,
            DropReason::PacketTooBig => 10,
            DropReason::NatFailed => 11,
            DropReason::NoBackend => 12,
            DropReason::Draining => 13,
            DropReason::SynproxyAnswered => 14,
            DropReason::SynproxyBadCookie => 15,
            DropReason::Standby => 16,
            DropReason::Fenced => 17,
            DropReason::NoShard => 18,
            DropReason::NotToProxy => 19,
            DropReason::NotJoined => 20,
            DropReason::NotForwarding => 21,
            DropReason::RouteUnknown => 22,
            DropReason::IpsecPolicy => 23,
        }
    }
}

const NAMES: [&str; 24] = [
    "malformed",
    "fragment",
    "ruleset_drop",
    "ruleset_reject",
    "conntrack",
    "ttl_exceeded",
    "martian",
    "ipv4_options",
    "no_route",
    "packet_type",
    "packet_too_big",
    "nat_failed",
    "no_backend",
    "draining",
    "synproxy_answered",
    "synproxy_bad_cookie",
    "standby",
    "fenced",
    "no_shard",
    "not_to_proxy",
    "not_joined",
    "not_forwarding",
    "route_unknown",
    "ipsec_policy",
];

/// Dropped packets by reason.
#[derive(Debug, Default)]
pub(super) struct DropCounters([u64; NAMES.len()]);

impl DropCounters {
    pub(super) fn count(&mut self, reason: DropReason) {
        if let Some(count) = self.0.get_mut(reason.place()) {
            *count += 1;
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
        NAMES.into_iter().zip(self.0)
    }
}

impl std::error::Error for DropReason {}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DropReason::Malformed => "malformed",
            DropReason::Fragment => "fragment of an incomplete packet",
            DropReason::Martian => "martian source or destination",
            DropReason::Ipv4Options => "malformed IPv4 options or a source route",
            DropReason::RulesetDrop => "dropped by the ruleset",
            DropReason::RulesetReject => "rejected by the ruleset",
            DropReason::Conntrack(reason) => return write!(f, "dropped by conntrack: {}", reason.name()),
            DropReason::TtlExceeded => "TTL exceeded",
            DropReason::NoRoute => "no route",
            DropReason::NotToProxy => "given to a proxy by tproxy, but routed elsewhere",
            DropReason::NotJoined => "multicast group not joined",
            DropReason::PacketType => "packet type set by a rule, or not a frame for this host alone",
            DropReason::NotForwarding => "the machine does not forward (ip_forward, forwarding)",
            DropReason::IpsecPolicy => "an IPsec policy blocks it, or would encrypt it",
            DropReason::RouteUnknown => "the kernel could not be asked for the route",
            DropReason::PacketTooBig => "packet too big for the interface",
            DropReason::NatFailed => "cannot be translated",
            DropReason::NoBackend => "no backend is up",
            DropReason::Draining => "no new connections: draining",
            DropReason::Standby => "standby: another gateway of the cluster decides",
            DropReason::Fenced => "no new connections: this gateway of the cluster may not decide now",
            DropReason::NoShard => "source NAT to an address of no shard of the cluster",
            DropReason::SynproxyAnswered => "answered by synproxy",
            DropReason::SynproxyBadCookie => "bad SYN cookie",
        })
    }
}
