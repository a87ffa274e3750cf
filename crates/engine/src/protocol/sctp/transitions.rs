//! The SCTP transition table: direction, chunk kind and state → new state.
//!
//! Every cell was observed on Linux 6.18 (see `docs/kernel-facts/sctp.md`). The states are named from the opener's side and are coarse: a
//! connection that has seen only its INIT is CLOSED, and leaves that state with the INIT ACK.
use crate::Direction;
use crate::SctpState::{self, *};

/// A chunk, by its effect on the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ChunkType {
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
    /// DATA: it does not change the state, but must not be bundled with a heartbeat whose tag is unknown.
    Data = 11,
    /// Every other type: it does not change the state.
    Other = 12,
}

impl ChunkType {
    /// By the type byte (RFC 9260, section 3.2).
    #[inline(always)]
    pub(crate) const fn from_type(byte: u8) -> ChunkType {
        match byte {
            0 => ChunkType::Data,
            1 => ChunkType::Init,
            2 => ChunkType::InitAck,
            4 => ChunkType::Heartbeat,
            5 => ChunkType::HeartbeatAck,
            6 => ChunkType::Abort,
            7 => ChunkType::Shutdown,
            8 => ChunkType::ShutdownAck,
            9 => ChunkType::Error,
            10 => ChunkType::CookieEcho,
            11 => ChunkType::CookieAck,
            14 => ChunkType::ShutdownComplete,
            _ => ChunkType::Other,
        }
    }
}

type NextState = Option<SctpState>;

const IV: NextState = Option::None;
const CL: NextState = Some(Closed);
const CW: NextState = Some(CookieWait);
const CE: NextState = Some(CookieEchoed);
const ES: NextState = Some(Established);
const SS: NextState = Some(ShutdownSent);
const SR: NextState = Some(ShutdownRecd);
const SA: NextState = Some(ShutdownAckSent);
const HS: NextState = Some(HeartbeatSent);

/// Indexed by `[direction][kind][state]`.
#[rustfmt::skip]
const TABLE: [[[NextState; 9]; 13]; 2] = [
    [ //  none  CL  CW  CE  ES  SS  SR  SA  HS
        [ CL, CL, CW, CE, ES, CL, CL, SA, CW ], // init: opens; restarts in shutdown; an open association waits for the init ack
        [ CL, CL, CW, CE, ES, SS, SR, SA, CL ], // init ack from the opener: the response to a colliding init
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL ], // abort: closes in any state
        [ CL, CL, CW, CE, SS, SS, SR, SA, CL ], // shutdown: the opener closes
        [ SA, CL, CW, CE, ES, SA, SA, SA, SA ], // shutdown ack: expected from the other end; the only chunk that picks up an ending association
        [ CL, CL, CW, CE, ES, SS, SR, SA, CL ], // error: ignored from the opener
        [ CL, CL, CE, CE, ES, SS, SR, SA, CL ], // cookie echo: the third step of the handshake
        [ IV, CL, CW, ES, ES, SS, SR, SA, CL ], // cookie ack: the last step, here of a collision
        [ IV, CL, CW, CE, ES, SS, SR, CL, CL ], // shutdown complete: closes
        [ HS, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat: picks up another path of an association
        [ CL, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat ack: only the reply direction can confirm a path
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // data: opens nothing
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // anything else
    ],
    [ //  none  CL  CW  CE  ES  SS  SR  SA  HS
        [ IV, CL, CW, CE, ES, SS, SR, SA, IV ], // init: a collision, or a restart by the other end; no change until the init ack
        [ IV, CW, CW, CE, ES, SS, SR, SA, IV ], // init ack: the response
        [ IV, CL, CL, CL, CL, CL, CL, CL, IV ], // abort
        [ IV, CL, CW, CE, SR, SS, SR, SA, IV ], // shutdown: the other end closes
        [ IV, CL, CW, CE, ES, SA, SA, SA, IV ], // shutdown ack
        [ IV, CL, CW, CL, ES, SS, SR, SA, IV ], // error: in response to the cookie, it refuses the association
        [ IV, CL, CE, CE, ES, SS, SR, SA, IV ], // cookie echo: of a collision
        [ IV, CL, CW, ES, ES, SS, SR, SA, IV ], // cookie ack: the association is up
        [ IV, CL, CW, CE, ES, SS, SR, CL, IV ], // shutdown complete
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // heartbeat: the path is probed from both ends
        [ IV, CL, CW, CE, ES, SS, SR, SA, ES ], // heartbeat ack: the path is confirmed
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // data
        [ IV, CL, CW, CE, ES, SS, SR, SA, HS ], // anything else
    ],
];

/// The state after a chunk; `None` if the chunk is not valid in this state.
#[inline(always)]
pub(crate) const fn next_state(direction: Direction, kind: ChunkType, state: SctpState) -> Option<SctpState> {
    TABLE[direction as usize][kind as usize][state as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    const CHUNK_TYPES: [ChunkType; 13] = [
        ChunkType::Init,
        ChunkType::InitAck,
        ChunkType::Abort,
        ChunkType::Shutdown,
        ChunkType::ShutdownAck,
        ChunkType::Error,
        ChunkType::CookieEcho,
        ChunkType::CookieAck,
        ChunkType::ShutdownComplete,
        ChunkType::Heartbeat,
        ChunkType::HeartbeatAck,
        ChunkType::Data,
        ChunkType::Other,
    ];

    /// A snapshot of the whole table: a change of any cell shows in review.
    #[test]
    fn the_whole_matrix() {
        let mut text = String::from("                           NO CL CW CE ES SS SR SA HS\n");
        for direction in [Direction::Original, Direction::Reply] {
            for kind in CHUNK_TYPES {
                text += &format!("{:8} {:17}", format!("{direction:?}"), format!("{kind:?}"));
                for state in SctpState::ALL {
                    text += match next_state(direction, kind, *state) {
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

    /// The types with a row are those of RFC 9260; the 245 others are `Data` or `Other`.
    #[test]
    fn eleven_chunk_types_change_state() {
        let moving = (0..=255u8)
            .filter(|byte| !matches!(ChunkType::from_type(*byte), ChunkType::Data | ChunkType::Other))
            .count();
        assert_eq!(moving, 11);
    }
}
