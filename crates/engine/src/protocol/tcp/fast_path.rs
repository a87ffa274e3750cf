//! The fast path for nearly all segments: an ACK, with or without data, of an established and assured connection, inside the window,
//! with both sides known and no SACK blocks to parse.
//!
//! The result must equal that of [`Tcp::track_packet`], with as few instructions as possible; a property test checks this. A segment is processed
//! completely or not at all: if the fast path does not apply, nothing is changed.
#[cfg(test)]
mod tests;

use super::layout::{ConnFlag, Tcp, side_flag};
use super::segment_hash;
use super::seq::Seq;
use super::transitions::SegmentClass;
use super::window::min_ack;
use crate::{Direction, Sysctl, Sysctls, TcpState};
use keepstate_wire::tcp::{TcpFlags, TcpSegment};

/// The sysctls that the fast path needs, precomputed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastPathTimeouts {
    /// Timeout of an established connection of which no segment is sent again, in ticks.
    established: u32,
    /// The same while data is unacknowledged.
    unacknowledged: u32,
    max_retrans: u32,
    /// Timeouts of a UDP connection, in ticks: before it is a stream, and then.
    pub(crate) udp: u32,
    pub(crate) udp_stream: u32,
}

impl From<&Sysctls> for FastPathTimeouts {
    fn from(sysctls: &Sysctls) -> FastPathTimeouts {
        let whole = sysctls[Sysctl::TcpTimeoutEstablished];
        // Without any retransmission allowed, every segment has had too many.
        let at_most = match sysctls[Sysctl::TcpMaxRetrans] {
            0 => sysctls[Sysctl::TcpTimeoutMaxRetrans],
            _ => u32::MAX,
        };
        let unacknowledged =
            if whole > at_most { at_most } else { whole.min(sysctls[Sysctl::TcpTimeoutUnacknowledged]) };
        FastPathTimeouts {
            established: super::super::seconds_to_ticks(whole.min(at_most)),
            unacknowledged: super::super::seconds_to_ticks(unacknowledged),
            max_retrans: sysctls[Sysctl::TcpMaxRetrans],
            udp: super::super::seconds_to_ticks(sysctls[Sysctl::UdpTimeout]),
            udp_stream: super::super::seconds_to_ticks(sysctls[Sysctl::UdpTimeoutStream]),
        }
    }
}

impl Tcp {
    /// The timeout in ticks; `None`, with nothing changed, if the fast path does not apply.
    #[inline(always)]
    pub(crate) fn track_established(
        &mut self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        (pace, sysctls): (&FastPathTimeouts, &Sysctls),
        secret: (u64, u64),
    ) -> Option<u32> {
        const CLASS: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;
        let (own, peer) = (direction as usize, direction.opposite() as usize);
        let (sender, receiver) = (self.windows.sides[own], self.windows.sides[peer]);
        let (seq, ack) = (Seq(segment.seq), Seq(segment.ack));
        // An IP packet has at most 65,535 bytes: the wire crate rejects jumbograms.
        let end = seq.plus(segment.data_len as u32);
        if self.state & 0xf != ESTABLISHED || segment.flags.0 & CLASS != TcpFlags::ACK {
            return None;
        }
        // Each is negative if its condition fails: both windows known, and the four inequalities (see `window`). One branch for all.
        let conditions = sender.max_window.wrapping_sub(1)
            | receiver.max_window.wrapping_sub(1)
            | sender.max_end.since(seq)
            | receiver.end.since(ack)
            | end.since(sender.end.minus(receiver.max_window))
            | ack.since(min_ack(&sender, &receiver).plus(1));
        let is_outside = conditions.cast_signed() < 0;
        if is_outside || self.flags[peer] & side_flag::SACK_PERM != 0 && !has_only_timestamps(segment.options) {
            return None;
        }

        let window = u32::from(segment.window) << self.scale(direction);
        let fresh = end.after(sender.end);
        let newer = self.flags[own] & side_flag::MAXACK_SET == 0 || ack.after(sender.max_ack);
        let permitted = ack.plus(window);
        let sides = &mut self.windows.sides;
        sides[own].end = if fresh { end } else { sender.end };
        sides[own].max_window = sender.max_window.max(window);
        sides[own].max_ack = if newer { ack } else { sender.max_ack };
        if end.after(sender.max_end) {
            sides[peer].max_window = receiver.max_window.wrapping_add(end.since(sender.max_end));
        }
        if permitted.after(receiver.max_end.minus(1)) {
            // A zero window may be probed with one byte.
            sides[peer].max_end = permitted.plus(u32::from(window == 0));
        }

        let tag = segment_hash(segment, secret);
        let again = self.windows.last_end == end && self.windows.last_hash == tag && self.last_direction() == direction;
        let zero_window = if again { self.has_flag(ConnFlag::ZeroWindow) } else { true };
        self.state = ESTABLISHED | (SegmentClass::Ack as u8) << 4;
        // The flags are read first: after a write to a neighbouring byte the read would stall.
        let unacknowledged = self.update_flags(direction, fresh, ack == receiver.end);
        (self.windows.last_end, self.windows.last_hash) = (end, tag);
        if again || segment.window == 0 {
            return Some(self.finish_unusual(again, zero_window, unacknowledged, (pace, sysctls)));
        }
        self.retrans = 0;
        Some(if unacknowledged { pace.unacknowledged } else { pace.established })
    }

    /// The end of a segment that is sent again, or offers no window: its timeout in ticks.
    #[cold]
    fn finish_unusual(
        &mut self,
        again: bool,
        zero_window: bool,
        unacknowledged: bool,
        (pace, sysctls): (&FastPathTimeouts, &Sysctls),
    ) -> u32 {
        self.set_flag(ConnFlag::ZeroWindow, zero_window);
        self.retrans = if again { self.retrans.wrapping_add(1) } else { 0 };
        if u32::from(self.retrans) >= pace.max_retrans || zero_window {
            return super::super::seconds_to_ticks(self.select_timeout(SegmentClass::Ack, sysctls));
        }
        if unacknowledged { pace.unacknowledged } else { pace.established }
    }

    /// The flags of both sides at once: updated for the segment, which has a window, and whether data of either side is now unacknowledged.
    #[inline(always)]
    fn update_flags(&mut self, direction: Direction, fresh: bool, all_acknowledged: bool) -> bool {
        let place = direction as usize | usize::from(fresh) << 1 | usize::from(all_acknowledged) << 2;
        let [kept, added] = FLAG_UPDATES[place];
        let flags = u16::from_le_bytes(self.flags) & kept | added;
        self.flags = flags.to_le_bytes();
        flags & (UNACKNOWLEDGED | UNACKNOWLEDGED << 8) != 0
    }
}

const UNACKNOWLEDGED: u16 = side_flag::DATA_UNACKNOWLEDGED as u16;

/// What a segment leaves of the flags and adds to them: by direction, whether it has fresh data (2), and whether it acknowledges all (4).
const FLAG_UPDATES: [[u16; 2]; 8] = {
    let (was_reply, zero_window) =
        (ConnFlag::LastWasReply.side_and_bit().1 as u16, ConnFlag::ZeroWindow.side_and_bit().1 as u16);
    let mut updates = [[0; 2]; 8];
    let mut place = 0;
    while place < updates.len() {
        let is_reply = place & 1 != 0;
        let (own, peer) = if is_reply { (8, 0) } else { (0, 8) };
        let mut kept = !(was_reply | zero_window);
        let mut added = (side_flag::MAXACK_SET as u16) << own;
        if is_reply {
            added |= was_reply;
        }
        if place & 2 != 0 {
            added |= UNACKNOWLEDGED << own;
        }
        if place & 4 != 0 {
            kept &= !(UNACKNOWLEDGED << peer);
        }
        updates[place] = [kept, added];
        place += 1;
    }
    updates
};

const ESTABLISHED: u8 = TcpState::Established as u8;

/// True without options, or with the usual ones: two padding bytes, then timestamps (RFC 7323, appendix A).
#[inline(always)]
fn has_only_timestamps(options: &[u8]) -> bool {
    options.is_empty() || options.len() == 12 && options.starts_with(&[1, 1, 8, 10])
}
