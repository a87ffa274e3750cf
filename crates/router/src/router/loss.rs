//! Why a datagram goes no further.
use keepstate_engine::Why;

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It is no datagram that can be read.
    Malformed,
    /// A fragment of something that is not whole yet, or never will be.
    Fragment,
    /// The rules dropped it.
    Dropped,
    /// The rules refused it.
    Rejected,
    /// Tracking dropped it: the table is full, or its tuple is taken.
    Tracking(Why),
    /// Its hops were used up.
    HopLimit,
    /// It comes from, or goes to, an address that it cannot: one of our own, of nobody, of a link it leaves.
    Martian,
    /// Its options are broken, or say by which routers it is to go.
    Options,
    /// There is no route.
    NoRoute,
    /// It does not fit its way out, and may not be cut.
    TooBig,
    /// It cannot be translated.
    Untranslatable,
    /// Its service has no backend for it, or has reset its connection.
    NoBackend,
    /// It would begin a connection, and none are taken.
    Closed,
    /// It was answered in its server's name.
    Proxied,
    /// It acknowledges what nobody has promised.
    Unpromised,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Loss::Malformed => "malformed",
            Loss::Fragment => "waits for its other fragments",
            Loss::Martian => "an address that it cannot have",
            Loss::Options => "its options are broken, or choose its way",
            Loss::Dropped => "dropped by the rules",
            Loss::Rejected => "rejected by the rules",
            Loss::Tracking(why) => return write!(f, "dropped by tracking: {}", why.name()),
            Loss::HopLimit => "its hops are used up",
            Loss::NoRoute => "no route",
            Loss::TooBig => "too big for its way out",
            Loss::Untranslatable => "cannot be translated",
            Loss::NoBackend => "its service has no backend for it",
            Loss::Closed => "no new connections are taken",
            Loss::Proxied => "answered by synproxy",
            Loss::Unpromised => "acknowledges what synproxy has not promised",
        })
    }
}
