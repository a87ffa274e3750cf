//! The TCP transition table: direction, segment class and state → proposed transition.
//!
//! The table only proposes; `Tcp::track_packet` applies the exceptions. The states are those seen by a router between the two ends.
use crate::Direction;
use crate::TcpState::{self, *};
use keepstate_wire::tcp::TcpFlags;

/// A segment's class: the first that applies of RST, SYN, FIN, ACK, none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SegmentClass {
    Syn = 0,
    SynAck = 1,
    Fin = 2,
    Ack = 3,
    Rst = 4,
    Nothing = 5,
}

impl SegmentClass {
    #[inline(always)]
    pub(crate) const fn from_flags(flags: TcpFlags) -> SegmentClass {
        if flags.any(TcpFlags::RST) {
            SegmentClass::Rst
        } else if flags.any(TcpFlags::SYN) {
            if flags.any(TcpFlags::ACK) { SegmentClass::SynAck } else { SegmentClass::Syn }
        } else if flags.any(TcpFlags::FIN) {
            SegmentClass::Fin
        } else if flags.any(TcpFlags::ACK) {
            SegmentClass::Ack
        } else {
            SegmentClass::Nothing
        }
    }

    /// From its number.
    #[inline(always)]
    pub(crate) const fn from_number(number: u8) -> SegmentClass {
        use SegmentClass::*;
        [Syn, SynAck, Fin, Ack, Rst, Nothing, Nothing, Nothing][(number & 7) as usize]
    }
}

/// A transition that the table proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Move to this state, or stay in it.
    To(TcpState),
    /// Pass the segment and keep the state: the tracker may be out of step with the two ends.
    Ignore,
    /// The segment is not valid in this state.
    Invalid,
}

use Transition::{Ignore as IG, Invalid as IV};
const SS: Transition = Transition::To(SynSent);
const SR: Transition = Transition::To(SynRecv);
const ES: Transition = Transition::To(Established);
const FW: Transition = Transition::To(FinWait);
const CW: Transition = Transition::To(CloseWait);
const LA: Transition = Transition::To(LastAck);
const TW: Transition = Transition::To(TimeWait);
const CL: Transition = Transition::To(Close);
const S2: Transition = Transition::To(SynSent2);

/// Indexed by `[direction][class][state]`.
#[rustfmt::skip]
const TABLE: [[[Transition; 10]; 6]; 2] = [
    [ //  none  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [ SS, SS, IG, IG, IG, IG, IG, SS, SS, S2 ], // syn: opens, or reopens a closed connection; otherwise the close may have been missed
        [ IV, IV, SR, IV, IV, IV, IV, IV, IV, SR ], // syn-ack from the opener: valid only in a simultaneous open
        [ IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ], // fin: the first starts the close, the second leaves only the last ack
        [ ES, IV, ES, ES, CW, CW, TW, TW, CL, IV ], // ack: ends the handshake; picks up a connection in the middle
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // rst: closes in any state
        [ IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ], // no flag of the above
    ],
    [ //  none  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [ IV, S2, IV, IV, IV, IV, IV, SS, IV, S2 ], // syn: a simultaneous open, or the other end reopens
        [ IV, SR, IG, IG, IG, IG, IG, IG, IG, SR ], // syn-ack: the response; later, possibly the response to an ignored syn
        [ IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ], // fin: as from the opener
        [ IV, IG, SR, ES, CW, CW, TW, TW, CL, IG ], // ack: before the syn-ack, possibly a challenge ack of a connection that was missed
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // rst
        [ IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ], // nothing
    ],
];

/// The transition that the table proposes for `class` from `direction` in `state`.
#[inline(always)]
pub(crate) fn next_state(direction: Direction, class: SegmentClass, state: TcpState) -> Transition {
    TABLE[direction as usize][class as usize][state as usize]
}

/// Flag sets that a segment may have; PSH, ECE and CWR are not looked at.
#[inline(always)]
pub(crate) const fn valid_flags(flags: TcpFlags) -> bool {
    const S: u8 = TcpFlags::SYN;
    const A: u8 = TcpFlags::ACK;
    const F: u8 = TcpFlags::FIN;
    const R: u8 = TcpFlags::RST;
    const U: u8 = TcpFlags::URG;
    const LEGAL: u64 =
        bit(S) | bit(S | U) | bit(S | A) | bit(R) | bit(R | A) | bit(F | A) | bit(F | A | U) | bit(A) | bit(A | U);
    const fn bit(flags: u8) -> u64 {
        1 << flags
    }
    LEGAL & bit(flags.0 & (S | A | F | R | U)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    /// A snapshot of the whole table: a change of any cell shows in review.
    #[test]
    fn the_whole_matrix() {
        let mut text = String::from("                 NO SS SR ES FW CW LA TW CL S2\n");
        for direction in [Direction::Original, Direction::Reply] {
            for class in [
                SegmentClass::Syn,
                SegmentClass::SynAck,
                SegmentClass::Fin,
                SegmentClass::Ack,
                SegmentClass::Rst,
                SegmentClass::Nothing,
            ] {
                text += &format!("{:8} {:8}", format!("{direction:?}"), format!("{class:?}"));
                for state in TcpState::ALL {
                    text += match next_state(direction, class, *state) {
                        IG => " ig",
                        IV => " iv",
                        SS => " SS",
                        SR => " SR",
                        ES => " ES",
                        FW => " FW",
                        CW => " CW",
                        LA => " LA",
                        TW => " TW",
                        CL => " CL",
                        S2 => " S2",
                        Transition::To(_) => " ??",
                    };
                }
                text += "\n";
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nine_flag_sets_are_legal() {
        let legal_sets = (0..=255u8).filter(|set| set & 0xc8 == 0 && valid_flags(TcpFlags(*set))).count();
        assert_eq!(legal_sets, 9);
    }
}
