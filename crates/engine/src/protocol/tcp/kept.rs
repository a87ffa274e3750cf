//! A TCP connection as octets, for where it is kept outside a table; and how it goes on when it comes back.
use super::transitions::Class;
use super::{Noted, Rest, Seq, Side, Tcp, Windows, side_flag};
use crate::{Direction, TcpState};
use keepstate_wire::tcp::Segment;

/// Octets of a kept connection: state, flags of both sides, scales, retransmissions; ten words, little end first, in the record's own order.
pub(crate) const LENGTH: usize = 45;

/// Segments each way, all of them where they were to be expected, after which the windows of a connection that was resumed are strict again.
const REGAINED_AFTER: u8 = 16;
/// RFC 7323, 2.3: no window is scaled by more.
const LARGEST_SCALE: u8 = 14;

impl Tcp {
    /// Without the rest of the record it was read from.
    pub(crate) fn alone(&self) -> Tcp {
        Tcp { rest: Rest::default(), ..*self }
    }

    pub(crate) fn octets(&self) -> [u8; LENGTH] {
        let mut octets = [0; LENGTH];
        let (head, words) = octets.split_at_mut(5);
        head.copy_from_slice(&[self.state, self.flags[0], self.flags[1], self.scales, self.retrans]);
        let [original, reply] = &self.windows.sides;
        let side = |side: &Side| [side.end.0, side.max_end.0, side.max_window, side.max_ack.0];
        let numbers = side(original).into_iter().chain(side(reply));
        let numbers = numbers.chain([self.windows.last_end.0, self.windows.last_tag]);
        words.as_chunks_mut::<4>().0.iter_mut().zip(numbers).for_each(|(word, number)| *word = number.to_le_bytes());
        octets
    }

    /// `None` if they are no connection's.
    pub(crate) fn from_octets(octets: &[u8; LENGTH]) -> Option<Tcp> {
        let [state, original, reply, scales, retrans, words @ ..] = octets;
        let mut numbers = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
        let mut side = || {
            let [end, max_end, max_window, max_ack] =
                [numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()?];
            Some(Side { end: Seq(end), max_end: Seq(max_end), max_window, max_ack: Seq(max_ack) })
        };
        let sides = [side()?, side()?];
        let windows = Windows { sides, last_end: Seq(numbers.next()?), last_tag: numbers.next()? };
        let tcp = Tcp {
            rest: Rest::default(),
            state: *state,
            flags: [*original, *reply],
            scales: *scales,
            retrans: *retrans,
            windows,
        };
        let known = usize::from(state & 0xf) < TcpState::ALL.len() && state >> 4 <= Class::Nothing as u8;
        let scaled = [Direction::Original, Direction::Reply].into_iter().all(|side| tcp.scale(side) <= LARGEST_SCALE);
        (known && scaled && tcp.state() != TcpState::None).then_some(tcp)
    }

    /// Goes on after a time that nobody saw: as a connection met in its middle, liberal, its windows learned from what the ends send next. How many segments
    /// each way it stays so; `None` if for ever, because it was liberal before (but for being `regaining` even then).
    pub(crate) fn resume(&mut self, regaining: bool) -> Option<[u8; 2]> {
        let strict = regaining || (self.flags[0] | self.flags[1]) & side_flag::LIBERAL == 0;
        // The numbers of a handshake do not move, and it is only begun: they are still true.
        let opening = matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2);
        if !opening {
            self.forget_both_ends();
        }
        self.set(Direction::Original, side_flag::LIBERAL);
        self.set(Direction::Reply, side_flag::LIBERAL);
        strict.then_some([REGAINED_AFTER; 2])
    }

    /// Nothing is known of either end, as if neither had sent anything yet.
    fn forget_both_ends(&mut self) {
        for direction in [Direction::Original, Direction::Reply] {
            self.windows.sides[direction as usize] = Side::default();
            self.clear(direction, side_flag::ACK_KNOWN | side_flag::UNACKNOWLEDGED);
        }
    }

    /// While windows are regained: a segment that does not fit what was learned so far shows that it was too little (after a loss, an end may acknowledge what
    /// nobody here has seen, and go on far ahead). It is learned from afresh, and the segments are counted from the beginning.
    pub(crate) fn relearn(&mut self, segment: &Segment<'_>, direction: Direction, left: &mut [u8; 2]) {
        let opening = matches!(self.state(), TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2);
        if !opening && !self.would_fit(segment, direction) {
            self.forget_both_ends();
            *left = [REGAINED_AFTER; 2];
        }
    }

    /// Its windows hold again.
    pub(crate) fn regain(&mut self) {
        self.clear(Direction::Original, side_flag::LIBERAL);
        self.clear(Direction::Reply, side_flag::LIBERAL);
    }
}

impl Noted {
    pub(crate) fn octets(&self) -> [u8; 8] {
        let ([a, b], [c, d, e, f]) = (self.window.to_be_bytes(), self.ack.0.to_be_bytes());
        [a, b, self.scale, self.flags, c, d, e, f]
    }

    pub(crate) fn from_octets(&[a, b, scale, flags, c, d, e, f]: &[u8; 8]) -> Noted {
        let flags = flags & side_flag::ALL;
        let scale = scale.min(LARGEST_SCALE);
        Noted { window: u16::from_be_bytes([a, b]), scale, flags, ack: Seq(u32::from_be_bytes([c, d, e, f])) }
    }
}
