//! TCP: what one segment makes of a connection (RFC 9293, seen from between the two ends; Linux's `nf_conntrack_proto_tcp`).
//!
//! A connection is [opened](Tcp::open) by its first segment and [advanced](Tcp::advance) by every one, the first too. The
//! [transition table](transitions) proposes a state, exceptions dispose, the [window](window) decides whether the segment belongs.
//! Nothing here knows tables, tuples or clocks.
pub(crate) mod kept;
mod layout;
mod seq;
pub(crate) mod short_way;
mod transitions;
mod window;

use super::{Context, Ruling};
use crate::{Direction, Knob, Knobs, Status, TcpState, Why};
use keepstate_wire::tcp::Segment;
use layout::Mark;
use seq::Seq;
use transitions::{Class, Proposal, propose};
use window::{Fit, segment_end};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A TCP connection: the octets of a record, as [`layout`] describes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Tcp {
    rest: Rest,
    state: u8,
    flags: [u8; 2],
    scales: u8,
    retrans: u8,
    windows: Windows,
}

/// What else is in a record: tuple, deadline, status, kind. Not the tracker's to read or write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Rest([u8; 19]);

/// The numbers of both ends, and of the last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Windows {
    /// Original, then reply.
    sides: [Side; 2],
    last_end: Seq,
    /// Seq, window and ack of the last segment, keyed and folded: see [`fold`].
    last_tag: u32,
}

/// What one end said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Side {
    /// Highest sequence number seen, plus one.
    end: Seq,
    /// Highest it may send, plus one.
    max_end: Seq,
    /// Largest window it offered, scaled; 0 while nothing was seen of it.
    max_window: u32,
    /// Highest acknowledgement it sent, if `ACK_KNOWN`.
    max_ack: Seq,
}

/// Flags of a side, by the numbers that ctnetlink shows.
pub(crate) mod side_flag {
    pub(crate) const SCALE: u8 = 0x01;
    pub(crate) const SACK_PERMITTED: u8 = 0x02;
    /// It closed first.
    pub(crate) const CLOSED_FIRST: u8 = 0x04;
    pub(crate) const LIBERAL: u8 = 0x08;
    pub(crate) const UNACKNOWLEDGED: u8 = 0x10;
    pub(crate) const ACK_KNOWN: u8 = 0x20;
    /// All of them: six bits.
    pub(crate) const ALL: u8 = 0x3f;
}

/// What must be remembered exactly of a segment we ignored. Kept outside the record: few connections need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    window: u16,
    scale: u8,
    flags: u8,
    ack: Seq,
}

/// Upper half: of seq and window; lower half: of ack. Equal folds mean equal segments, but for one chance in 65,536 a half: three in a row
/// are needed to have any effect, and the multipliers are secret. It saves ten octets in a record of one cache line.
#[inline(always)]
fn fold(segment: &Segment<'_>, secret: (u64, u64)) -> u32 {
    upper_fold(segment, secret) | lower_fold(segment, secret)
}

#[inline(always)]
fn upper_fold(segment: &Segment<'_>, (first, _): (u64, u64)) -> u32 {
    let folded = (u64::from(segment.seq) << 16 | u64::from(segment.window)).wrapping_mul(first | 1);
    (folded >> 32) as u32 & 0xffff_0000
}

#[inline(always)]
fn lower_fold(segment: &Segment<'_>, (_, second): (u64, u64)) -> u32 {
    (u64::from(segment.ack).wrapping_mul(second | 1) >> 48) as u32
}

/// Linux calls a segment malformed for its flags before it looks at the connection.
#[inline(always)]
pub(crate) fn check_flags(segment: &Segment<'_>) -> Result<(), Why> {
    if transitions::legal(segment.flags) { Ok(()) } else { Err(Why::TcpFlags) }
}

impl Tcp {
    /// Both sides are to be taken up in the middle by their next segments.
    pub(crate) fn forget_windows(&mut self) {
        self.windows.sides.iter_mut().for_each(|side| side.max_window = 0);
    }

    /// A connection from its first segment: a SYN, or with `loose` an ACK from the middle.
    pub(crate) fn open(segment: &Segment<'_>, knobs: &Knobs) -> Result<Tcp, Why> {
        let proposal = propose(Direction::Original, Class::of(segment.flags), TcpState::None);
        let (end, window) = (segment_end(segment), u32::from(segment.window).max(1));
        let mut tcp =
            Tcp { rest: Rest::default(), windows: Windows::default(), state: 0, flags: [0; 2], scales: 0, retrans: 0 };
        let mut sender = Side { end, max_window: window, max_end: end, ..Side::default() };
        match proposal {
            Proposal::To(TcpState::SynSent) => tcp.read_options(segment, Direction::Original),
            Proposal::To(_) if knobs.on(Knob::TcpLoose) => {
                sender.max_end = end.plus(window);
                // Their options were not seen: assume the best.
                tcp.flags = [side_flag::SACK_PERMITTED | side_flag::LIBERAL; 2];
            }
            Proposal::To(_) => return Err(Why::TcpNotOpened),
            Proposal::Ignore | Proposal::Invalid => return Err(Why::TcpFirst),
        }
        tcp.windows.sides[0] = sender;
        tcp.mark(Mark::ZeroWindow, true);
        tcp.set_last(Class::Nothing, Direction::Original);
        Ok(tcp)
    }

    /// Takes the options of a SYN; what was known of them is forgotten, unless it has none at all.
    fn read_options(&mut self, segment: &Segment<'_>, direction: Direction) {
        if segment.options.is_empty() {
            return;
        }
        let options = segment.handshake();
        self.clear(direction, side_flag::ALL & !side_flag::LIBERAL);
        self.set_scale(direction, options.scale.unwrap_or(0));
        if options.scale.is_some() {
            self.set(direction, side_flag::SCALE);
        }
        if options.sack_permitted {
            self.set(direction, side_flag::SACK_PERMITTED);
        }
    }

    /// Behind the number of the first segment, if it was a SYN.
    pub(crate) fn opening(&self) -> Option<u32> {
        (self.state == TcpState::SynSent as u8).then(|| self.shown(Direction::Original).end)
    }

    /// One side as a dump shows it.
    pub(crate) fn shown(&self, direction: Direction) -> crate::TcpSide {
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

    /// What `segment` makes of this connection.
    pub(crate) fn advance(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        context: &Context<'_>,
        noted: &mut Option<Noted>,
    ) -> Ruling {
        let class = Class::of(segment.flags);
        let old = self.state();
        let step = match propose(direction, class, old) {
            Proposal::Invalid => return Ruling::invalid(Why::TcpState),
            Proposal::Ignore if self.answers_ignored_syn(segment, direction, class) => {
                self.resynchronise(direction, noted);
                Step { old: TcpState::SynSent, new: TcpState::SynRecv, unchecked: false }
            }
            Proposal::Ignore => return self.ignore(segment, direction, class, context, noted),
            Proposal::To(new) => match self.dispose(segment, direction, class, new, context, noted) {
                Ok(step) => step,
                Err(ruling) => return ruling,
            },
        };
        if !step.unchecked {
            match self.fit(segment, direction, class, context) {
                Fit::Inside => (),
                Fit::Ignore(why) => return Ruling::quiet(Some(why)),
                Fit::Outside(why) => return self.outside(direction, class, why, context),
            }
        }
        self.enter(step, direction, class, context)
    }

    /// Exceptions to a proposed move.
    #[inline(always)]
    fn dispose(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        class: Class,
        new: TcpState,
        context: &Context<'_>,
        noted: &mut Option<Noted>,
    ) -> Result<Step, Ruling> {
        let old = self.state();
        let step = Step { old, new, unchecked: false };
        match new {
            TcpState::SynSent if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                if self.close_was_seen(direction) {
                    return Err(Ruling::Reopen);
                }
                Err(self.ignore(segment, direction, class, context, noted))
            }
            TcpState::TimeWait if self.is_challenge_ack(direction, class) => {
                self.mark(Mark::Challenge, false);
                Err(Ruling::quiet(Some(Why::TcpChallengeAck)))
            }
            TcpState::SynSent2 => {
                self.mark(Mark::Simultaneous, true);
                Ok(step)
            }
            // The table alone cannot tell the last ACK of a simultaneous open.
            TcpState::SynRecv
                if direction == Direction::Reply && class == Class::Ack && self.is(Mark::Simultaneous) =>
            {
                Ok(Step { new: TcpState::Established, ..step })
            }
            TcpState::Close if class == Class::Rst => self.reset(segment, direction, context, noted),
            _ => Ok(step),
        }
    }

    /// An old tuple may live again if one side closed it, or the opener itself reset it.
    fn close_was_seen(&self, direction: Direction) -> bool {
        (self.flags[0] | self.flags[1]) & side_flag::CLOSED_FIRST != 0
            || self.last_direction() == direction && self.last_class() == Class::Rst
    }

    /// RFC 5961, 4.2: a SYN that we let pass in LAST_ACK is answered by an ACK of the old connection.
    fn is_challenge_ack(&self, direction: Direction, class: Class) -> bool {
        self.state() == TcpState::LastAck
            && class == Class::Ack
            && self.last_direction() != direction
            && self.last_class() == Class::Syn
            && self.is(Mark::Challenge)
    }

    /// A RST closes only if it can be honest (RFC 5961, 3.2).
    fn reset(
        &self,
        segment: &Segment<'_>,
        direction: Direction,
        context: &Context<'_>,
        noted: &Option<Noted>,
    ) -> Result<Step, Ruling> {
        let mut step = Step { old: self.state(), new: TcpState::Close, unchecked: false };
        let unchecked = Step { unchecked: true, ..step };
        if self.is_closing() {
            // The tuple may be in use again already: our numbers are worth nothing.
            return Ok(unchecked);
        }
        let peer = direction.opposite();
        let peer_ack = self.windows.sides[peer as usize].max_ack;
        let established = self.state() == TcpState::Established && context.status.has(Status::ASSURED);
        if self.has(peer, side_flag::ACK_KNOWN) && self.last_class() != Class::Syn {
            let seq = Seq(segment.seq);
            if segment.seq == 0 && !established {
                // Most likely the answer to a SYN that we let pass.
                return Ok(step);
            }
            if seq.before(peer_ack) && !context.knobs.on(Knob::TcpIgnoreInvalidRst) {
                return Err(Ruling::invalid(Why::TcpRst));
            }
            let after_last =
                self.last_class() == Class::Ack && self.last_direction() == direction && seq == self.windows.last_end;
            if !established || seq == peer_ack || after_last {
                return Ok(step);
            }
            // Not the exact number: the end may answer with a challenge, so the connection may go on.
            step.new = step.old;
        }
        let seen_reply = context.status.has(Status::SEEN_REPLY);
        let answers_ignored = match self.last_class() {
            Class::Syn => seen_reply && self.last_direction() != direction,
            Class::Ack => !context.status.has(Status::ASSURED),
            _ => false,
        };
        if answers_ignored && Seq(segment.ack) == self.windows.last_end {
            return Ok(Step { unchecked: true, ..step });
        }
        let challenged = self.state() == TcpState::SynSent
            && self.last_class() == Class::Ack
            && self.last_direction() == Direction::Reply
            && Seq(segment.seq) == noted.unwrap_or_default().ack;
        Ok(if challenged { Step { unchecked: true, ..step } } else { step })
    }

    /// Closing, so that it may also be dropped early.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(
            self.state(),
            TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
        )
    }

    /// A SYN-ACK for a SYN we ignored: client and server agree, we are the one out of step.
    fn answers_ignored_syn(&self, segment: &Segment<'_>, direction: Direction, class: Class) -> bool {
        class == Class::SynAck
            && self.last_class() == Class::Syn
            && self.last_direction() != direction
            && Seq(segment.ack) == self.windows.last_end
    }

    /// Begins anew from what was noted of the ignored SYN.
    fn resynchronise(&mut self, direction: Direction, noted: &Option<Noted>) {
        let noted = noted.unwrap_or_default();
        let (opener, end) = (direction.opposite(), self.windows.last_end);
        let side = &mut self.windows.sides[opener as usize];
        (side.end, side.max_end) = (end, end);
        side.max_window = u32::from(noted.window).max(1);
        self.windows.sides[direction as usize] = Side::default();
        self.set_scale(opener, noted.scale);
        self.set_scale(direction, 0);
        self.clear(opener, side_flag::ALL);
        // The answering side stays liberal, if it was picked up so.
        self.clear(direction, side_flag::ALL & !side_flag::LIBERAL);
        self.set(opener, noted.flags);
        self.mark(Mark::Challenge, false);
    }

    /// Lets a segment pass that may tell of a connection we do not know, and notes what its answer will need.
    #[cold]
    fn ignore(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        class: Class,
        context: &Context<'_>,
        noted: &mut Option<Noted>,
    ) -> Ruling {
        let mut note = noted.unwrap_or_default();
        note.window = segment.window;
        self.set_last(class, direction);
        self.mark(Mark::ZeroWindow, segment.window == 0);
        self.windows.last_end = segment_end(segment);
        self.windows.last_tag = upper_fold(segment, context.secret) | self.windows.last_tag & 0xffff;
        if class == Class::Syn && direction == Direction::Original {
            let options = segment.handshake();
            note.scale = options.scale.unwrap_or(0);
            note.flags = if options.scale.is_some() { side_flag::SCALE } else { 0 };
            note.flags |= if options.sack_permitted { side_flag::SACK_PERMITTED } else { 0 };
            self.mark(Mark::Simultaneous, false);
            self.mark(Mark::Challenge, self.state() == TcpState::LastAck);
        }
        if self.state() == TcpState::SynSent && class == Class::Ack && direction == Direction::Reply {
            note.ack = Seq(segment.ack);
            self.windows.last_tag = self.windows.last_tag & 0xffff_0000 | lower_fold(segment, context.secret);
        }
        *noted = Some(note);
        Ruling::quiet(Some(Why::TcpIgnored))
    }

    /// A FIN or RST outside the window, then the same from the other end: both are done, whatever we think.
    #[cold]
    fn outside(&mut self, direction: Direction, class: Class, why: Why, context: &Context<'_>) -> Ruling {
        const LONG: u32 = 120;
        let ending = |class| matches!(class, Class::Fin | Class::Rst);
        let fixed = context.status.has(Status::FIXED_TIMEOUT);
        if !context.status.has(Status::ASSURED) || fixed || !ending(class) {
            return Ruling::invalid(why);
        }
        if self.last_direction() == direction || !ending(self.last_class()) {
            self.set_last(class, direction);
            return Ruling::invalid(why);
        }
        let shorter = context.knobs[Knob::TcpTimeoutUnacknowledged];
        let remaining = context.remaining_ticks;
        if remaining < super::ticks(LONG) || remaining <= super::ticks(shorter) {
            return Ruling::invalid(why);
        }
        Ruling::Invalid { why, shorten_to: Some(super::ticks(shorter)) }
    }

    /// An ACK inside the window: the same one again, or another?
    #[inline(always)]
    fn note_ack(&mut self, segment: &Segment<'_>, direction: Direction, end: Seq, secret: (u64, u64)) {
        let tag = fold(segment, secret);
        if self.last_direction() == direction && self.windows.last_end == end && self.windows.last_tag == tag {
            self.retrans = self.retrans.wrapping_add(1);
        } else {
            self.mark(Mark::LastWasReply, direction == Direction::Reply);
            self.mark(Mark::ZeroWindow, segment.window == 0);
            (self.windows.last_end, self.windows.last_tag) = (end, tag);
            self.retrans = 0;
        }
    }

    /// The segment belongs: move, and choose the timeout.
    #[inline(always)]
    fn enter(&mut self, step: Step, direction: Direction, class: Class, context: &Context<'_>) -> Ruling {
        let Step { old, new, .. } = step;
        self.set_last(class, direction);
        self.set_state(new);
        if old != new && new == TcpState::FinWait {
            self.set(direction, side_flag::CLOSED_FIRST);
        }
        let mut timeout = self.timeout(class, context.knobs);
        let mut assured = false;
        if !context.status.has(Status::SEEN_REPLY) {
            if class == Class::Rst {
                // Refused: nothing will follow.
                return Ruling::End;
            }
            if class == Class::Syn && old == TcpState::SynSent {
                // Else who reuses a port could keep an unanswered entry for ever.
                return Ruling::quiet(None);
            }
            if new == TcpState::Established {
                // Picked up in the middle, seen one way only.
                timeout = timeout.min(context.knobs[Knob::TcpTimeoutUnacknowledged]);
            }
        } else if !context.status.has(Status::ASSURED) {
            assured = matches!(old, TcpState::SynRecv | TcpState::Established) && new == TcpState::Established;
        }
        Ruling::Pass { timeout: super::ticks(timeout), changed: old != new, assured }
    }

    /// Seconds that the connection may now be silent.
    #[inline(always)]
    fn timeout(&self, class: Class, knobs: &Knobs) -> u32 {
        let own = knobs[STATE_KNOBS[self.state() as usize]];
        let capped = |knob: Knob| own > knobs[knob];
        let unacknowledged = (self.flags[0] | self.flags[1]) & side_flag::UNACKNOWLEDGED != 0;
        if u32::from(self.retrans) >= knobs[Knob::TcpMaxRetrans] && capped(Knob::TcpTimeoutMaxRetrans) {
            knobs[Knob::TcpTimeoutMaxRetrans]
        } else if class == Class::Rst {
            knobs[Knob::TcpTimeoutClose]
        } else if unacknowledged && capped(Knob::TcpTimeoutUnacknowledged) {
            knobs[Knob::TcpTimeoutUnacknowledged]
        } else if self.is(Mark::ZeroWindow) && capped(Knob::TcpTimeoutMaxRetrans) {
            knobs[Knob::TcpTimeoutMaxRetrans]
        } else {
            own
        }
    }
}

/// A move decided on.
#[derive(Clone, Copy)]
struct Step {
    old: TcpState,
    new: TcpState,
    /// Do not hold it against the window: our numbers are known to be wrong.
    unchecked: bool,
}

/// The knob that holds each state's timeout.
const STATE_KNOBS: [Knob; 10] = [
    Knob::TcpTimeoutSynSent,
    Knob::TcpTimeoutSynSent,
    Knob::TcpTimeoutSynRecv,
    Knob::TcpTimeoutEstablished,
    Knob::TcpTimeoutFinWait,
    Knob::TcpTimeoutCloseWait,
    Knob::TcpTimeoutLastAck,
    Knob::TcpTimeoutTimeWait,
    Knob::TcpTimeoutClose,
    Knob::TcpTimeoutSynSent,
];
