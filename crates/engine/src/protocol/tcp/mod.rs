//! The TCP tracker: how one segment changes a connection (RFC 9293, seen from between the two ends; Linux's `nf_conntrack_proto_tcp`).
//!
//! A connection is [created](Tcp::from_first_packet) from its first segment and [updated](Tcp::track_packet) by every segment, including the first. The
//! [transition table](transitions) proposes a state, exceptions may override it, and the [window check](window) decides whether the segment belongs to the connection.
//! The tracker must never access tables, tuples or clocks.
pub(crate) mod fast_path;
mod layout;
pub(crate) mod restore;
mod seq;
mod transitions;
mod window;

use super::{TrackCtx, TrackResult};
use crate::{Direction, Reason, Status, Sysctl, Sysctls, TcpState};
use keepstate_wire::tcp::{SynOptions, TcpFlags, TcpSegment};
use layout::{ConnFlag, OtherFields, Side, Windows, side_flag};
pub(crate) use layout::{IgnoredSyn, Tcp};
use seq::Seq;
use transitions::{SegmentClass, Transition, next_state};
use window::{WindowCheck, segment_end};

/// A keyed hash. Upper half: of seq and window; lower half: of ack. Two different segments have equal halves with a chance of 1 in 65,536 each; an effect needs
/// three such collisions in a row, and the multipliers are secret. The hash saves ten bytes in a record of one cache line.
#[inline(always)]
fn segment_hash(segment: &TcpSegment<'_>, secret: (u64, u64)) -> u32 {
    seq_window_hash(segment, secret) | ack_hash(segment, secret)
}

#[inline(always)]
fn seq_window_hash(segment: &TcpSegment<'_>, (first, _): (u64, u64)) -> u32 {
    let folded = (u64::from(segment.seq) << 16 | u64::from(segment.window)).wrapping_mul(first | 1);
    (folded >> 32) as u32 & 0xffff_0000
}

#[inline(always)]
fn ack_hash(segment: &TcpSegment<'_>, (_, second): (u64, u64)) -> u32 {
    (u64::from(segment.ack).wrapping_mul(second | 1) >> 48) as u32
}

/// Linux rejects a segment for its flags before it looks at the connection.
#[inline(always)]
pub(crate) fn check_flags(segment: &TcpSegment<'_>) -> Result<(), Reason> {
    if transitions::valid_flags(segment.flags) { Ok(()) } else { Err(Reason::TcpFlags) }
}

impl Tcp {
    /// Creates a connection from its first segment: a SYN or, with `loose`, an ACK from the middle.
    pub(crate) fn from_first_packet(segment: &TcpSegment<'_>, sysctls: &Sysctls) -> Result<Tcp, Reason> {
        let proposal = next_state(Direction::Original, SegmentClass::from_flags(segment.flags), TcpState::None);
        let (end, window) = (segment_end(segment), u32::from(segment.window).max(1));
        let mut tcp = Tcp {
            other_fields: OtherFields::default(),
            windows: Windows::default(),
            state: 0,
            flags: [0; 2],
            scales: 0,
            retrans: 0,
        };
        let mut sender = Side { end, max_window: window, max_end: end, ..Side::default() };
        match proposal {
            Transition::To(TcpState::SynSent) => tcp.read_options(segment, Direction::Original),
            Transition::To(_) if sysctls.is_enabled(Sysctl::TcpLoose) => {
                sender.max_end = end.plus(window);
                // The options of the ends were not seen: assume the most permissive.
                tcp.flags = [UNKNOWN_OPTIONS; 2];
            }
            Transition::To(_) => return Err(Reason::TcpNotOpened),
            Transition::Ignore | Transition::Invalid => return Err(Reason::TcpFirst),
        }
        tcp.windows.sides[0] = sender;
        tcp.set_flag(ConnFlag::ZeroWindow, true);
        tcp.set_last_segment(SegmentClass::Nothing, Direction::Original);
        Ok(tcp)
    }

    /// As [`Tcp::from_first_packet`] and then [`Tcp::track_packet`] for a plain SYN, and its timeout in ticks: what those make of it can be said at once. `None` for any
    /// other segment.
    #[inline(always)]
    pub(crate) fn from_plain_syn(segment: &TcpSegment<'_>, sysctls: &Sysctls) -> Option<(Tcp, u32)> {
        const CLASS: u8 = TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ACK;
        if segment.flags.0 & CLASS != TcpFlags::SYN {
            return None;
        }
        let (end, window) = (segment_end(segment), u32::from(segment.window).max(1));
        let sender = Side { end, max_window: window, max_end: end, max_ack: Seq(0) };
        // It may send one byte into a window of zero.
        let receiver = Side { max_end: Seq(window), ..Side::default() };
        let mut tcp = Tcp {
            other_fields: OtherFields::default(),
            windows: Windows { sides: [sender, receiver], ..Windows::default() },
            state: TcpState::SynSent as u8 | (SegmentClass::Syn as u8) << 4,
            flags: [0; 2],
            scales: 0,
            retrans: 0,
        };
        tcp.set_flag(ConnFlag::ZeroWindow, true);
        tcp.read_options(segment, Direction::Original);
        let timeout = tcp.select_timeout(SegmentClass::Syn, sysctls);
        Some((tcp, super::seconds_to_ticks(timeout)))
    }

    /// Reads the options of a SYN. They replace the earlier ones, unless the SYN has no options at all.
    #[inline(always)]
    fn read_options(&mut self, segment: &TcpSegment<'_>, direction: Direction) {
        if segment.options.is_empty() && !segment.options_cut {
            return;
        }
        let (flags, scale) = offered_in(segment.options);
        self.clear_side_flag(direction, side_flag::ALL & !side_flag::BE_LIBERAL);
        self.set_side_flag(direction, flags);
        self.set_scale(direction, scale);
        if segment.options_cut {
            self.assume_unknown_options();
        }
    }

    /// The rest of a SYN's options was not captured: both ends are taken as in a connection picked up in the middle.
    #[inline(always)]
    fn assume_unknown_options(&mut self) {
        for direction in [Direction::Original, Direction::Reply] {
            self.set_side_flag(direction, UNKNOWN_OPTIONS);
        }
    }

    /// The sequence number after the first segment, if that was a SYN.
    pub(crate) fn syn_end_seq(&self) -> Option<u32> {
        (self.state == TcpState::SynSent as u8).then(|| self.tcp_side(Direction::Original).end)
    }

    /// One side, as a dump shows it.
    pub(crate) fn tcp_side(&self, direction: Direction) -> crate::TcpSide {
        let side = &self.windows.sides[direction as usize];
        crate::TcpSide {
            flags: self.flags[direction as usize] & side_flag::ALL,
            scale: self.scale(direction),
            end: side.end.0,
            max_end: side.max_end.0,
            max_window: side.max_window,
            max_ack: side.max_ack.0,
        }
    }

    /// Tracks `segment`, and updates the connection.
    pub(crate) fn track_packet(
        &mut self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        context: &TrackCtx<'_>,
        ignored_syn: &mut Option<IgnoredSyn>,
    ) -> TrackResult {
        let class = SegmentClass::from_flags(segment.flags);
        let old = self.state();
        let step = match next_state(direction, class, old) {
            Transition::Invalid => return TrackResult::invalid(Reason::TcpState),
            Transition::Ignore if self.is_synack_for_ignored_syn(segment, direction, class) => {
                self.resynchronise(direction, ignored_syn);
                StateChange { old: TcpState::SynSent, new: TcpState::SynRecv, skip_window_check: false }
            }
            Transition::Ignore => return self.ignore_segment(segment, direction, class, context, ignored_syn),
            Transition::To(new) => match self.apply_exceptions(segment, direction, class, new, context, ignored_syn) {
                Ok(step) => step,
                Err(result) => return result,
            },
        };
        if !step.skip_window_check {
            match self.check_window(segment, direction, class, context) {
                WindowCheck::Inside => (),
                WindowCheck::Ignore(reason) => return TrackResult::no_refresh(Some(reason)),
                WindowCheck::Outside(reason) => return self.handle_out_of_window(direction, class, reason, context),
            }
        }
        self.enter_state(step, direction, class, context)
    }

    /// Applies the exceptions to a proposed transition.
    #[inline(always)]
    fn apply_exceptions(
        &mut self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        class: SegmentClass,
        new: TcpState,
        context: &TrackCtx<'_>,
        ignored_syn: &mut Option<IgnoredSyn>,
    ) -> Result<StateChange, TrackResult> {
        let old = self.state();
        let step = StateChange { old, new, skip_window_check: false };
        match new {
            TcpState::SynSent if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                if self.may_reopen(direction) {
                    return Err(TrackResult::Restart);
                }
                Err(self.ignore_segment(segment, direction, class, context, ignored_syn))
            }
            TcpState::TimeWait if self.is_challenge_ack(direction, class) => {
                self.set_flag(ConnFlag::ExpectChallengeAck, false);
                Err(TrackResult::no_refresh(Some(Reason::TcpChallengeAck)))
            }
            TcpState::SynSent2 => {
                self.set_flag(ConnFlag::SimultaneousOpen, true);
                Ok(step)
            }
            // The table alone cannot recognize the last ACK of a simultaneous open.
            TcpState::SynRecv
                if direction == Direction::Reply
                    && class == SegmentClass::Ack
                    && self.has_flag(ConnFlag::SimultaneousOpen) =>
            {
                Ok(StateChange { new: TcpState::Established, ..step })
            }
            TcpState::Close if class == SegmentClass::Rst => self.check_rst(segment, direction, context, ignored_syn),
            _ => Ok(step),
        }
    }

    /// A tuple may be reopened if one side has closed it, or if the opener itself reset it.
    fn may_reopen(&self, direction: Direction) -> bool {
        (self.flags[0] | self.flags[1]) & side_flag::CLOSE_INIT != 0
            || self.last_direction() == direction && self.last_class() == SegmentClass::Rst
    }

    /// RFC 5961, 4.2: a SYN that passed in LAST_ACK is answered with an ACK of the old connection.
    fn is_challenge_ack(&self, direction: Direction, class: SegmentClass) -> bool {
        self.state() == TcpState::LastAck
            && class == SegmentClass::Ack
            && self.last_direction() != direction
            && self.last_class() == SegmentClass::Syn
            && self.has_flag(ConnFlag::ExpectChallengeAck)
    }

    /// A RST closes only if its sequence number is plausible (RFC 5961, 3.2).
    fn check_rst(
        &self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        context: &TrackCtx<'_>,
        ignored_syn: &Option<IgnoredSyn>,
    ) -> Result<StateChange, TrackResult> {
        let mut step = StateChange { old: self.state(), new: TcpState::Close, skip_window_check: false };
        let unchecked = StateChange { skip_window_check: true, ..step };
        if self.is_closing() {
            // The tuple may be in use again already, so the recorded numbers are not reliable.
            return Ok(unchecked);
        }
        let peer = direction.opposite();
        let peer_ack = self.windows.sides[peer as usize].max_ack;
        let established = self.state() == TcpState::Established && context.status.contains(Status::ASSURED);
        if self.has_side_flag(peer, side_flag::MAXACK_SET) && self.last_class() != SegmentClass::Syn {
            let seq = Seq(segment.seq);
            if segment.seq == 0 && !established {
                // Most likely the response to a SYN that was passed.
                return Ok(step);
            }
            if seq.before(peer_ack) && !context.sysctls.is_enabled(Sysctl::TcpIgnoreInvalidRst) {
                return Err(TrackResult::invalid(Reason::TcpRst));
            }
            let after_last = self.last_class() == SegmentClass::Ack
                && self.last_direction() == direction
                && seq == self.windows.last_end;
            if !established || seq == peer_ack || after_last {
                return Ok(step);
            }
            // Not the exact sequence number: the end may send a challenge ACK, so the connection may continue.
            step.new = step.old;
        }
        let seen_reply = context.status.contains(Status::SEEN_REPLY);
        let answers_ignored = match self.last_class() {
            SegmentClass::Syn => seen_reply && self.last_direction() != direction,
            SegmentClass::Ack => !context.status.contains(Status::ASSURED),
            _ => false,
        };
        if answers_ignored && Seq(segment.ack) == self.windows.last_end {
            return Ok(StateChange { skip_window_check: true, ..step });
        }
        let challenged = self.state() == TcpState::SynSent
            && self.last_class() == SegmentClass::Ack
            && self.last_direction() == Direction::Reply
            && Seq(segment.seq) == ignored_syn.unwrap_or_default().ack;
        Ok(if challenged { StateChange { skip_window_check: true, ..step } } else { step })
    }

    /// Is the connection closing? If so, it may be dropped early.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(
            self.state(),
            TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
        )
    }

    /// A SYN-ACK for an ignored SYN: client and server agree, so the tracker is out of step.
    fn is_synack_for_ignored_syn(&self, segment: &TcpSegment<'_>, direction: Direction, class: SegmentClass) -> bool {
        class == SegmentClass::SynAck
            && self.last_class() == SegmentClass::Syn
            && self.last_direction() != direction
            && Seq(segment.ack) == self.windows.last_end
    }

    /// Restarts the connection from the recorded ignored SYN.
    fn resynchronise(&mut self, direction: Direction, ignored_syn: &Option<IgnoredSyn>) {
        let ignored_syn = ignored_syn.unwrap_or_default();
        let (opener, end) = (direction.opposite(), self.windows.last_end);
        let side = &mut self.windows.sides[opener as usize];
        (side.end, side.max_end) = (end, end);
        side.max_window = u32::from(ignored_syn.window).max(1);
        self.windows.sides[direction as usize] = Side::default();
        self.set_scale(opener, ignored_syn.scale);
        self.set_scale(direction, 0);
        self.clear_side_flag(opener, side_flag::ALL);
        // The responding side stays liberal if it was picked up that way.
        self.clear_side_flag(direction, side_flag::ALL & !side_flag::BE_LIBERAL);
        self.set_side_flag(opener, ignored_syn.flags);
        if ignored_syn.flags & side_flag::BE_LIBERAL != 0 {
            self.assume_unknown_options();
        }
        self.set_flag(ConnFlag::ExpectChallengeAck, false);
    }

    /// Passes a segment that may belong to an unknown connection, and records what is needed to recognize its response.
    #[cold]
    fn ignore_segment(
        &mut self,
        segment: &TcpSegment<'_>,
        direction: Direction,
        class: SegmentClass,
        context: &TrackCtx<'_>,
        ignored_syn: &mut Option<IgnoredSyn>,
    ) -> TrackResult {
        let mut note = ignored_syn.unwrap_or_default();
        note.window = segment.window;
        self.set_last_segment(class, direction);
        self.set_flag(ConnFlag::ZeroWindow, segment.window == 0);
        self.windows.last_end = segment_end(segment);
        self.windows.last_hash = seq_window_hash(segment, context.secret) | self.windows.last_hash & 0xffff;
        if class == SegmentClass::Syn && direction == Direction::Original {
            let options = segment.syn_options();
            note.scale = options.window_scale.unwrap_or(0);
            note.flags = if options.window_scale.is_some() { side_flag::WINDOW_SCALE } else { 0 };
            note.flags |= if options.sack_permitted { side_flag::SACK_PERM } else { 0 };
            note.flags |= if segment.options_cut { UNKNOWN_OPTIONS } else { 0 };
            self.set_flag(ConnFlag::SimultaneousOpen, false);
            self.set_flag(ConnFlag::ExpectChallengeAck, self.state() == TcpState::LastAck);
        }
        if self.state() == TcpState::SynSent && class == SegmentClass::Ack && direction == Direction::Reply {
            note.ack = Seq(segment.ack);
            self.windows.last_hash = self.windows.last_hash & 0xffff_0000 | ack_hash(segment, context.secret);
        }
        *ignored_syn = Some(note);
        TrackResult::no_refresh(Some(Reason::TcpIgnored))
    }

    /// A FIN or RST outside the window, followed by one from the other end: both ends are done, so the timeout is shortened.
    #[cold]
    fn handle_out_of_window(
        &mut self,
        direction: Direction,
        class: SegmentClass,
        reason: Reason,
        context: &TrackCtx<'_>,
    ) -> TrackResult {
        const LONG: u32 = 120;
        let ending = |class| matches!(class, SegmentClass::Fin | SegmentClass::Rst);
        let fixed = context.status.contains(Status::FIXED_TIMEOUT);
        if !context.status.contains(Status::ASSURED) || fixed || !ending(class) {
            return TrackResult::invalid(reason);
        }
        if self.last_direction() == direction || !ending(self.last_class()) {
            self.set_last_segment(class, direction);
            return TrackResult::invalid(reason);
        }
        let shorter = context.sysctls[Sysctl::TcpTimeoutUnacknowledged];
        let remaining = context.remaining_ticks;
        if remaining < super::seconds_to_ticks(LONG) || remaining <= super::seconds_to_ticks(shorter) {
            return TrackResult::invalid(reason);
        }
        TrackResult::Invalid { reason, shorten_to: Some(super::seconds_to_ticks(shorter)) }
    }

    /// An ACK inside the window: counts it if it is a retransmission, otherwise restarts the count.
    #[inline(always)]
    fn count_retransmissions(&mut self, segment: &TcpSegment<'_>, direction: Direction, end: Seq, secret: (u64, u64)) {
        let tag = segment_hash(segment, secret);
        if self.last_direction() == direction && self.windows.last_end == end && self.windows.last_hash == tag {
            self.retrans = self.retrans.wrapping_add(1);
        } else {
            self.set_flag(ConnFlag::LastWasReply, direction == Direction::Reply);
            self.set_flag(ConnFlag::ZeroWindow, segment.window == 0);
            (self.windows.last_end, self.windows.last_hash) = (end, tag);
            self.retrans = 0;
        }
    }

    /// The segment belongs to the connection: enters the new state, and selects the timeout.
    #[inline(always)]
    fn enter_state(
        &mut self,
        step: StateChange,
        direction: Direction,
        class: SegmentClass,
        context: &TrackCtx<'_>,
    ) -> TrackResult {
        let StateChange { old, new, .. } = step;
        self.set_last_segment(class, direction);
        self.set_state(new);
        if old != new && new == TcpState::FinWait {
            self.set_side_flag(direction, side_flag::CLOSE_INIT);
        }
        let mut timeout = self.select_timeout(class, context.sysctls);
        let mut assured = false;
        if !context.status.contains(Status::SEEN_REPLY) {
            if class == SegmentClass::Rst {
                // Connection refused: nothing more will follow.
                return TrackResult::Delete;
            }
            if class == SegmentClass::Syn && old == TcpState::SynSent {
                // Otherwise a client that reuses its port could keep an unanswered entry alive for ever.
                // The other end's SYN, in a simultaneous open, does change the state.
                return TrackResult::NoRefresh { reason: None, changed: old != new };
            }
            if new == TcpState::Established {
                // Picked up in the middle, and seen in one direction only.
                timeout = timeout.min(context.sysctls[Sysctl::TcpTimeoutUnacknowledged]);
            }
        } else if !context.status.contains(Status::ASSURED) {
            assured = matches!(old, TcpState::SynRecv | TcpState::Established) && new == TcpState::Established;
        }
        TrackResult::Pass { timeout: super::seconds_to_ticks(timeout), changed: old != new, assured }
    }

    /// The sysctl with the timeout of the current state.
    #[inline(always)]
    pub(crate) fn timeout_sysctl(&self) -> Sysctl {
        STATE_TIMEOUT_SYSCTLS[self.state() as usize]
    }

    /// The timeout in seconds.
    #[inline(always)]
    fn select_timeout(&self, class: SegmentClass, sysctls: &Sysctls) -> u32 {
        let own = sysctls[self.timeout_sysctl()];
        let capped = |sysctl: Sysctl| own > sysctls[sysctl];
        let unacknowledged = (self.flags[0] | self.flags[1]) & side_flag::DATA_UNACKNOWLEDGED != 0;
        if u32::from(self.retrans) >= sysctls[Sysctl::TcpMaxRetrans] && capped(Sysctl::TcpTimeoutMaxRetrans) {
            sysctls[Sysctl::TcpTimeoutMaxRetrans]
        } else if class == SegmentClass::Rst {
            sysctls[Sysctl::TcpTimeoutClose]
        } else if unacknowledged && capped(Sysctl::TcpTimeoutUnacknowledged) {
            sysctls[Sysctl::TcpTimeoutUnacknowledged]
        } else if self.has_flag(ConnFlag::ZeroWindow) && capped(Sysctl::TcpTimeoutMaxRetrans) {
            sysctls[Sysctl::TcpTimeoutMaxRetrans]
        } else {
            own
        }
    }
}

/// The flags and the window scale of a side that sent a SYN with these options. Values in and out, so that a connection under construction can stay in registers.
#[inline(never)]
fn offered_in(options: &[u8]) -> (u8, u8) {
    let SynOptions { window_scale, sack_permitted, .. } = SynOptions::read(options);
    let scaling = if window_scale.is_some() { side_flag::WINDOW_SCALE } else { 0 };
    let sack = if sack_permitted { side_flag::SACK_PERM } else { 0 };
    (scaling | sack, window_scale.unwrap_or(0))
}

/// The flags of a side whose options were not seen: the most permissive.
const UNKNOWN_OPTIONS: u8 = side_flag::SACK_PERM | side_flag::BE_LIBERAL;

/// A state transition that was decided.
#[derive(Clone, Copy)]
struct StateChange {
    old: TcpState,
    new: TcpState,
    /// Skip the window check: the recorded numbers are known to be wrong.
    skip_window_check: bool,
}

/// The sysctl with each state's timeout.
const STATE_TIMEOUT_SYSCTLS: [Sysctl; 10] = [
    Sysctl::TcpTimeoutSynSent,
    Sysctl::TcpTimeoutSynSent,
    Sysctl::TcpTimeoutSynRecv,
    Sysctl::TcpTimeoutEstablished,
    Sysctl::TcpTimeoutFinWait,
    Sysctl::TcpTimeoutCloseWait,
    Sysctl::TcpTimeoutLastAck,
    Sysctl::TcpTimeoutTimeWait,
    Sysctl::TcpTimeoutClose,
    Sysctl::TcpTimeoutSynSent2,
];
