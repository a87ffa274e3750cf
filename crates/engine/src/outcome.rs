//! What tracking says of a packet.
use crate::{Handle, Why};

/// The direction of a packet within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the connection's first packet.
    Original = 0,
    /// The other way.
    Reply = 1,
}

impl Direction {
    /// The other one.
    pub const fn opposite(self) -> Direction {
        match self {
            Direction::Original => Direction::Reply,
            Direction::Reply => Direction::Original,
        }
    }
}

/// What `ct state` matches: the relation of a packet to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Info {
    /// Of a connection that has not been answered.
    New,
    /// Of a connection seen both ways.
    Established,
    /// Of an expected connection not yet answered, or an ICMP error about a known one.
    Related,
    /// Of no connection, for the reason given.
    Invalid,
    /// Not tracked, on purpose.
    Untracked,
}

/// What is to become of the packet so far as tracking has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on.
    Accept,
    /// Linux drops it here, and so do we.
    Drop,
}

/// All that tracking says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its relation to the table.
    pub info: Info,
    /// Its direction; `None` when it belongs to no connection.
    pub direction: Option<Direction>,
    /// Its connection, while that lives: `None` for invalid packets and when this packet ended it.
    pub connection: Option<Handle>,
    /// Why it is invalid, ignored or dropped.
    pub why: Option<Why>,
    /// Whether it goes on.
    pub verdict: Verdict,
}

impl Outcome {
    /// A packet of a connection.
    #[inline(always)]
    pub(crate) const fn of(info: Info, direction: Direction, connection: Handle) -> Outcome {
        Outcome { info, direction: Some(direction), connection: Some(connection), why: None, verdict: Verdict::Accept }
    }

    /// A packet of no connection, for `why`. It goes on: the ruleset decides.
    pub(crate) const fn invalid(why: Why) -> Outcome {
        Outcome::without_connection(Info::Invalid, Some(why), Verdict::Accept)
    }

    /// A packet that Linux drops itself.
    pub(crate) const fn dropped(why: Why) -> Outcome {
        Outcome::without_connection(Info::Invalid, Some(why), Verdict::Drop)
    }

    /// A packet that is not tracked, on purpose.
    pub(crate) const fn untracked(why: Why) -> Outcome {
        Outcome::without_connection(Info::Untracked, Some(why), Verdict::Accept)
    }

    const fn without_connection(info: Info, why: Option<Why>, verdict: Verdict) -> Outcome {
        Outcome { info, direction: None, connection: None, why, verdict }
    }
}
