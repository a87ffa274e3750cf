//! Encodes a TCP connection for storage outside the table, and resumes it after import.
use super::layout::{IgnoredSyn, OtherFields, Side, Tcp, Windows, side_flag};
use super::seq::Seq;
use super::transitions::SegmentClass;
use crate::{Direction, TcpState};
use keepstate_wire::tcp::TcpSegment;

/// Length in bytes of an encoded connection: state, flags of both sides, scales, retransmissions; ten little-endian words, in the order of the record.
pub(crate) const ENCODED_LEN: usize = 45;

/// Number of segments in each direction, all inside the window, after which a resumed connection's window checks are strict again.
const STRICT_AFTER_SEGMENTS: u8 = 16;
/// The largest window scale (RFC 7323, 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

impl Tcp {
    /// A copy without the other fields of its record.
    pub(crate) fn without_record(&self) -> Tcp {
        Tcp { other_fields: OtherFields::default(), ..*self }
    }

    pub(crate) fn to_bytes(self) -> [u8; ENCODED_LEN] {
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

    /// `None` if the bytes are not a valid connection.
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

    /// Forgets the numbers of both ends, since segments pass elsewhere and move them.
    pub(crate) fn forget_windows(&mut self) {
        self.reset_sides_to(Side::FORGOTTEN);
    }

    /// Segments may have passed elsewhere that have moved the windows: they are forgotten. During the handshake none has.
    pub(crate) fn forget_moved_windows(&mut self) {
        if !self.is_opening() {
            self.forget_windows();
        }
    }

    /// Are they forgotten, and no segment seen since?
    #[inline(always)]
    pub(crate) fn are_windows_forgotten(&self) -> bool {
        self.windows.sides == [Side::FORGOTTEN; 2]
    }

    /// Does its handshake go on?
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2)
    }

    /// Resumes a connection after a time without tracking: as if picked up in the middle, with liberal window checks and windows learned from the next segments. Returns the number of
    /// segments in each direction for which it stays liberal; `None` for ever, if it was liberal before for another reason than an earlier resume (`regaining`).
    pub(crate) fn resume(&mut self, regaining: bool) -> Option<[u8; 2]> {
        let strict = regaining || (self.flags[0] | self.flags[1]) & side_flag::BE_LIBERAL == 0;
        // During a handshake the sequence numbers do not advance, so they are still valid.
        if !self.is_opening() {
            self.reset_sides_to(Side::default());
        }
        self.set_side_flag(Direction::Original, side_flag::BE_LIBERAL);
        self.set_side_flag(Direction::Reply, side_flag::BE_LIBERAL);
        strict.then_some([STRICT_AFTER_SEGMENTS; 2])
    }

    fn reset_sides_to(&mut self, side: Side) {
        for direction in [Direction::Original, Direction::Reply] {
            self.windows.sides[direction as usize] = side;
            self.clear_side_flag(direction, side_flag::MAXACK_SET | side_flag::DATA_UNACKNOWLEDGED);
        }
    }

    /// While windows are being relearned: a segment outside the learned windows means that they are incomplete (after a loss, an end may acknowledge data
    /// that was never tracked, and continue far ahead). Both windows are then learned afresh, and the segment count starts again.
    pub(crate) fn relearn_windows(&mut self, segment: &TcpSegment<'_>, direction: Direction, left: &mut [u8; 2]) {
        let opening = matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2);
        if !opening && !self.would_be_in_window(segment, direction) {
            self.reset_sides_to(Side::default());
            *left = [STRICT_AFTER_SEGMENTS; 2];
        }
    }

    /// Makes the window checks strict again.
    pub(crate) fn clear_liberal(&mut self) {
        self.clear_side_flag(Direction::Original, side_flag::BE_LIBERAL);
        self.clear_side_flag(Direction::Reply, side_flag::BE_LIBERAL);
    }
}

impl IgnoredSyn {
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.window.to_be_bytes(), self.ack.0.to_be_bytes());
        [a, b, self.scale, self.flags, c, d, e, f]
    }

    pub(crate) fn from_bytes(&[a, b, scale, flags, c, d, e, f]: &[u8; 8]) -> IgnoredSyn {
        let flags = flags & side_flag::ALL;
        let scale = scale.min(MAX_WINDOW_SCALE);
        IgnoredSyn { window: u16::from_be_bytes([a, b]), scale, flags, ack: Seq(u32::from_be_bytes([c, d, e, f])) }
    }
}
