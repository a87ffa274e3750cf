//! TCP: what one segment makes of a connection (RFC 9293, seen from between the two ends; Linux's `nf_conntrack_proto_tcp`).
//!
//! A connection is [opened](Tcp::open) by its first segment and [advanced](Tcp::advance) by every one, the first too. The
//! [transition table](transitions) proposes a state, exceptions dispose, the [window](window) decides whether the segment belongs.
//! Nothing here knows tables, tuples or clocks.
mod layout;
mod seq;
mod transitions;
mod window;

use super::{Context, Ruling};
use crate::{Direction, Knob, Knobs, Status, TcpState, Why};
use keepstate_wire::tcp::Segment;
use seq::Seq;
use transitions::{Class, Proposal, propose};
use window::{Fit, segment_end};

/// A TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) state: TcpState,
    /// Original, then reply.
    pub(crate) sides: [Side; 2],
    last: Last,
    /// The last segment came so many times again.
    retrans: u8,
    /// Both ends sent a SYN.
    simultaneous: bool,
    /// A SYN passed in LAST_ACK: the next ACK may be a challenge (RFC 5961), not the last.
    challenge: bool,
}

/// What one end said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    /// Highest sequence number seen, plus one.
    end: Seq,
    /// Highest it may send, plus one.
    max_end: Seq,
    /// Largest window it offered, scaled; 0 while nothing was seen of it.
    max_window: u32,
    /// Highest acknowledgement it sent, if `ACK_KNOWN`.
    max_ack: Seq,
    /// At most 14.
    scale: u8,
    flags: u8,
}

/// Flags of a [`Side`], by the numbers that ctnetlink shows.
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

/// The last segment that mattered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    class: Class,
    direction: Direction,
    end: Seq,
    /// Its seq, window and ack, keyed and folded: see [`Last::fold`].
    tag: u32,
    /// It offered a window of zero.
    zero_window: bool,
}

/// What must be remembered exactly of a segment we ignored. Kept outside the record: few connections need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    window: u16,
    scale: u8,
    flags: u8,
    ack: Seq,
}

impl Last {
    /// Upper half: of seq and window; lower half: of ack. Equal folds mean equal segments, but for one chance in 65,536 a half: three
    /// in a row are needed to have any effect, and the multipliers are secret. Ten octets less in a record of one cache line.
    #[inline(always)]
    fn fold(seq: u32, window: u16, ack: u32, secret: (u64, u64)) -> u32 {
        Last::upper(seq, window, secret) | Last::lower(ack, secret)
    }

    #[inline(always)]
    fn upper(seq: u32, window: u16, (first, _): (u64, u64)) -> u32 {
        let folded = (u64::from(seq) << 16 | u64::from(window)).wrapping_mul(first | 1);
        (folded >> 48 << 16) as u32
    }

    #[inline(always)]
    fn lower(ack: u32, (_, second): (u64, u64)) -> u32 {
        (u64::from(ack).wrapping_mul(second | 1) >> 48) as u32
    }
}

impl Side {
    /// Takes the options of a SYN; what was known of them is forgotten.
    fn read_options(&mut self, segment: &Segment<'_>) {
        let options = segment.handshake();
        self.scale = options.scale.unwrap_or(0);
        self.flags &= side_flag::LIBERAL;
        self.flags |= if options.scale.is_some() { side_flag::SCALE } else { 0 };
        self.flags |= if options.sack_permitted { side_flag::SACK_PERMITTED } else { 0 };
    }

    pub(crate) fn shown(&self) -> crate::TcpSide {
        crate::TcpSide {
            flags: self.flags,
            scale: self.scale,
            end: self.end.0,
            max_end: self.max_end.0,
            max_window: self.max_window,
            max_ack: self.max_ack.0,
        }
    }
}

/// Linux calls a segment malformed for its flags before it looks at the connection.
#[inline(always)]
pub(crate) fn check_flags(segment: &Segment<'_>) -> Result<(), Why> {
    if transitions::legal(segment.flags) { Ok(()) } else { Err(Why::TcpFlags) }
}

impl Tcp {
    /// A connection from its first segment: a SYN, or with `loose` an ACK from the middle.
    pub(crate) fn open(segment: &Segment<'_>, knobs: &Knobs) -> Result<Tcp, Why> {
        let proposal = propose(Direction::Original, Class::of(segment.flags), TcpState::None);
        let (end, window) = (segment_end(segment), u32::from(segment.window).max(1));
        let mut sender = Side { end, max_window: window, max_end: end, ..Side::default() };
        let mut receiver = Side::default();
        match proposal {
            Proposal::To(TcpState::SynSent) => sender.read_options(segment),
            Proposal::To(_) if knobs.on(Knob::TcpLoose) => {
                sender.max_end = end.plus(window);
                // Its options were not seen: assume the best.
                sender.flags = side_flag::SACK_PERMITTED | side_flag::LIBERAL;
                receiver.flags = sender.flags;
            }
            Proposal::To(_) => return Err(Why::TcpNotOpened),
            Proposal::Ignore | Proposal::Invalid => return Err(Why::TcpFirst),
        }
        let last =
            Last { class: Class::Nothing, direction: Direction::Original, end: Seq(0), tag: 0, zero_window: true };
        let sides = [sender, receiver];
        Ok(Tcp { state: TcpState::None, sides, last, retrans: 0, simultaneous: false, challenge: false })
    }

    /// What `segment` makes of this connection.
    #[inline(always)]
    pub(crate) fn advance(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        context: &Context<'_>,
        noted: &mut Option<Noted>,
    ) -> Ruling {
        let class = Class::of(segment.flags);
        let old = self.state;
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
                Fit::Ignore(why) => return Ruling::Quiet(Some(why)),
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
        let old = self.state;
        let step = Step { old, new, unchecked: false };
        match new {
            TcpState::SynSent if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                if self.close_was_seen(direction) {
                    return Err(Ruling::Reopen);
                }
                Err(self.ignore(segment, direction, class, context, noted))
            }
            TcpState::TimeWait if self.is_challenge_ack(direction, class) => {
                self.challenge = false;
                Err(Ruling::Quiet(Some(Why::TcpChallengeAck)))
            }
            TcpState::SynSent2 => {
                self.simultaneous = true;
                Ok(step)
            }
            // The table alone cannot tell the last ACK of a simultaneous open.
            TcpState::SynRecv if direction == Direction::Reply && class == Class::Ack && self.simultaneous => {
                Ok(Step { new: TcpState::Established, ..step })
            }
            TcpState::Close if class == Class::Rst => self.reset(segment, direction, context, noted),
            _ => Ok(step),
        }
    }

    /// An old tuple may live again if one side closed it, or the opener itself reset it.
    fn close_was_seen(&self, direction: Direction) -> bool {
        let [original, reply] = &self.sides;
        (original.flags | reply.flags) & side_flag::CLOSED_FIRST != 0
            || self.last.direction == direction && self.last.class == Class::Rst
    }

    /// RFC 5961, 4.2: a SYN that we let pass in LAST_ACK is answered by an ACK of the old connection.
    fn is_challenge_ack(&self, direction: Direction, class: Class) -> bool {
        self.state == TcpState::LastAck
            && class == Class::Ack
            && self.last.direction != direction
            && self.last.class == Class::Syn
            && self.challenge
    }

    /// A RST closes only if it can be honest (RFC 5961, 3.2).
    fn reset(
        &self,
        segment: &Segment<'_>,
        direction: Direction,
        context: &Context<'_>,
        noted: &Option<Noted>,
    ) -> Result<Step, Ruling> {
        let mut step = Step { old: self.state, new: TcpState::Close, unchecked: false };
        let unchecked = Step { unchecked: true, ..step };
        if self.is_closing() {
            // The tuple may be in use again already: our numbers are worth nothing.
            return Ok(unchecked);
        }
        let peer = &self.sides[direction.opposite() as usize];
        let established = self.state == TcpState::Established && context.status.has(Status::ASSURED);
        if peer.flags & side_flag::ACK_KNOWN != 0 && self.last.class != Class::Syn {
            let seq = Seq(segment.seq);
            if segment.seq == 0 && !established {
                // Most likely the answer to a SYN that we let pass.
                return Ok(step);
            }
            if seq.before(peer.max_ack) && !context.knobs.on(Knob::TcpIgnoreInvalidRst) {
                return Err(Ruling::invalid(Why::TcpRst));
            }
            let after_last = self.last.class == Class::Ack && self.last.direction == direction && seq == self.last.end;
            if !established || seq == peer.max_ack || after_last {
                return Ok(step);
            }
            // Not the exact number: the end may answer with a challenge, so the connection may go on.
            step.new = step.old;
        }
        let seen_reply = context.status.has(Status::SEEN_REPLY);
        let answers_ignored = seen_reply && self.last.class == Class::Syn
            || !context.status.has(Status::ASSURED) && self.last.class == Class::Ack;
        if answers_ignored && Seq(segment.ack) == self.last.end {
            return Ok(Step { unchecked: true, ..step });
        }
        let challenged = self.state == TcpState::SynSent
            && self.last.class == Class::Ack
            && self.last.direction == Direction::Reply
            && Seq(segment.seq) == noted.unwrap_or_default().ack;
        Ok(if challenged { Step { unchecked: true, ..step } } else { step })
    }

    /// Closing, so that it may also be dropped early.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(
            self.state,
            TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait | TcpState::Close
        )
    }

    /// A SYN-ACK for a SYN we ignored: client and server agree, we are the one out of step.
    fn answers_ignored_syn(&self, segment: &Segment<'_>, direction: Direction, class: Class) -> bool {
        class == Class::SynAck
            && self.last.class == Class::Syn
            && self.last.direction != direction
            && Seq(segment.ack) == self.last.end
    }

    /// Begins anew from what was noted of the ignored SYN.
    fn resynchronise(&mut self, direction: Direction, noted: &Option<Noted>) {
        let noted = noted.unwrap_or_default();
        let opener = &mut self.sides[direction.opposite() as usize];
        opener.end = self.last.end;
        opener.max_end = self.last.end;
        opener.max_window = u32::from(noted.window).max(1);
        opener.scale = noted.scale;
        opener.flags = noted.flags;
        self.challenge = false;
        self.sides[direction as usize] = Side::default();
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
        self.last = Last {
            class,
            direction,
            end: segment_end(segment),
            tag: Last::upper(segment.seq, segment.window, context.secret) | self.last.tag & 0xffff,
            zero_window: segment.window == 0,
        };
        if class == Class::Syn && direction == Direction::Original {
            let mut options = Side::default();
            options.read_options(segment);
            note.flags = options.flags;
            note.scale = options.scale;
            self.simultaneous = false;
            self.challenge = self.state == TcpState::LastAck;
        }
        if self.state == TcpState::SynSent && class == Class::Ack && direction == Direction::Reply {
            note.ack = Seq(segment.ack);
            self.last.tag = self.last.tag & 0xffff_0000 | Last::lower(segment.ack, context.secret);
        }
        *noted = Some(note);
        Ruling::Quiet(Some(Why::TcpIgnored))
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
        if self.last.direction == direction || !ending(self.last.class) {
            self.last.class = class;
            self.last.direction = direction;
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
        let tag = Last::fold(segment.seq, segment.window, segment.ack, secret);
        if self.last.direction == direction && self.last.end == end && self.last.tag == tag {
            self.retrans = self.retrans.wrapping_add(1);
        } else {
            self.last = Last { direction, end, tag, zero_window: segment.window == 0, ..self.last };
            self.retrans = 0;
        }
    }

    /// The segment belongs: move, and choose the timeout.
    #[inline(always)]
    fn enter(&mut self, step: Step, direction: Direction, class: Class, context: &Context<'_>) -> Ruling {
        let Step { old, new, .. } = step;
        self.last.class = class;
        self.last.direction = direction;
        self.state = new;
        if old != new && new == TcpState::FinWait {
            self.sides[direction as usize].flags |= side_flag::CLOSED_FIRST;
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
                return Ruling::Quiet(None);
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
        let own = knobs[STATE_KNOBS[self.state as usize]];
        let capped = |knob: Knob| own > knobs[knob];
        let unacknowledged = (self.sides[0].flags | self.sides[1].flags) & side_flag::UNACKNOWLEDGED != 0;
        if u32::from(self.retrans) >= knobs[Knob::TcpMaxRetrans] && capped(Knob::TcpTimeoutMaxRetrans) {
            knobs[Knob::TcpTimeoutMaxRetrans]
        } else if class == Class::Rst {
            knobs[Knob::TcpTimeoutClose]
        } else if unacknowledged && capped(Knob::TcpTimeoutUnacknowledged) {
            knobs[Knob::TcpTimeoutUnacknowledged]
        } else if self.last.zero_window && capped(Knob::TcpTimeoutMaxRetrans) {
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
