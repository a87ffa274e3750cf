//! What was said of one packet, by the kernel and by the engine, in the same words.
use keepstate_engine::{Direction, Info, Outcome, Verdict};
use std::fmt;

/// What `ct state` and `ct direction` match. The numbers are the DSCP values that the rules write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    New = 1,
    Established = 2,
    EstablishedReply = 3,
    Related = 4,
    RelatedReply = 5,
    Invalid = 6,
    Untracked = 7,
}

impl Mark {
    const ALL: [Mark; 7] = [
        Mark::New,
        Mark::Established,
        Mark::EstablishedReply,
        Mark::Related,
        Mark::RelatedReply,
        Mark::Invalid,
        Mark::Untracked,
    ];

    /// Reads the DSCP field of a datagram.
    pub fn read(packet: &[u8]) -> Option<Mark> {
        let dscp = match packet.first()? >> 4 {
            4 => packet.get(1)? >> 2,
            _ => (packet[0] & 15) << 2 | packet.get(1)? >> 6,
        };
        Mark::ALL.into_iter().find(|mark| *mark as u8 == dscp)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Heard {
    /// It came out, marked.
    Passed(Mark),
    /// It did not come out: dropped, or held as a fragment.
    Gone,
}

impl From<Outcome> for Heard {
    fn from(outcome: Outcome) -> Heard {
        if outcome.verdict == Verdict::Drop {
            return Heard::Gone;
        }
        Heard::Passed(match (outcome.info, outcome.direction) {
            (Info::Invalid, _) => Mark::Invalid,
            (Info::Untracked, _) => Mark::Untracked,
            (Info::New, _) => Mark::New,
            (Info::Established, Some(Direction::Reply)) => Mark::EstablishedReply,
            (Info::Established, _) => Mark::Established,
            (Info::Related, Some(Direction::Reply)) => Mark::RelatedReply,
            (Info::Related, _) => Mark::Related,
        })
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Heard::Gone => "GONE",
            Heard::Passed(Mark::New) => "NEW",
            Heard::Passed(Mark::Established) => "EST",
            Heard::Passed(Mark::EstablishedReply) => "EST_REPLY",
            Heard::Passed(Mark::Related) => "REL",
            Heard::Passed(Mark::RelatedReply) => "REL_REPLY",
            Heard::Passed(Mark::Invalid) => "INVALID",
            Heard::Passed(Mark::Untracked) => "UNTRACKED",
        })
    }
}
