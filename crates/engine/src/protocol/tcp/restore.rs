//! A TCP connection as bytes, for where it is kept outside a table; and how it goes on when it comes back.
use super::layout::{IgnoredSyn, OtherFields, Side, Tcp, Windows, side_flag};
use super::seq::Seq;
use super::transitions::SegmentClass;
use crate::{Direction, TcpState};
use keepstate_wire::tcp::TcpSegment;

/// Bytes of a kept connection: state, flags of both sides, scales, retransmissions; ten words, little end first, in the record's own order.
pub(crate) const ENCODED_LEN: usize = 45;

/// Segments each way, all of them where they were to be expected, after which the windows of a connection that was resumed are strict again.
const STRICT_AFTER_SEGMENTS: u8 = 16;
/// RFC 7323, 2.3: no window is scaled by more.
const MAX_WINDOW_SCALE: u8 = 14;

impl Tcp {
    /// Without the rest of the record it was read from.
    pub(crate) fn without_record(&self) -> Tcp {
        Tcp { other_fields: OtherFields::default(), ..*self }
    }

    pub(crate) fn to_bytes(&self) -> [u8; ENCODED_LEN] {
        let mut bytes = [0; ENCODED_LEN];
        let (head, words) = bytes.split_at_mut(5);
        head.copy_from_slice(&[self.state, self.flags[0], self.flags[1], self.scales, self.retrans]);
        let [original, reply] = &self.windows.sides;
        let side = |side: &Side| [side.end.0, side.max_end.0, side.max_window, side.max_ack.0];
        let numbers = side(original).into_iter().chain(side(reply));
        let numbers = numbers.chain([self.windows.last_end.0, self.windows.last_hash]);
        words.as_chunks_mut::<4>().0.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_le_bytes());
        bytes
    }

    /// `None` if they are no connection's.
    pub(crate) fn from_bytes(bytes: &[u8; ENCODED_LEN]) -> Option<Tcp> {
        let [state, original, reply, scales, retrans, words @ ..] = bytes;
        let mut numbers = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut side = || {
            let [end, max_end, max_window, max_ack] =
                [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
            Some(Side { end: Seq(end), max_end: Seq(max_end), max_window, max_ack: Seq(max_ack) })
        };
        let sides = [side()?, side()?];
        let windows = Windows { sides, last_end: Seq(numbers.next()?), last_hash: numbers.next()? };
        let tcp = Tcp {
            other_fields: OtherFields::default(),
            state: *state,
            flags: [*original, *reply],
            scales: *scales,
            retrans: *retrans,
            windows,
        };
        let known = usize::from(state & 0xf) < TcpState::ALL.len() && state >> 4 <= SegmentClass::Nothing as u8;
        let scaled =
            [Direction::Original, Direction::Reply].into_iter().all(|side| tcp.scale(side) <= MAX_WINDOW_SCALE);
        (known && scaled && tcp.state() != TcpState::None).then_some(tcp)
    }

    /// Goes on after a time that nobody saw: as a connection met in its middle, liberal, its windows learned from what the ends send next. How many segments
    /// each way it stays so; `None` if for ever, because it was liberal before (but for being `regaining` even then).
    pub(crate) fn resume(&mut self, regaining: bool) -> Option<[u8; 2]> {
        let strict = regaining || (self.flags[0] | self.flags[1]) & side_flag::BE_LIBERAL == 0;
        // The numbers of a handshake do not move, and it is only begun: they are still true.
        let opening = matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2);
        if !opening {
            self.reset_sides();
        }
        self.set_side_flag(Direction::Original, side_flag::BE_LIBERAL);
        self.set_side_flag(Direction::Reply, side_flag::BE_LIBERAL);
        strict.then_some([STRICT_AFTER_SEGMENTS; 2])
    }

    /// Nothing is known of either end, as if neither had sent anything yet.
    fn reset_sides(&mut self) {
        for direction in [Direction::Original, Direction::Reply] {
            self.windows.sides[direction as usize] = Side::default();
            self.clear_side_flag(direction, side_flag::MAXACK_SET | side_flag::DATA_UNACKNOWLEDGED);
        }
    }

    /// While windows are regained: a segment that does not fit what was learned so far shows that it was too little (after a loss, an end may acknowledge what
    /// nobody here has seen, and go on far ahead). It is learned from afresh, and the segments are counted from the beginning.
    pub(crate) fn relearn_windows(&mut self, segment: &TcpSegment<'_>, direction: Direction, left: &mut [u8; 2]) {
        let opening = matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2);
        if !opening && !self.would_be_in_window(segment, direction) {
            self.reset_sides();
            *left = [STRICT_AFTER_SEGMENTS; 2];
        }
    }

    /// Its windows hold again.
    pub(crate) fn clear_liberal(&mut self) {
        self.clear_side_flag(Direction::Original, side_flag::BE_LIBERAL);
        self.clear_side_flag(Direction::Reply, side_flag::BE_LIBERAL);
    }
}

impl IgnoredSyn {
    pub(crate) fn to_bytes(&self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.window.to_be_bytes(), self.ack.0.to_be_bytes());
        [a, b, self.scale, self.flags, c, d, e, f]
    }

    pub(crate) fn from_bytes(&[a, b, scale, flags, c, d, e, f]: &[u8; 8]) -> IgnoredSyn {
        let flags = flags & side_flag::ALL;
        let scale = scale.min(MAX_WINDOW_SCALE);
        IgnoredSyn { window: u16::from_be_bytes([a, b]), scale, flags, ack: Seq(u32::from_be_bytes([c, d, e, f])) }
    }
}
