//! The result of tracking a packet.
use crate::{ConnId, Direction, Reason};
use keepstate_wire::ParseError;

/// A packet's `ct state`: its relation to the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CtInfo {
    /// Its connection has only been seen in the original direction.
    New,
    /// Its connection has been seen in both directions.
    Established,
    /// Its connection was expected and is not answered yet; or it is an ICMP error about a known connection.
    Related,
    /// It has no connection; [`Outcome::reason`] says why.
    Invalid,
    /// It is deliberately not tracked.
    Untracked,
}

/// Tracking's verdict on a packet. The ruleset has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CtVerdict {
    /// Process it further.
    Accept,
    /// Drop it, as Linux does here.
    Drop,
}

/// The result of tracking one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Outcome {
    /// Its relation to the table.
    pub info: CtInfo,
    /// Its direction; `None` when it belongs to no connection.
    pub direction: Option<Direction>,
    /// Its connection in the table. `None` for packets without one, for unconfirmed connections, and if this packet ended it.
    pub connection: Option<ConnId>,
    /// Why it is invalid, ignored or dropped.
    pub reason: Option<Reason>,
    /// Whether to drop it.
    pub verdict: CtVerdict,
}

impl Outcome {
    /// A packet of a connection.
    #[inline(always)]
    pub(crate) const fn tracked(info: CtInfo, direction: Direction, connection: ConnId) -> Outcome {
        Outcome {
            info,
            direction: Some(direction),
            connection: Some(connection),
            reason: None,
            verdict: CtVerdict::Accept,
        }
    }

    /// An invalid packet. It is accepted here: the ruleset decides about it. A packet of which a capture has too little is not called
    /// invalid: nothing is known about it.
    pub(crate) const fn invalid(reason: Reason) -> Outcome {
        if matches!(reason, Reason::ParseError(ParseError::NotCaptured)) {
            return Outcome::untracked(reason);
        }
        Outcome::without_connection(CtInfo::Invalid, Some(reason), CtVerdict::Accept)
    }

    /// A packet that Linux drops itself.
    pub(crate) const fn dropped(reason: Reason) -> Outcome {
        Outcome::without_connection(CtInfo::Invalid, Some(reason), CtVerdict::Drop)
    }

    /// A packet that is deliberately not tracked.
    pub(crate) const fn untracked(reason: Reason) -> Outcome {
        Outcome::without_connection(CtInfo::Untracked, Some(reason), CtVerdict::Accept)
    }

    const fn without_connection(info: CtInfo, reason: Option<Reason>, verdict: CtVerdict) -> Outcome {
        Outcome { info, direction: None, connection: None, reason, verdict }
    }
}
