//! What tracking says of a packet.
use crate::{ConnId, Direction, Reason};

/// What `ct state` matches: the relation of a packet to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CtInfo {
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CtVerdict {
    /// It goes on.
    Accept,
    /// Linux drops it here, and so do we.
    Drop,
}

/// All that tracking says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Outcome {
    /// Its relation to the table.
    pub info: CtInfo,
    /// Its direction; `None` when it belongs to no connection.
    pub direction: Option<Direction>,
    /// Its connection, while that lives: `None` for invalid packets and when this packet ended it.
    pub connection: Option<ConnId>,
    /// Why it is invalid, ignored or dropped.
    pub reason: Option<Reason>,
    /// Whether it goes on.
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

    /// A packet of no connection, for `why`. It goes on: the ruleset decides.
    pub(crate) const fn invalid(reason: Reason) -> Outcome {
        Outcome::without_connection(CtInfo::Invalid, Some(reason), CtVerdict::Accept)
    }

    /// A packet that Linux drops itself.
    pub(crate) const fn dropped(reason: Reason) -> Outcome {
        Outcome::without_connection(CtInfo::Invalid, Some(reason), CtVerdict::Drop)
    }

    /// A packet that is not tracked, on purpose.
    pub(crate) const fn untracked(reason: Reason) -> Outcome {
        Outcome::without_connection(CtInfo::Untracked, Some(reason), CtVerdict::Accept)
    }

    const fn without_connection(info: CtInfo, reason: Option<Reason>, verdict: CtVerdict) -> Outcome {
        Outcome { info, direction: None, connection: None, reason, verdict }
    }
}
