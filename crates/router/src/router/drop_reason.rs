//! Why a datagram goes no further.
use keepstate_engine::Reason;

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// It is no datagram that can be read.
    Malformed,
    /// A fragment of something that is not whole yet, or never will be.
    Fragment,
    /// The rules dropped it.
    RulesetDrop,
    /// The rules refused it.
    RulesetReject,
    /// Tracking dropped it: the table is full, or its tuple is taken.
    Conntrack(Reason),
    /// Its hops were used up.
    TtlExceeded,
    /// It comes from, or goes to, an address that it cannot: one of our own, of nobody, of a link it leaves.
    Martian,
    /// Its options are broken, or say by which routers it is to go.
    Ipv4Options,
    /// There is no route.
    NoRoute,
    /// It does not fit its way out, and may not be cut.
    PacketTooBig,
    /// It cannot be translated.
    NatFailed,
    /// Its service has no backend for it, or has reset its connection.
    NoBackend,
    /// It would begin a connection, and none are taken.
    Draining,
    /// It was answered in its server's name.
    SynproxyAnswered,
    /// It acknowledges what nobody has promised.
    SynproxyBadCookie,
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DropReason::Malformed => "malformed",
            DropReason::Fragment => "waits for its other fragments",
            DropReason::Martian => "an address that it cannot have",
            DropReason::Ipv4Options => "its options are broken, or choose its way",
            DropReason::RulesetDrop => "dropped by the rules",
            DropReason::RulesetReject => "rejected by the rules",
            DropReason::Conntrack(why) => return write!(f, "dropped by tracking: {}", why.name()),
            DropReason::TtlExceeded => "its hops are used up",
            DropReason::NoRoute => "no route",
            DropReason::PacketTooBig => "too big for its way out",
            DropReason::NatFailed => "cannot be translated",
            DropReason::NoBackend => "its service has no backend for it",
            DropReason::Draining => "no new connections are taken",
            DropReason::SynproxyAnswered => "answered by synproxy",
            DropReason::SynproxyBadCookie => "acknowledges what synproxy has not promised",
        })
    }
}
