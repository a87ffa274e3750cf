//! The SCTP tracker (RFC 9260), as in Linux 6.18: a state, and for each direction the verification tag its packets must carry.
//!
//! An [`Sctp`] is created from a first packet and updated by every packet, including the first. A packet may carry several chunks, and each
//! may change the state. Changes by earlier chunks remain even if a later one makes the packet invalid: the value must be stored whatever
//! `track_packet` returns. The tracker must never trust a chunk's length, and never read past the packet.
mod chunks;
mod error;
mod layout;
#[cfg(test)]
mod tests;
mod transitions;

use crate::{Direction, SctpState, Sysctl};
use chunks::{Chunk, ChunkBundle};
use error::SctpError;
use keepstate_wire::sctp::SctpHeader;
use transitions::{ChunkType, next_state};

/// The state of an association on one path: twelve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sctp {
    /// The verification tags that packets of the original and of the reply direction must carry; 0 if unknown.
    pub(crate) vtags: [u32; 2],
    /// The state.
    pub(crate) state: SctpState,
    /// Flags: see the constants.
    pub(crate) flags: u8,
}

const _: () = assert!(size_of::<Sctp>() <= 16);

/// A heartbeat with an unknown tag passed: its ack may bring new tags.
const HEARTBEAT_VTAG_FAILED: u8 = 1;
/// That heartbeat came from the reply direction.
const VTAG_FAILED_IN_REPLY: u8 = 2;
/// An INIT with a new tag came from the original direction, without a COOKIE ACK since; the next bit is for the reply direction.
const INIT_SEEN: u8 = 4;
/// The association was established once: it stays assured, even if a later chunk of the same packet is invalid.
const WAS_ESTABLISHED: u8 = 16;

/// The effect of a valid packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SctpUpdate {
    /// The state has changed.
    pub(crate) changed: bool,
    /// The association is established: it must not be dropped early from now on.
    pub(crate) assured: bool,
    /// The packet passes, but is not counted and does not restart the timeout: the tracker may be out of step.
    pub(crate) ignored: bool,
}

/// With any of these chunks the packet's tag is not checked as a whole; most have a rule of their own.
const OWN_VTAG_CHECK: [ChunkType; 7] = [
    ChunkType::Init,
    ChunkType::Abort,
    ChunkType::ShutdownAck,
    ChunkType::CookieEcho,
    ChunkType::ShutdownComplete,
    ChunkType::Heartbeat,
    ChunkType::HeartbeatAck,
];

impl Sctp {
    /// Is the association shutting down? If so, it may be dropped early.
    pub(crate) const fn is_closing(&self) -> bool {
        matches!(self.state, SctpState::ShutdownSent | SctpState::ShutdownRecd | SctpState::ShutdownAckSent)
    }

    /// Creates an association from a first packet. The same packet must then be passed to [`Sctp::track_packet`].
    pub(crate) fn from_first_packet(header: &SctpHeader<'_>) -> Result<Sctp, SctpError> {
        let bundle = ChunkBundle::check(header.chunks)?;
        let mut sctp = Sctp { vtags: [0; 2], state: SctpState::None, flags: 0 };
        for chunk in bundle.chunks() {
            next_state(Direction::Original, chunk.chunk_type, SctpState::None)
                .ok_or(SctpError::UnexpectedFirstChunk)?;
            match chunk.chunk_type {
                ChunkType::Init if header.tag != 0 => return Err(SctpError::BadVtag),
                ChunkType::Init => {
                    sctp.vtags = [0, chunk.initiate_tag()?];
                    sctp.flags = init_seen_flag(Direction::Original);
                }
                ChunkType::Heartbeat => sctp.vtags = [header.tag, sctp.vtag(Direction::Reply)],
                // A response to an end that lost its state: it carries the tag of the direction that has not sent yet.
                ChunkType::ShutdownAck => sctp.vtags = [sctp.vtag(Direction::Original), header.tag],
                _ => {}
            }
        }
        Ok(sctp)
    }

    /// Tracks one packet of the association.
    pub(crate) fn track_packet(
        &mut self,
        header: &SctpHeader<'_>,
        direction: Direction,
    ) -> Result<SctpUpdate, SctpError> {
        let bundle = ChunkBundle::check(header.chunks)?;
        if !bundle.has_any(&OWN_VTAG_CHECK) && header.tag != self.vtag(direction) {
            return Err(SctpError::BadVtag);
        }
        let with_data = bundle.has_any(&[ChunkType::Data]);
        let before = self.state;
        let mut step = SctpUpdate::default();
        for chunk in bundle.chunks() {
            if self.check_vtag(&chunk, header.tag, direction, with_data || step.ignored)? == VtagCheck::Ignore {
                step.ignored = true;
                continue;
            }
            let state = next_state(direction, chunk.chunk_type, self.state).ok_or(SctpError::InvalidTransition)?;
            step.ignored |= self.state == SctpState::Closed && chunk.chunk_type == ChunkType::Init;
            self.update_vtags(&chunk, direction)?;
            if state == SctpState::Established && self.state != state {
                step.assured = true;
                self.flags |= WAS_ESTABLISHED;
            }
            self.state = state;
        }
        step.changed = self.state != before;
        Ok(step)
    }

    /// Was it ever established? If so, it must not be dropped early.
    pub(crate) const fn was_established(&self) -> bool {
        self.flags & WAS_ESTABLISHED != 0
    }

    /// The sysctl with the timeout of the current state.
    pub(crate) const fn timeout_sysctl(&self) -> Sysctl {
        match self.state {
            SctpState::None | SctpState::Closed => Sysctl::SctpTimeoutClosed,
            SctpState::CookieWait => Sysctl::SctpTimeoutCookieWait,
            SctpState::CookieEchoed => Sysctl::SctpTimeoutCookieEchoed,
            SctpState::Established => Sysctl::SctpTimeoutEstablished,
            SctpState::ShutdownSent => Sysctl::SctpTimeoutShutdownSent,
            SctpState::ShutdownRecd => Sysctl::SctpTimeoutShutdownRecd,
            SctpState::ShutdownAckSent => Sysctl::SctpTimeoutShutdownAckSent,
            SctpState::HeartbeatSent => Sysctl::SctpTimeoutHeartbeatSent,
        }
    }

    /// The tag rules of RFC 9260, section 8.5.1, for chunks with a rule of their own. `strict` forbids a heartbeat with an unknown tag.
    fn check_vtag(
        &mut self,
        chunk: &Chunk<'_>,
        tag: u32,
        direction: Direction,
        strict: bool,
    ) -> Result<VtagCheck, SctpError> {
        let expected = match chunk.chunk_type {
            ChunkType::Init => 0,
            ChunkType::Abort | ChunkType::ShutdownComplete if chunk.has_t_bit() => self.vtag(direction.opposite()),
            ChunkType::Abort | ChunkType::ShutdownComplete | ChunkType::CookieEcho => self.vtag(direction),
            ChunkType::Heartbeat | ChunkType::HeartbeatAck if self.vtag(direction) == 0 => {
                self.set_vtag(direction, tag);
                return Ok(VtagCheck::Accept);
            }
            ChunkType::Heartbeat | ChunkType::HeartbeatAck if tag == self.vtag(direction) => {
                self.flags &= !HEARTBEAT_VTAG_FAILED;
                return Ok(VtagCheck::Accept);
            }
            ChunkType::Heartbeat if strict => return Err(SctpError::BadVtag),
            ChunkType::Heartbeat => {
                self.set_vtag_failed(direction);
                return Ok(VtagCheck::Ignore);
            }
            ChunkType::HeartbeatAck => return self.relearn_vtag(tag, direction, strict),
            _ => return Ok(VtagCheck::Accept),
        };
        if tag == expected { Ok(VtagCheck::Accept) } else { Err(SctpError::BadVtag) }
    }

    /// The ack of a heartbeat with an unknown tag: both ends agree on tags that the tracker missed, so they are accepted.
    fn relearn_vtag(&mut self, tag: u32, direction: Direction, strict: bool) -> Result<VtagCheck, SctpError> {
        let answers = self.flags & HEARTBEAT_VTAG_FAILED != 0 && self.vtag_failed_direction() != direction;
        if strict || !answers {
            return Err(SctpError::BadVtag);
        }
        self.flags &= !HEARTBEAT_VTAG_FAILED;
        self.set_vtag(direction, tag);
        self.set_vtag(direction.opposite(), 0);
        Ok(VtagCheck::Accept)
    }

    /// Takes the tags from INIT and INIT ACK, for packets from the other end.
    fn update_vtags(&mut self, chunk: &Chunk<'_>, direction: Direction) -> Result<(), SctpError> {
        let other = direction.opposite();
        match chunk.chunk_type {
            ChunkType::Init => {
                let tag = chunk.initiate_tag()?;
                // A retransmission with the same tag changes nothing.
                if tag != self.vtag(other) {
                    self.set_vtag(other, tag);
                    // After a collision the retransmitted INIT wins: the other end has given up its own.
                    if self.flags & init_seen_flag(direction) != 0 {
                        self.flags &= !init_seen_flag(other);
                    }
                    self.flags |= init_seen_flag(direction);
                }
            }
            ChunkType::InitAck => {
                let tag = chunk.initiate_tag()?;
                let known = self.vtag(other);
                let (other_asked, this_asked) =
                    (self.flags & init_seen_flag(other) != 0, self.flags & init_seen_flag(direction) != 0);
                let asked = other_asked && !this_asked;
                // If both ends sent an INIT, neither may bring a tag that was not recorded.
                let must_match = known != 0 || other_asked && this_asked;
                if must_match && known != tag && !asked {
                    return Err(SctpError::UnexpectedInitAck);
                }
                self.set_vtag(other, tag);
            }
            ChunkType::CookieAck => {
                self.flags &= !(init_seen_flag(Direction::Original) | init_seen_flag(Direction::Reply))
            }
            _ => {}
        }
        Ok(())
    }

    const fn vtag(&self, direction: Direction) -> u32 {
        self.vtags[direction as usize]
    }

    fn set_vtag(&mut self, direction: Direction, tag: u32) {
        self.vtags[direction as usize] = tag;
    }

    fn set_vtag_failed(&mut self, direction: Direction) {
        self.flags = self.flags & !VTAG_FAILED_IN_REPLY | HEARTBEAT_VTAG_FAILED;
        if direction == Direction::Reply {
            self.flags |= VTAG_FAILED_IN_REPLY;
        }
    }

    const fn vtag_failed_direction(&self) -> Direction {
        if self.flags & VTAG_FAILED_IN_REPLY != 0 { Direction::Reply } else { Direction::Original }
    }
}

/// The effect of the packet's tag on one of its chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VtagCheck {
    /// The chunk is processed.
    Accept,
    /// The chunk passes without effect.
    Ignore,
}

const fn init_seen_flag(direction: Direction) -> u8 {
    INIT_SEEN << direction as u8
}
