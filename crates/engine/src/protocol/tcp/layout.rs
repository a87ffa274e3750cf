//! A TCP connection in the 45 octets a record has for it.
//!
//! ```text
//! state    low half: the state; high half: the class of the last segment
//! flags    each side's six flags; side 0: 0x40 last direction was reply, 0x80 last window was zero
//!                                 side 1: 0x40 a challenge may come,     0x80 simultaneous open
//! scales   low half: original's, high half: reply's
//! retrans  as it is
//! words    original end, max end, max window, max ack; the same of the reply; last end; last tag
//! ```
use super::seq::Seq;
use super::transitions::Class;
use super::{Last, Side, Tcp, side_flag};
use crate::table::record::Hot;
use crate::{Direction, TcpState};

const FIRST: u8 = 0x40;
const SECOND: u8 = 0x80;

impl Tcp {
    /// Reads it from a record.
    #[inline(always)]
    pub(crate) fn load(hot: &Hot) -> Tcp {
        let words = &hot.words;
        let side = |at: usize, scale: u8| Side {
            end: Seq(words[at * 4]),
            max_end: Seq(words[at * 4 + 1]),
            max_window: words[at * 4 + 2],
            max_ack: Seq(words[at * 4 + 3]),
            scale,
            flags: hot.flags[at] & side_flag::ALL,
        };
        Tcp {
            state: state(hot.state & 0xf),
            sides: [side(0, hot.scales & 0xf), side(1, hot.scales >> 4)],
            last: Last {
                class: Class::from_number(hot.state >> 4),
                direction: if hot.flags[0] & FIRST == 0 { Direction::Original } else { Direction::Reply },
                end: Seq(words[8]),
                tag: words[9],
                zero_window: hot.flags[0] & SECOND != 0,
            },
            retrans: hot.retrans,
            simultaneous: hot.flags[1] & SECOND != 0,
            challenge: hot.flags[1] & FIRST != 0,
        }
    }

    /// Writes it into a record.
    #[inline(always)]
    pub(crate) fn store(&self, hot: &mut Hot) {
        let Tcp { state, sides: [original, reply], last, retrans, simultaneous, challenge } = self;
        hot.state = *state as u8 | (last.class as u8) << 4;
        hot.flags = [
            original.flags | flag(FIRST, last.direction == Direction::Reply) | flag(SECOND, last.zero_window),
            reply.flags | flag(FIRST, *challenge) | flag(SECOND, *simultaneous),
        ];
        hot.scales = original.scale | reply.scale << 4;
        hot.retrans = *retrans;
        hot.words = [
            original.end.0,
            original.max_end.0,
            original.max_window,
            original.max_ack.0,
            reply.end.0,
            reply.max_end.0,
            reply.max_window,
            reply.max_ack.0,
            last.end.0,
            last.tag,
        ];
    }
}

#[inline(always)]
const fn flag(bit: u8, on: bool) -> u8 {
    if on { bit } else { 0 }
}

/// The state of a number; only numbers that [`Tcp::store`] wrote come here.
#[inline(always)]
const fn state(number: u8) -> TcpState {
    match number {
        1 => TcpState::SynSent,
        2 => TcpState::SynRecv,
        3 => TcpState::Established,
        4 => TcpState::FinWait,
        5 => TcpState::CloseWait,
        6 => TcpState::LastAck,
        7 => TcpState::TimeWait,
        8 => TcpState::Close,
        9 => TcpState::SynSent2,
        _ => TcpState::None,
    }
}
