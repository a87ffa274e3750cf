//! SCTP as a table: direction, kind of chunk, state before → state after.
//!
//! Every cell was read off Linux 6.18 (see `docs/kernel-facts/sctp.md`). The states are named from the opener's side and are coarse: a
//! connection that has seen only its INIT is CLOSED here, and leaves that state with the INIT ACK.
use crate::Direction;
use crate::SctpState::{self, *};

/// A chunk by what it can do to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Init = 0,
    InitAck = 1,
    Abort = 2,
    Shutdown = 3,
    ShutdownAck = 4,
    Error = 5,
    CookieEcho = 6,
    CookieAck = 7,
    ShutdownComplete = 8,
    Heartbeat = 9,
    HeartbeatAck = 10,
    /// DATA: it moves nothing, yet a heartbeat with a strange tag may not bring it along.
    Data = 11,
    /// Every other type: it moves nothing.
    Other = 12,
}

impl Kind {
    /// By the type octet (RFC 9260, section 3.2).
    #[inline(always)]
    pub(crate) const fn of(octet: u8) -> Kind {
        match octet {
            0 => Kind::Data,
            1 => Kind::Init,
            2 => Kind::InitAck,
            4 => Kind::Heartbeat,
            5 => Kind::HeartbeatAck,
            6 => Kind::Abort,
            7 => Kind::Shutdown,
            8 => Kind::ShutdownAck,
            9 => Kind::Error,
            10 => Kind::CookieEcho,
            11 => Kind::CookieAck,
            14 => Kind::ShutdownComplete,
            _ => Kind::Other,
        }
    }
}

type Next = Option<SctpState>;

const IV: Next = Option::None;
const CL: Next = Some(Closed);
const CW: Next = Some(CookieWait);
const CE: Next = Some(CookieEchoed);
const ES: Next = Some(Established);
const SS: Next = Some(ShutdownSent);
const SR: Next = Some(ShutdownRecd);
const SA: Next = Some(ShutdownAckSent);
const HS: Next = Some(HeartbeatSent);

/// `[direction][kind][state]`.
#[rustfmt::skip]
const TABLE: [[[Next; 9]; 13]; 2] = [
    [ //  none  CL  CW  CE  ES  SS  SR  SA  HS
        [ CL, CL, CW, CE, ES, CL, CL, SA, CW ], // init: opens; in shutdown it begins anew; an open association waits for the answer
        [ CL, CL, CW, CE, ES, SS, SR, SA, CL ], // init ack from the opener: the answer to a colliding init
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL ], // abort: ends whatever was open
        [ CL, CL, CW, CE, SS, SS, SR, SA, CL ], // shutdown: the opener closes
        [ SA, CL, CW, CE, ES, SA, SA, SA, SA ], // shutdown ack: the other end's turn; the one chunk that picks up an end
        [ CL, CL, CW, CE, ES, SS, SR, SA, CL ], // error: the opener's does no harm
        [ CL, CL, CE, CE, ES, SS, SR, SA, CL ], // cookie echo: the third step of the handshake
        [ IV, CL, CW, ES, ES, SS, SR, SA, CL ], // cookie ack: the last step, here of a collision
        [ IV, CL, CW, CE, ES, SS, SR, CL, CL ], // shutdown complete: the end
        [ HS, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat: picks up another path of an association
        [ CL, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat ack: only the reply direction can confirm a path
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // data: opens nothing
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // anything else
    ],
    [ //  none  CL  CW  CE  ES  SS  SR  SA  HS
        [ IV, CL, CW, CE, ES, SS, SR, SA, IV ], // init: a collision or a restart of the other end; no change until answered
        [ IV, CW, CW, CE, ES, SS, SR, SA, IV ], // init ack: the answer
        [ IV, CL, CL, CL, CL, CL, CL, CL, IV ], // abort
        [ IV, CL, CW, CE, SR, SS, SR, SA, IV ], // shutdown: the other end closes
        [ IV, CL, CW, CE, ES, SA, SA, SA, IV ], // shutdown ack
        [ IV, CL, CW, CL, ES, SS, SR, SA, IV ], // error: in answer to the cookie, it refuses the association
        [ IV, CL, CE, CE, ES, SS, SR, SA, IV ], // cookie echo: of a collision
        [ IV, CL, CW, ES, ES, SS, SR, SA, IV ], // cookie ack: the association is up
        [ IV, CL, CW, CE, ES, SS, SR, CL, IV ], // shutdown complete
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat: the path is tried from both ends
        [ IV, CL, CW, CE, ES, SS, SR, SA, ES ], // heartbeat ack: the path works
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // data
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // anything else
    ],
];

/// The state after a chunk; nothing when it has no place in this state.
#[inline(always)]
pub(crate) const fn next(direction: Direction, kind: Kind, state: SctpState) -> Option<SctpState> {
    TABLE[direction as usize][kind as usize][state as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    const KINDS: [Kind; 13] = [
        Kind::Init,
        Kind::InitAck,
        Kind::Abort,
        Kind::Shutdown,
        Kind::ShutdownAck,
        Kind::Error,
        Kind::CookieEcho,
        Kind::CookieAck,
        Kind::ShutdownComplete,
        Kind::Heartbeat,
        Kind::HeartbeatAck,
        Kind::Data,
        Kind::Other,
    ];

    /// A change of any cell is reviewed as a picture.
    #[test]
    fn the_whole_matrix() {
        let mut text = String::from("                           NO CL CW CE ES SS SR SA HS\n");
        for direction in [Direction::Original, Direction::Reply] {
            for kind in KINDS {
                text += &format!("{:8} {:17}", format!("{direction:?}"), format!("{kind:?}"));
                for state in SctpState::ALL {
                    text += match next(direction, kind, *state) {
                        IV => " iv",
                        CL => " CL",
                        CW => " CW",
                        CE => " CE",
                        ES => " ES",
                        SS => " SS",
                        SR => " SR",
                        SA => " SA",
                        HS => " HS",
                        Some(_) => " ??",
                    };
                }
                text += "\n";
            }
        }
        insta::assert_snapshot!(text);
    }

    /// Types with a row are those of RFC 9260; the 245 others are `Data` or `Other`.
    #[test]
    fn eleven_types_move_states() {
        let moving = (0..=255u8).filter(|octet| !matches!(Kind::of(*octet), Kind::Data | Kind::Other)).count();
        assert_eq!(moving, 11);
    }
}
