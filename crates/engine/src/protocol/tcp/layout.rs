//! The layout of a TCP connection in 45 bytes of its record; the tracker works on them in place.
//!
//! ```text
//! state    low half: the state; high half: the class of the last segment
//! flags    each side's six flags; original's: 0x40 the last segment was a reply, 0x80 its window was zero
//!                                 reply's:    0x40 expect a challenge ACK,       0x80 simultaneous open
//! scales   low half: original's, high half: reply's
//! retrans  number of retransmissions of the last segment
//! words    original end, max_end, max_window, max_ack; the same of the reply; last_end; last_hash
//! ```
use super::seq::Seq;
use super::transitions::SegmentClass;
use crate::table::record::HotRecord;
use crate::{Direction, TcpState};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A TCP connection: part of a record, laid out as the [`layout`] module describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Tcp {
    pub(super) other_fields: OtherFields,
    pub(super) state: u8,
    pub(super) flags: [u8; 2],
    pub(super) scales: u8,
    pub(super) retrans: u8,
    pub(super) windows: Windows,
}

/// The other fields of the record: tuple, deadline, status, kind. The tracker must neither read nor write them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct OtherFields(pub(super) [u8; 19]);

/// The numbers of both ends and of the last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Windows {
    /// Original, then reply.
    pub(super) sides: [Side; 2],
    pub(super) last_end: Seq,
    /// Keyed hash of seq, window and ack of the last segment: see [`segment_hash`].
    pub(super) last_hash: u32,
}

/// The numbers of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Side {
    /// Highest sequence number seen, plus one.
    pub(super) end: Seq,
    /// Highest sequence number it may send, plus one.
    pub(super) max_end: Seq,
    /// Largest window it offered, scaled; 0 until a segment of this end is seen.
    pub(super) max_window: u32,
    /// Highest acknowledgement it sent; valid if `MAXACK_SET`.
    pub(super) max_ack: Seq,
}

impl Side {
    /// Forgotten, since its segments pass elsewhere: no window, and a number that means nothing without one.
    pub(super) const FORGOTTEN: Side = Side { end: Seq(0), max_end: Seq(u32::MAX), max_window: 0, max_ack: Seq(0) };
}

/// Flags of a side, with the bit values of ctnetlink.
pub(crate) mod side_flag {
    pub(crate) const WINDOW_SCALE: u8 = 0x01;
    pub(crate) const SACK_PERM: u8 = 0x02;
    /// This side closed first.
    pub(crate) const CLOSE_INIT: u8 = 0x04;
    pub(crate) const BE_LIBERAL: u8 = 0x08;
    pub(crate) const DATA_UNACKNOWLEDGED: u8 = 0x10;
    pub(crate) const MAXACK_SET: u8 = 0x20;
    /// All six flags.
    pub(crate) const ALL: u8 = 0x3f;
}

/// Details of an ignored segment that the record has no room for. Stored outside it, since few connections need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IgnoredSyn {
    pub(super) window: u16,
    pub(super) scale: u8,
    pub(super) flags: u8,
    pub(super) ack: Seq,
}

/// A flag of the whole connection, in an unused bit of a side's flags.
#[derive(Clone, Copy)]
pub(super) enum ConnFlag {
    /// The last segment came from the reply side.
    LastWasReply,
    /// The last segment offered a zero window.
    ZeroWindow,
    /// A SYN passed in LAST_ACK: the next ACK may be a challenge ACK (RFC 5961), not the last ACK.
    ExpectChallengeAck,
    /// Both ends sent a SYN.
    SimultaneousOpen,
}

impl ConnFlag {
    pub(super) const fn side_and_bit(self) -> (usize, u8) {
        match self {
            ConnFlag::LastWasReply => (0, 0x40),
            ConnFlag::ZeroWindow => (0, 0x80),
            ConnFlag::ExpectChallengeAck => (1, 0x40),
            ConnFlag::SimultaneousOpen => (1, 0x80),
        }
    }
}

impl Tcp {
    /// The connection in a record, in place, without a copy.
    #[inline(always)]
    pub(crate) fn from_record_mut(hot: &mut HotRecord) -> &mut Tcp {
        zerocopy::transmute_mut!(hot)
    }

    /// A copy of the connection in a record.
    pub(crate) fn load(hot: &HotRecord) -> Tcp {
        zerocopy::transmute!(*hot)
    }

    /// Writes the connection into a record, whose other fields are not changed.
    pub(crate) fn store(&self, hot: &mut HotRecord) {
        let place = Tcp::from_record_mut(hot);
        *place = Tcp { other_fields: place.other_fields, ..*self };
    }

    /// Applies an update from outside. Scales apply only if both ends have the window scale flag.
    pub(crate) fn set_protoinfo(
        &mut self,
        state: Option<TcpState>,
        scales: Option<[u8; 2]>,
        flags: [Option<[u8; 2]>; 2],
    ) {
        state.into_iter().for_each(|state| self.set_state(state));
        for (flags, update) in self.flags.iter_mut().zip(flags) {
            if let Some([value, mask]) = update {
                let mask = mask & side_flag::ALL;
                *flags = *flags & !mask | value & mask;
            }
        }
        let both = [Direction::Original, Direction::Reply];
        if let (Some(scales), true) =
            (scales, both.iter().all(|side| self.has_side_flag(*side, side_flag::WINDOW_SCALE)))
        {
            both.into_iter().zip(scales).for_each(|(side, scale)| self.set_scale(side, scale));
        }
    }

    /// The state.
    #[inline(always)]
    pub(crate) const fn state(&self) -> TcpState {
        STATES[(self.state & 0xf) as usize]
    }

    #[inline(always)]
    pub(super) const fn set_state(&mut self, state: TcpState) {
        self.state = self.state & 0xf0 | state as u8;
    }

    /// The class of the last segment that was recorded.
    #[inline(always)]
    pub(super) const fn last_class(&self) -> SegmentClass {
        SegmentClass::from_number(self.state >> 4)
    }

    /// The direction of that segment.
    #[inline(always)]
    pub(super) const fn last_direction(&self) -> Direction {
        if self.has_flag(ConnFlag::LastWasReply) { Direction::Reply } else { Direction::Original }
    }

    #[inline(always)]
    pub(super) fn set_last_segment(&mut self, class: SegmentClass, direction: Direction) {
        self.state = self.state & 0x0f | (class as u8) << 4;
        self.set_flag(ConnFlag::LastWasReply, direction == Direction::Reply);
    }

    #[inline(always)]
    pub(super) const fn has_flag(&self, mark: ConnFlag) -> bool {
        let (side, bit) = mark.side_and_bit();
        self.flags[side] & bit != 0
    }

    #[inline(always)]
    pub(super) const fn set_flag(&mut self, mark: ConnFlag, on: bool) {
        let (side, bit) = mark.side_and_bit();
        self.flags[side] = self.flags[side] & !bit | if on { bit } else { 0 };
    }

    /// A flag of one side: see [`super::side_flag`].
    #[inline(always)]
    pub(super) const fn has_side_flag(&self, direction: Direction, flag: u8) -> bool {
        self.flags[direction as usize] & flag != 0
    }

    #[inline(always)]
    pub(super) const fn set_side_flag(&mut self, direction: Direction, flag: u8) {
        self.flags[direction as usize] |= flag;
    }

    #[inline(always)]
    pub(super) const fn clear_side_flag(&mut self, direction: Direction, flag: u8) {
        self.flags[direction as usize] &= !flag;
    }

    /// The window scale of one side, at most 14.
    #[inline(always)]
    pub(super) const fn scale(&self, direction: Direction) -> u8 {
        self.scales >> (direction as u8 * 4) & 0xf
    }

    pub(super) const fn set_scale(&mut self, direction: Direction, scale: u8) {
        let shift = direction as u8 * 4;
        self.scales = self.scales & !(0xf << shift) | (scale & 0xf) << shift;
    }
}

const _: () = assert!(size_of::<Tcp>() == size_of::<HotRecord>());

/// States by number; only valid state numbers are ever stored.
const STATES: [TcpState; 16] = {
    let mut states = [TcpState::None; 16];
    let mut number = 0;
    while number < TcpState::ALL.len() {
        states[number] = TcpState::ALL[number];
        number += 1;
    }
    states
};
