//! TCP as a table: direction, class of the segment, state before → what the table proposes.
//!
//! The table proposes; exceptions dispose (`advance`). The states are the connection's as seen from between the two ends.
use crate::Direction;
use crate::TcpState::{self, *};
use keepstate_wire::tcp::TcpFlags;

/// A segment by its flags: the first that applies of RST, SYN, FIN, ACK, nothing.
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

    /// Back from its number.
    #[inline(always)]
    pub(crate) const fn from_number(number: u8) -> SegmentClass {
        use SegmentClass::*;
        [Syn, SynAck, Fin, Ack, Rst, Nothing, Nothing, Nothing][(number & 7) as usize]
    }
}

/// What the table proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Move to this state (or stay there).
    To(TcpState),
    /// Let it pass and keep the state: we may be the one out of step.
    Ignore,
    /// It has no business here.
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

/// `[direction][class][state]`.
#[rustfmt::skip]
const TABLE: [[[Transition; 10]; 6]; 2] = [
    [ //  none  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [ SS, SS, IG, IG, IG, IG, IG, SS, SS, S2 ], // syn: opens, or reopens what has closed; else perhaps we missed the close
        [ IV, IV, SR, IV, IV, IV, IV, IV, IV, SR ], // syn-ack from the opener: only in a simultaneous open
        [ IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ], // fin: the first close begins to wait, the second leaves the last ack open
        [ ES, IV, ES, ES, CW, CW, TW, TW, CL, IV ], // ack: ends the handshake; picks up a connection whose beginning we missed
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // rst: closes whatever was open
        [ IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ], // no flag that means anything
    ],
    [ //  none  SS  SR  ES  FW  CW  LA  TW  CL  S2
        [ IV, S2, IV, IV, IV, IV, IV, SS, IV, S2 ], // syn: a simultaneous open; or the other end reopens
        [ IV, SR, IG, IG, IG, IG, IG, IG, IG, SR ], // syn-ack: the answer; later, perhaps to a syn we ignored
        [ IV, IV, FW, FW, LA, LA, LA, TW, CL, IV ], // fin: as from the opener
        [ IV, IG, SR, ES, CW, CW, TW, TW, CL, IG ], // ack: before the answer perhaps a challenge ack of a connection we missed
        [ IV, CL, CL, CL, CL, CL, CL, CL, CL, CL ], // rst
        [ IV, IV, IV, IV, IV, IV, IV, IV, IV, IV ], // nothing
    ],
];

/// What the table proposes for `class` from `direction` in `state`.
#[inline(always)]
pub(crate) fn next_state(direction: Direction, class: SegmentClass, state: TcpState) -> Transition {
    TABLE[direction as usize][class as usize][state as usize]
}

/// Flag sets that a segment may carry, PSH, ECE and CWR left out.
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

    /// A change of any cell is reviewed as a picture.
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
