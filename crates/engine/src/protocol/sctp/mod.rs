//! SCTP (RFC 9260) as Linux 6.18 tracks it: a state, and for each direction the tag its packets must carry.
//!
//! An [`Sctp`] is opened by a first packet and advanced by every packet, that first one included. Packets may carry several chunks; each
//! moves the state, and what earlier chunks did stands even if a later one makes the packet invalid: the value is to be stored whatever
//! `advance` returns. It must never trust a chunk's length, and never read past the packet.
mod chunks;
mod layout;
#[cfg(test)]
mod tests;
mod transitions;

use crate::{Direction, Knob, SctpState};
use chunks::{Bundle, Chunk};
use keepstate_wire::sctp::Header;
use transitions::{Kind, next};

/// What is kept of an association on one path: twelve octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sctp {
    /// The verification tags that packets of the original and of the reply direction must carry; 0 while not known.
    pub(crate) tags: [u32; 2],
    /// The state.
    pub(crate) state: SctpState,
    /// What else must be remembered: see the constants.
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<Sctp>() <= 16);

/// A heartbeat with a strange tag passed: its answer may teach us new tags.
const HEARTBEAT_FAILED: u8 = 1;
/// It came from the reply direction.
const FAILED_IN_REPLY: u8 = 2;
/// An INIT with a new tag came from the original direction, and no COOKIE ACK since; the next bit is for the reply direction.
const INIT_SEEN: u8 = 4;
/// The association was up once: it stays assured, even if a later chunk of the packet that did it is invalid.
const WAS_UP: u8 = 16;

/// Why a packet is no part of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Chunks that may not stand together, none at all, one of length zero, or an INIT cut short.
    Chunks,
    /// An association does not begin with such a chunk.
    First,
    /// The verification tag is not the association's.
    Tag,
    /// The chunk has no place in this state.
    State,
    /// An INIT ACK whose tag is neither the one known nor asked for by an INIT.
    InitAck,
}

/// What a packet that belongs to the association did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The state is another now.
    pub(crate) changed: bool,
    /// The association is up: it is not to be dropped early from now on.
    pub(crate) assured: bool,
    /// The packet passes, but is not counted and moves no timeout: we may be the one out of step.
    pub(crate) ignored: bool,
}

/// Any of these sets the check of the whole packet's tag aside; most have a rule of their own.
const OWN_TAG_RULE: [Kind; 7] = [
    Kind::Init,
    Kind::Abort,
    Kind::ShutdownAck,
    Kind::CookieEcho,
    Kind::ShutdownComplete,
    Kind::Heartbeat,
    Kind::HeartbeatAck,
];

impl Sctp {
    /// Shutting down, so that it may also be dropped early.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.state, SctpState::ShutdownSent | SctpState::ShutdownRecd | SctpState::ShutdownAckSent)
    }

    /// What a first packet opens: an association that [`Sctp::advance`] is then to be asked about, for the same packet.
    pub(crate) fn open(header: &Header<'_>) -> Result<Sctp, Fault> {
        let bundle = Bundle::check(header.chunks)?;
        let mut sctp = Sctp { tags: [0; 2], state: SctpState::None, flags: 0 };
        for chunk in bundle.chunks() {
            next(Direction::Original, chunk.kind, SctpState::None).ok_or(Fault::First)?;
            match chunk.kind {
                Kind::Init if header.tag != 0 => return Err(Fault::Tag),
                Kind::Init => {
                    sctp.tags = [0, chunk.initiate_tag()?];
                    sctp.flags = init_seen(Direction::Original);
                }
                Kind::Heartbeat => sctp.tags = [header.tag, sctp.tag(Direction::Reply)],
                // An answer to somebody who has forgotten: it carries the tag of the direction that is still to speak.
                Kind::ShutdownAck => sctp.tags = [sctp.tag(Direction::Original), header.tag],
                _ => {}
            }
        }
        Ok(sctp)
    }

    /// Takes in one packet of the association.
    pub(crate) fn advance(&mut self, header: &Header<'_>, direction: Direction) -> Result<Step, Fault> {
        let bundle = Bundle::check(header.chunks)?;
        if !bundle.has_any(&OWN_TAG_RULE) && header.tag != self.tag(direction) {
            return Err(Fault::Tag);
        }
        let with_data = bundle.has_any(&[Kind::Data]);
        let before = self.state;
        let mut step = Step::default();
        for chunk in bundle.chunks() {
            if self.check_tag(&chunk, header.tag, direction, with_data || step.ignored)? == Heard::Nothing {
                step.ignored = true;
                continue;
            }
            let state = next(direction, chunk.kind, self.state).ok_or(Fault::State)?;
            step.ignored |= self.state == SctpState::Closed && chunk.kind == Kind::Init;
            self.learn(&chunk, direction)?;
            if state == SctpState::Established && self.state != state {
                step.assured = true;
                self.flags |= WAS_UP;
            }
            self.state = state;
        }
        step.changed = self.state != before;
        Ok(step)
    }

    /// Has it been up, and so is not to be dropped early?
    pub(crate) const fn was_up(&self) -> bool {
        self.flags & WAS_UP != 0
    }

    /// The knob that says how long the association may be silent in its state.
    pub(crate) const fn timeout(&self) -> Knob {
        match self.state {
            SctpState::None | SctpState::Closed => Knob::SctpTimeoutClosed,
            SctpState::CookieWait => Knob::SctpTimeoutCookieWait,
            SctpState::CookieEchoed => Knob::SctpTimeoutCookieEchoed,
            SctpState::Established => Knob::SctpTimeoutEstablished,
            SctpState::ShutdownSent => Knob::SctpTimeoutShutdownSent,
            SctpState::ShutdownRecd => Knob::SctpTimeoutShutdownRecd,
            SctpState::ShutdownAckSent => Knob::SctpTimeoutShutdownAckSent,
            SctpState::HeartbeatSent => Knob::SctpTimeoutHeartbeatSent,
        }
    }

    /// The rules of RFC 9260, section 8.5.1, for chunks with a rule of their own. `strict` forbids a strange heartbeat.
    fn check_tag(&mut self, chunk: &Chunk<'_>, tag: u32, direction: Direction, strict: bool) -> Result<Heard, Fault> {
        let expected = match chunk.kind {
            Kind::Init => 0,
            Kind::Abort | Kind::ShutdownComplete if chunk.tag_is_reflected() => self.tag(direction.opposite()),
            Kind::Abort | Kind::ShutdownComplete | Kind::CookieEcho => self.tag(direction),
            Kind::Heartbeat | Kind::HeartbeatAck if self.tag(direction) == 0 => {
                self.know(direction, tag);
                return Ok(Heard::Chunk);
            }
            Kind::Heartbeat | Kind::HeartbeatAck if tag == self.tag(direction) => {
                self.flags &= !HEARTBEAT_FAILED;
                return Ok(Heard::Chunk);
            }
            Kind::Heartbeat if strict => return Err(Fault::Tag),
            Kind::Heartbeat => {
                self.remember_failure(direction);
                return Ok(Heard::Nothing);
            }
            Kind::HeartbeatAck => return self.relearn(tag, direction, strict),
            _ => return Ok(Heard::Chunk),
        };
        if tag == expected { Ok(Heard::Chunk) } else { Err(Fault::Tag) }
    }

    /// The answer to a heartbeat with a strange tag: both ends agree on tags that we missed, so they are right.
    fn relearn(&mut self, tag: u32, direction: Direction, strict: bool) -> Result<Heard, Fault> {
        let answers = self.flags & HEARTBEAT_FAILED != 0 && self.failed_in() != direction;
        if strict || !answers {
            return Err(Fault::Tag);
        }
        self.flags &= !HEARTBEAT_FAILED;
        self.know(direction, tag);
        self.know(direction.opposite(), 0);
        Ok(Heard::Chunk)
    }

    /// Tags that INIT and INIT ACK bring, for the packets that will come from the other end.
    fn learn(&mut self, chunk: &Chunk<'_>, direction: Direction) -> Result<(), Fault> {
        let other = direction.opposite();
        match chunk.kind {
            Kind::Init => {
                let tag = chunk.initiate_tag()?;
                // Sent again with the tag it had, it asks for nothing new.
                if tag != self.tag(other) {
                    self.know(other, tag);
                    // Of two that collided, the one sent again wins: the other end has given up its own.
                    if self.flags & init_seen(direction) != 0 {
                        self.flags &= !init_seen(other);
                    }
                    self.flags |= init_seen(direction);
                }
            }
            Kind::InitAck => {
                let tag = chunk.initiate_tag()?;
                let known = self.tag(other);
                let (other_asked, this_asked) =
                    (self.flags & init_seen(other) != 0, self.flags & init_seen(direction) != 0);
                let asked = other_asked && !this_asked;
                // Of two that both asked, neither may bring a tag that was not noted.
                let noted = known != 0 || other_asked && this_asked;
                if noted && known != tag && !asked {
                    return Err(Fault::InitAck);
                }
                self.know(other, tag);
            }
            Kind::CookieAck => self.flags &= !(init_seen(Direction::Original) | init_seen(Direction::Reply)),
            _ => {}
        }
        Ok(())
    }

    const fn tag(&self, direction: Direction) -> u32 {
        self.tags[direction as usize]
    }

    fn know(&mut self, direction: Direction, tag: u32) {
        self.tags[direction as usize] = tag;
    }

    fn remember_failure(&mut self, direction: Direction) {
        self.flags = self.flags & !FAILED_IN_REPLY | HEARTBEAT_FAILED;
        if direction == Direction::Reply {
            self.flags |= FAILED_IN_REPLY;
        }
    }

    const fn failed_in(&self) -> Direction {
        if self.flags & FAILED_IN_REPLY != 0 { Direction::Reply } else { Direction::Original }
    }
}

/// What the tag of a packet makes of one of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// It counts.
    Chunk,
    /// It passes without a word.
    Nothing,
}

const fn init_seen(direction: Direction) -> u8 {
    INIT_SEEN << direction as u8
}
