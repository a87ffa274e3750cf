//! The verdict on one packet, by the kernel or by the engine, in one form.
use keepstate_engine::{CtInfo, CtVerdict, Direction, Outcome};
use std::fmt;

/// The values of `ct state` and `ct direction`. The numbers are the DSCP values that the rules write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CtStateDscp {
    New = 1,
    Established = 2,
    EstablishedReply = 3,
    Related = 4,
    RelatedReply = 5,
    Invalid = 6,
    Untracked = 7,
}

impl CtStateDscp {
    const ALL: [CtStateDscp; 7] = [
        CtStateDscp::New,
        CtStateDscp::Established,
        CtStateDscp::EstablishedReply,
        CtStateDscp::Related,
        CtStateDscp::RelatedReply,
        CtStateDscp::Invalid,
        CtStateDscp::Untracked,
    ];

    /// The verdict in the DSCP field of a packet.
    pub fn from_dscp(packet: &[u8]) -> Option<CtStateDscp> {
        let dscp = match packet.first()? >> 4 {
            4 => packet.get(1)? >> 2,
            _ => (packet[0] & 15) << 2 | packet.get(1)? >> 6,
        };
        CtStateDscp::ALL.into_iter().find(|mark| *mark as u8 == dscp)
    }
}

/// The result of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObservedVerdict {
    /// It was forwarded, with its verdict.
    Passed(CtStateDscp),
    /// It was not forwarded: dropped, or held as a fragment.
    NotForwarded,
}

impl From<Outcome> for ObservedVerdict {
    fn from(outcome: Outcome) -> ObservedVerdict {
        if outcome.verdict == CtVerdict::Drop {
            return ObservedVerdict::NotForwarded;
        }
        ObservedVerdict::Passed(match (outcome.info, outcome.direction) {
            (CtInfo::Invalid, _) => CtStateDscp::Invalid,
            (CtInfo::Untracked, _) => CtStateDscp::Untracked,
            (CtInfo::New, _) => CtStateDscp::New,
            (CtInfo::Established, Some(Direction::Reply)) => CtStateDscp::EstablishedReply,
            (CtInfo::Established, _) => CtStateDscp::Established,
            (CtInfo::Related, Some(Direction::Reply)) => CtStateDscp::RelatedReply,
            (CtInfo::Related, _) => CtStateDscp::Related,
        })
    }
}

impl fmt::Display for ObservedVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ObservedVerdict::NotForwarded => "GONE",
            ObservedVerdict::Passed(CtStateDscp::New) => "NEW",
            ObservedVerdict::Passed(CtStateDscp::Established) => "EST",
            ObservedVerdict::Passed(CtStateDscp::EstablishedReply) => "EST_REPLY",
            ObservedVerdict::Passed(CtStateDscp::Related) => "REL",
            ObservedVerdict::Passed(CtStateDscp::RelatedReply) => "REL_REPLY",
            ObservedVerdict::Passed(CtStateDscp::Invalid) => "INVALID",
            ObservedVerdict::Passed(CtStateDscp::Untracked) => "UNTRACKED",
        })
    }
}
