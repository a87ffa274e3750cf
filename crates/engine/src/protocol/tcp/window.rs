//! The TCP window check: the four inequalities of Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001),
//! with the later additions of Linux (`tcp_in_window`):
//!
//! ```text
//! I    seq  ≤ the sender's highest permitted end
//! II   sack ≤ the receiver's highest end seen         (only sent data can be acknowledged)
//! III  end  ≥ the sender's end − the receiver's window (no retransmission of data acknowledged long ago)
//! IV   sack ≥ the receiver's end − 66000 or the sender's window
//! ```
//! `end` is seq plus data plus SYN and FIN; `sack` the highest of ack and the SACK blocks.
use super::super::TrackCtx;
use super::layout::{Side, Tcp, side_flag};
use super::seq::Seq;
use super::transitions::SegmentClass;
use crate::{Direction, Reason, Sysctl, TcpState};
use keepstate_wire::tcp::{TcpFlags, TcpSegment};

/// An acknowledgement may lag by this many bytes even if the window is small.
const MAX_ACK_WINDOW: u32 = 66000;

/// The result of the window check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowCheck {
    /// Inside the window.
    Inside,
    /// Outside the window, but possibly legitimate: pass the segment, and update nothing.
    Ignore(Reason),
    /// Outside the window.
    Outside(Reason),
}

/// The numbers of one segment.
struct SegmentNumbers {
    seq: Seq,
    end: Seq,
    ack: Seq,
    sack: Seq,
}

impl Tcp {
    /// Checks `segment` against the window, and updates the window if it fits.
    #[inline(always)]
    pub(super) fn check_window(
        &mut self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        class: SegmentClass,
        context: &TrackCtx<'_>,
    ) -> WindowCheck {
        let (seq, end) = (Seq(segment.seq), segment_end(segment));
        let ack = Seq(segment.ack).minus(context.ack_offset);
        let mut numbers = SegmentNumbers { seq, end, ack, sack: ack };
        if !segment.options.is_empty() && self.has_side_flag(direction.opposite(), side_flag::SACK_PERM) {
            numbers.sack = Seq(segment.highest_sack(segment.ack)).minus(context.ack_offset);
        }
        if self.init_side(segment, direction, &numbers) {
            return WindowCheck::Inside;
        }
        let reset = segment.flags.any(TcpFlags::RST);
        if !segment.flags.any(TcpFlags::ACK) || reset && ack == Seq(0) {
            // Without an ACK (or with ack 0, which broken stacks put into a RST), treat everything as acknowledged.
            let receiver = self.side(direction.opposite());
            (numbers.ack, numbers.sack) = (receiver.end, receiver.end);
        }
        if reset && segment.seq == 0 && self.state() == TcpState::SynSent {
            // The RST that refuses a SYN has no sequence number of its own.
            let sender = self.side(direction);
            (numbers.seq, numbers.end) = (sender.end, sender.end);
        }
        if self.satisfies_window(direction, &numbers) {
            self.update_window(segment, direction, &numbers);
            if class == SegmentClass::Ack {
                self.count_retransmissions(segment, direction, end, context.secret);
            }
            return WindowCheck::Inside;
        }
        let fit = self.classify_out_of_window(direction, &numbers);
        // Liberal: the segment passes, and nothing else is updated.
        let liberal =
            self.has_side_flag(direction, side_flag::BE_LIBERAL) || context.sysctls.is_enabled(Sysctl::TcpBeLiberal);
        if liberal { WindowCheck::Inside } else { fit }
    }

    /// Is the segment inside the window, as far as both ends are known? Nothing is updated.
    #[cold]
    pub(super) fn would_be_in_window(&self, segment: &TcpSegment<'_>, direction: Direction) -> bool {
        let [sender, receiver] = [direction, direction.opposite()].map(|side| &self.windows.sides[side as usize]);
        let (seq, end) = (Seq(segment.seq), segment_end(segment));
        let (ack, sack) = match segment.flags.any(TcpFlags::ACK) {
            true => (Seq(segment.ack), Seq(segment.highest_sack(segment.ack))),
            false => (receiver.end, receiver.end),
        };
        let known = sender.max_window != 0 && receiver.max_window != 0;
        !known || self.satisfies_window(direction, &SegmentNumbers { seq, end, ack, sack })
    }

    #[inline(always)]
    fn side(&mut self, direction: Direction) -> &mut Side {
        &mut self.windows.sides[direction as usize]
    }

    /// The sender's and the receiver's side of a segment from `direction`.
    #[inline(always)]
    fn sender_and_receiver(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [original, reply] = &mut self.windows.sides;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    /// Initializes a side from its first segment, or again from a new SYN. True if no further check is needed.
    #[inline(always)]
    fn init_side(&mut self, segment: &TcpSegment<'_>, direction: Direction, numbers: &SegmentNumbers) -> bool {
        let (syn, ack) = (segment.flags.any(TcpFlags::SYN), segment.flags.any(TcpFlags::ACK));
        let unseen = self.side(direction).max_window == 0;
        if unseen && syn {
            self.init_side_from_syn(segment, direction, numbers.end);
            // SYNs in both directions: a simultaneous open.
            return !ack;
        }
        if unseen {
            self.init_side_midstream(segment, direction, numbers);
        } else if syn
            && numbers.end.after(self.side(direction).end)
            && matches!(self.state(), TcpState::SynSent | TcpState::SynRecv)
        {
            // Restarted with a later sequence number (RFC 9293, 3.4.3): the options may differ too.
            self.init_side_from_syn(segment, direction, numbers.end);
            return direction == Direction::Reply && !ack;
        }
        false
    }

    /// RFC 7323, 2.2: window scaling applies only if both sides offered it.
    #[cold]
    fn init_side_from_syn(&mut self, segment: &TcpSegment<'_>, direction: Direction, end: Seq) {
        let sender = self.side(direction);
        (sender.end, sender.max_end) = (end, end);
        sender.max_window = u32::from(segment.window).max(1);
        self.read_options(segment, direction);
        let both = self.flags[0] & self.flags[1] & side_flag::WINDOW_SCALE != 0;
        if direction == Direction::Reply && !both {
            self.scales = 0;
        }
    }

    /// Initializes a side of a connection picked up in the middle from this segment.
    #[cold]
    fn init_side_midstream(&mut self, segment: &TcpSegment<'_>, direction: Direction, numbers: &SegmentNumbers) {
        let window = (u32::from(segment.window) << self.scale(direction)).max(1);
        let (sender, receiver) = self.sender_and_receiver(direction);
        sender.end = numbers.end;
        sender.max_window = window;
        sender.max_end = numbers.end.plus(window);
        if receiver.max_window == 0 {
            (receiver.end, receiver.max_end) = (numbers.sack, numbers.sack);
        } else if numbers.sack == receiver.end.plus(1) {
            // The response to a keepalive, whose byte was not counted.
            receiver.end = receiver.end.plus(1);
        }
    }

    /// The four inequalities.
    #[inline(always)]
    fn satisfies_window(&self, direction: Direction, numbers: &SegmentNumbers) -> bool {
        let sender = &self.windows.sides[direction as usize];
        let receiver = &self.windows.sides[direction.opposite() as usize];
        numbers.seq.before(sender.max_end.plus(1))
            && numbers.sack.before(receiver.end.plus(1))
            && (receiver.max_window == 0 || numbers.end.after(sender.end.minus(receiver.max_window).minus(1)))
            && numbers.sack.after(min_ack(sender, receiver))
    }

    /// Which inequality does a segment outside the window violate?
    #[cold]
    fn classify_out_of_window(&mut self, direction: Direction, numbers: &SegmentNumbers) -> WindowCheck {
        let (sender, receiver) = self.sender_and_receiver(direction);
        let (sender, receiver) = (*sender, *receiver);
        let oldest_ack = min_ack(&sender, &receiver);
        let in_window = numbers.end.after(sender.end.minus(receiver.max_window).minus(1));
        if !numbers.seq.before(sender.max_end.plus(1)) {
            let over = numbers.end.since(sender.max_end).wrapping_add(1);
            let acks_fit = numbers.sack.after(oldest_ack) && numbers.sack.before(receiver.end.plus(1));
            if receiver.max_window != 0 && in_window && acks_fit && over <= receiver.max_window {
                // A sender that exceeds its window slightly. If the ruleset accepts the segment and the peer acknowledges it, that ACK
                // must not look like one for unsent data; so the end is recorded.
                self.side(direction).end = numbers.end;
                self.set_side_flag(direction, side_flag::DATA_UNACKNOWLEDGED);
                return WindowCheck::Ignore(Reason::TcpOverWindow);
            }
            return WindowCheck::Outside(Reason::TcpSeqAbove);
        }
        if !numbers.sack.before(receiver.end.plus(1)) {
            return WindowCheck::Outside(Reason::TcpAckAbove);
        }
        if receiver.max_window != 0 && !in_window {
            return WindowCheck::Ignore(Reason::TcpSeqBelow);
        }
        WindowCheck::Ignore(Reason::TcpAckBelow)
    }

    /// Updates both sides from a segment inside the window.
    #[inline(always)]
    fn update_window(&mut self, segment: &TcpSegment<'_>, direction: Direction, numbers: &SegmentNumbers) {
        let scale = if segment.flags.any(TcpFlags::SYN) { 0 } else { self.scale(direction) };
        let window = u32::from(segment.window) << scale;
        let mut flags = self.flags[direction as usize];
        let (sender, receiver) = self.sender_and_receiver(direction);
        sender.max_window = sender.max_window.max(window.wrapping_add(numbers.sack.since(numbers.ack)));
        if numbers.end.after(sender.end) {
            sender.end = numbers.end;
            flags |= side_flag::DATA_UNACKNOWLEDGED;
        }
        let newer = flags & side_flag::MAXACK_SET == 0 || numbers.ack.after(sender.max_ack);
        if segment.flags.any(TcpFlags::ACK) && newer {
            sender.max_ack = numbers.ack;
            flags |= side_flag::MAXACK_SET;
        }
        if receiver.max_window != 0 && numbers.end.after(sender.max_end) {
            receiver.max_window = receiver.max_window.wrapping_add(numbers.end.since(sender.max_end));
        }
        let permitted = numbers.sack.plus(window);
        if permitted.after(receiver.max_end.minus(1)) {
            // A zero window may be probed with one byte.
            receiver.max_end = if window == 0 { permitted.plus(1) } else { permitted };
        }
        let all_acknowledged = numbers.ack == receiver.end;
        self.flags[direction as usize] = flags;
        if all_acknowledged {
            self.clear_side_flag(direction.opposite(), side_flag::DATA_UNACKNOWLEDGED);
        }
    }
}

/// The oldest acknowledgement that may still be in flight, less one.
#[inline(always)]
pub(super) fn min_ack(sender: &Side, receiver: &Side) -> Seq {
    receiver.end.minus(sender.max_window.max(MAX_ACK_WINDOW)).minus(1)
}

/// Sequence number after the segment: its data, and one each for SYN and FIN.
#[inline(always)]
pub(super) fn segment_end(segment: &TcpSegment<'_>) -> Seq {
    let syn = u32::from(segment.flags.any(TcpFlags::SYN));
    let fin = u32::from(segment.flags.any(TcpFlags::FIN));
    // An IP packet has at most 65,535 bytes: the wire crate rejects jumbograms.
    Seq(segment.seq).plus(segment.data_len as u32).plus(syn + fin)
}
