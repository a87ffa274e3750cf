//! Is a segment within the window? The four inequalities of Guido van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2001),
//! with what Linux learned since (`tcp_in_window`):
//!
//! ```text
//! I    seq  ≤ the sender's highest permitted end
//! II   sack ≤ the receiver's highest end seen         (nobody acknowledges what was not sent)
//! III  end  ≥ the sender's end − the receiver's window (no retransmission of what was long acknowledged)
//! IV   sack ≥ the receiver's end − 66000 or the sender's window
//! ```
//! `end` is seq plus data plus SYN and FIN; `sack` the highest of ack and the SACK blocks.
use super::super::Context;
use super::seq::Seq;
use super::transitions::Class;
use super::{Side, Tcp, side_flag};
use crate::{Direction, Knob, TcpState, Why};
use keepstate_wire::tcp::{Flags, Segment};

/// An acknowledgement may be this old even where the window is small.
const OLD_ACK: u32 = 66000;

/// What the window says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Inside.
    Inside,
    /// Not inside, but perhaps honest: pass it and learn nothing.
    Ignore(Why),
    /// Not inside.
    Outside(Why),
}

/// The numbers of one segment.
struct Numbers {
    seq: Seq,
    end: Seq,
    ack: Seq,
    sack: Seq,
}

impl Tcp {
    /// Holds `segment` against the window, and learns from it if it fits.
    #[inline(always)]
    pub(super) fn fit(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        class: Class,
        context: &Context<'_>,
    ) -> Fit {
        let (seq, end) = (Seq(segment.seq), segment_end(segment));
        let mut numbers = Numbers { seq, end, ack: Seq(segment.ack), sack: Seq(segment.ack) };
        let sack_permitted = self.sides[direction.opposite() as usize].flags & side_flag::SACK_PERMITTED != 0;
        if sack_permitted && !segment.options.is_empty() {
            numbers.sack = Seq(segment.highest_sack(segment.ack));
        }
        if self.begin_side(segment, direction, &numbers) {
            return Fit::Inside;
        }
        let (_, receiver) = self.ends(direction);
        let zero_ack_reset = segment.flags.any(Flags::RST) && segment.ack == 0;
        if !segment.flags.any(Flags::ACK) || zero_ack_reset {
            // Without an ACK (or with the zero that broken stacks put into a RST), pretend it acknowledges everything.
            (numbers.ack, numbers.sack) = (receiver.end, receiver.end);
        }
        if segment.flags.any(Flags::RST) && segment.seq == 0 && self.state == TcpState::SynSent {
            // The RST that refuses a SYN has no number of its own.
            let (sender, _) = self.ends(direction);
            (numbers.seq, numbers.end) = (sender.end, sender.end);
        }
        let (sender, receiver) = self.ends(direction);
        let liberal = sender.flags & side_flag::LIBERAL != 0 || context.knobs.on(Knob::TcpBeLiberal);
        match judge(sender, receiver, &numbers) {
            Fit::Inside => {
                learn(sender, receiver, segment, &numbers);
                if class == Class::Ack {
                    self.note_ack(segment, direction, end, context.secret);
                }
                Fit::Inside
            }
            // Liberal: it passes, and nothing is learned from it.
            _ if liberal => Fit::Inside,
            fit => fit,
        }
    }

    /// The sender's and the receiver's side of a segment from `direction`.
    #[inline(always)]
    fn ends(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [original, reply] = &mut self.sides;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    /// Learns a side from its first segment, or afresh from a new SYN. True if the segment needs no further look.
    #[inline(always)]
    fn begin_side(&mut self, segment: &Segment<'_>, direction: Direction, numbers: &Numbers) -> bool {
        let state = self.state;
        let (sender, receiver) = self.ends(direction);
        let (syn, ack) = (segment.flags.any(Flags::SYN), segment.flags.any(Flags::ACK));
        if sender.max_window == 0 {
            if syn {
                begin_from_syn(sender, receiver, segment, direction, numbers.end);
                // A SYN both ways: a simultaneous open.
                return !ack;
            }
            // In the middle of a connection whose beginning we missed.
            sender.end = numbers.end;
            sender.max_window = (u32::from(segment.window) << sender.scale).max(1);
            sender.max_end = numbers.end.plus(sender.max_window);
            if receiver.max_window == 0 {
                (receiver.end, receiver.max_end) = (numbers.sack, numbers.sack);
            } else if numbers.sack == receiver.end.plus(1) {
                // The answer to a keepalive, whose octet we did not count.
                receiver.end = receiver.end.plus(1);
            }
        } else if syn && numbers.end.after(sender.end) && matches!(state, TcpState::SynSent | TcpState::SynRecv) {
            // Begun again with a later number (RFC 9293, 3.4.3): options may differ too.
            begin_from_syn(sender, receiver, segment, direction, numbers.end);
            return direction == Direction::Reply && !ack;
        }
        false
    }
}

/// Sequence number after the segment: its data, and one each for SYN and FIN.
#[inline(always)]
pub(super) fn segment_end(segment: &Segment<'_>) -> Seq {
    let syn = u32::from(segment.flags.any(Flags::SYN));
    let fin = u32::from(segment.flags.any(Flags::FIN));
    // An IP datagram has at most 65,535 octets (wire refuses jumbograms).
    Seq(segment.seq).plus(segment.data_len as u32).plus(syn + fin)
}

/// RFC 7323, 2.2: scaling holds only if both sides offered it.
fn begin_from_syn(sender: &mut Side, receiver: &mut Side, segment: &Segment<'_>, direction: Direction, end: Seq) {
    sender.end = end;
    sender.max_end = end;
    sender.max_window = u32::from(segment.window).max(1);
    sender.read_options(segment);
    let both = sender.flags & receiver.flags & side_flag::SCALE != 0;
    if direction == Direction::Reply && !both {
        sender.scale = 0;
        receiver.scale = 0;
    }
}

#[inline(always)]
fn judge(sender: &mut Side, receiver: &Side, numbers: &Numbers) -> Fit {
    let oldest_ack = receiver.end.minus(sender.max_window.max(OLD_ACK)).minus(1);
    let in_window = |unknown: bool| {
        if receiver.max_window == 0 {
            unknown
        } else {
            numbers.end.after(sender.end.minus(receiver.max_window).minus(1))
        }
    };
    if !numbers.seq.before(sender.max_end.plus(1)) {
        let over = numbers.end.since(sender.max_end).wrapping_add(1);
        let acks_fit = numbers.sack.after(oldest_ack) && numbers.sack.before(receiver.end.plus(1));
        if in_window(false) && acks_fit && over <= receiver.max_window {
            // A sender that takes a little more than its window. If the ruleset lets it pass and the peer acknowledges it, that ack must
            // not look like one of data never sent; so remember the end.
            sender.end = numbers.end;
            sender.flags |= side_flag::UNACKNOWLEDGED;
            return Fit::Ignore(Why::TcpOverWindow);
        }
        return Fit::Outside(Why::TcpSeqAbove);
    }
    if !numbers.sack.before(receiver.end.plus(1)) {
        return Fit::Outside(Why::TcpAckAbove);
    }
    if !in_window(true) {
        return Fit::Ignore(Why::TcpSeqBelow);
    }
    if !numbers.sack.after(oldest_ack) {
        return Fit::Ignore(Why::TcpAckBelow);
    }
    Fit::Inside
}

/// What a segment inside the window teaches of both sides.
#[inline(always)]
fn learn(sender: &mut Side, receiver: &mut Side, segment: &Segment<'_>, numbers: &Numbers) {
    let mut window = u32::from(segment.window);
    if !segment.flags.any(Flags::SYN) {
        window <<= sender.scale;
    }
    sender.max_window = sender.max_window.max(window.wrapping_add(numbers.sack.since(numbers.ack)));
    if numbers.end.after(sender.end) {
        sender.end = numbers.end;
        sender.flags |= side_flag::UNACKNOWLEDGED;
    }
    if segment.flags.any(Flags::ACK) && (sender.flags & side_flag::ACK_KNOWN == 0 || numbers.ack.after(sender.max_ack))
    {
        sender.max_ack = numbers.ack;
        sender.flags |= side_flag::ACK_KNOWN;
    }
    if receiver.max_window != 0 && numbers.end.after(sender.max_end) {
        receiver.max_window = receiver.max_window.wrapping_add(numbers.end.since(sender.max_end));
    }
    let permitted = numbers.sack.plus(window);
    if permitted.after(receiver.max_end.minus(1)) {
        // A window of zero may be probed by one octet.
        receiver.max_end = if window == 0 { permitted.plus(1) } else { permitted };
    }
    if numbers.ack == receiver.end {
        receiver.flags &= !side_flag::UNACKNOWLEDGED;
    }
}
