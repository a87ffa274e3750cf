//! One connection as it leaves one engine and enters another: everything that matters about it, and nothing of where it stood.
//!
//! A [`ConnSnapshot`] is made from a living connection ([`Engine::export`]), may be written as bytes that say themselves what they are
//! ([`ConnSnapshot::encode`]), and becomes a connection again in an engine that has neither of its tuples ([`Engine::import`]): its timeouts go on, a
//! child finds its master, a source keeps its mapping (of several, the one that was imported last). What changes meanwhile is told by [`Engine::poll_dirty_slot`]. Bytes are not believed: what
//! cannot be a connection is refused with a reason, and nothing of it is entered. Announced connections that have not come yet are not described.
mod codec;
mod dirty;
mod import;

pub use codec::SnapshotDecodeError;
pub(crate) use dirty::DirtySlots;
pub use import::{ImportError, WindowTrust};

use crate::helper::HelperState;
use crate::nat::SeqAdj;
use crate::protocol::{IgnoredSyn, Tcp, sctp::Sctp, stateless::Stateless};
use crate::table::TupleRef;
use crate::table::record::{HotRecord, RecordKind};
use crate::time::{Ticks, ticks_to_millis};
use crate::{Accounting, ConnId, Direction, Engine, Helper, Instant, Status, SynproxyState, Sysctl, Tuple, Zone};
use alloc::vec::Vec;
use keepstate_types::ipproto;

/// One connection, apart from any engine. Times are relative to the moment of its export.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnSnapshot {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The answer's tuple; where it is not the original turned round, the connection is translated.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// Status bits.
    pub status: Status,
    /// Milliseconds until it expires.
    pub remaining_ms: u64,
    /// The mark.
    pub mark: u32,
    /// Labels, bit 0 first; `None` if none were ever set.
    pub labels: Option<[u8; 16]>,
    /// Packets and bytes, original then reply, if they are counted.
    pub accounting: Option<[Accounting; 2]>,
    /// When it was confirmed, if that is kept.
    pub start: Option<Instant>,
    /// The original tuple of its master, if it was expected.
    pub master: Option<Tuple>,
    /// Timeouts of its own, in seconds: `ct timeout`.
    pub timeouts: Vec<(Sysctl, u32)>,
    pub(crate) protocol: ProtocolState,
    pub(crate) helper_state: Option<HelperState>,
    pub(crate) ignored_syn: Option<IgnoredSyn>,
    /// How much longer its streams have become.
    pub(crate) seqadj: Option<SeqAdj>,
    /// What its client was promised in its server's name.
    pub(crate) synproxy: Option<SynproxyState>,
    /// Segments each way until its TCP window is strict again.
    pub(crate) lenient_segments_left: Option<[u8; 2]>,
}

/// How far its protocol has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ProtocolState {
    Tcp(Tcp),
    Sctp(Sctp),
    /// UDP: milliseconds until it may be a stream; 0 if it may be one already.
    Udp {
        stream_in_ms: u64,
    },
    /// GRE: the timeouts in force when it began, in milliseconds.
    Gre {
        timeout_ms: u64,
        stream_timeout_ms: u64,
    },
    /// Tuple and timeout are all there is.
    Stateless,
}

impl ConnSnapshot {
    /// The helper attached to it.
    pub fn helper(&self) -> Option<Helper> {
        self.helper_state.map(|helper_state| helper_state.helper())
    }
}

impl Engine {
    /// Describes one connection, if it still lives.
    ///
    /// ```
    /// use keepstate_engine::{ConnSnapshot, Engine, Instant, Sysctls, Secret, WindowTrust, Zone};
    /// use keepstate_wire::Packet;
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]), Instant(0));
    /// let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), Instant(0));
    /// let mut bytes = Vec::new();
    /// engine.export(outcome.connection.unwrap(), Instant(0)).unwrap().encode(&mut bytes);
    /// // Ten seconds later, elsewhere:
    /// let (gap, now) = (std::time::Duration::from_secs(10), Instant::from_secs(10));
    /// let mut heir = Engine::new(Sysctls::default(), Secret([8; 16]), now);
    /// let described = ConnSnapshot::decode(&bytes).unwrap();
    /// let handle = heir.import(&described, gap, WindowTrust::Exact, now).unwrap();
    /// assert_eq!(heir.entry(handle, now).unwrap().timeout, 20);
    /// ```
    pub fn export(&self, conn_id: ConnId, now: Instant) -> Option<ConnSnapshot> {
        let lives = self.entry(conn_id, now).is_some();
        if lives { self.export_slot(conn_id.slot, now) } else { None }
    }

    /// Describes the connection that stands in a place, if one does that has not expired. Places are numbered from 0 to [`Engine::slot_count`].
    pub fn export_slot(&self, place: u32, now: Instant) -> Option<ConnSnapshot> {
        let records = &self.table.records;
        let hot = records.hot(place).filter(|hot| hot.is_confirmed() && !hot.is_expired(now.tick()))?;
        let extra = if hot.kind.has(RecordKind::HAS_EXTENSION) { self.extensions.find(place) } else { None };
        let counts = if hot.kind.has(RecordKind::COUNTED) { records.counts(place) } else { None };
        let start = records.start(place);
        Some(ConnSnapshot {
            original: records.key(TupleRef::new(place, Direction::Original))?.tuple(),
            reply: records.key(TupleRef::new(place, Direction::Reply))?.tuple(),
            zone: records.zone(place),
            status: hot.status(),
            remaining_ms: ticks_to_millis(hot.deadline.wrapping_sub(now.tick())),
            mark: records.cold(place)?.mark,
            labels: extra.and_then(|extra| extra.labels),
            accounting: counts.map(|counts| [0, 2].map(|at| Accounting { packets: counts[at], bytes: counts[at + 1] })),
            start: (start != 0).then_some(Instant(start)),
            master: extra.and_then(|extra| extra.master).map(|master| master.tuple),
            timeouts: self.timeout_settings(extra.and_then(|extra| extra.timeout_policy)),
            protocol: ProtocolState::of(hot, now.tick()),
            helper_state: extra.and_then(|extra| extra.helper_state),
            ignored_syn: extra.and_then(|extra| extra.ignored_syn),
            seqadj: extra.and_then(|extra| extra.seqadj),
            synproxy: extra.and_then(|extra| extra.synproxy),
            lenient_segments_left: extra.and_then(|extra| extra.lenient_segments_left),
        })
    }

    /// How many places there are, in use or not: as many as there ever were connections at a time, and some more.
    pub fn slot_count(&self) -> u32 {
        u32::try_from(self.table.records.slot_count()).unwrap_or(u32::MAX)
    }

    /// Every connection that has not expired at `now`, described.
    pub fn export_all(&self, now: Instant) -> impl Iterator<Item = ConnSnapshot> + '_ {
        (0..self.slot_count()).filter_map(move |place| self.export_slot(place, now))
    }

    /// Begins, or ceases, to note in which places connections begin, change or end.
    pub fn track_dirty(&mut self, on: bool) {
        self.dirty.set_enabled(on);
    }

    /// A place whose connection has begun, ended or changed (its state, its status, its mark; not a count, a timeout or a window alone) since it was
    /// last given out.
    pub fn poll_dirty_slot(&mut self) -> Option<u32> {
        self.dirty.pop()
    }
}

impl ProtocolState {
    fn of(hot: &HotRecord, tick: u32) -> ProtocolState {
        match hot.protocol() {
            ipproto::TCP => ProtocolState::Tcp(Tcp::load(hot).without_record()),
            ipproto::SCTP => ProtocolState::Sctp(Sctp::load(hot)),
            _ => match Stateless::load(hot) {
                Stateless::Udp { stream_after } => {
                    // It may be one in the tick after that one.
                    let ahead = (stream_after.wrapping_sub(tick) as i32).saturating_add(1);
                    ProtocolState::Udp { stream_in_ms: u32::try_from(ahead).map_or(0, ticks_to_millis) }
                }
                Stateless::Gre { timeout, stream } => ProtocolState::Gre {
                    timeout_ms: ticks_to_millis(timeout),
                    stream_timeout_ms: ticks_to_millis(stream),
                },
                Stateless::UdpLite | Stateless::Icmp | Stateless::Icmpv6 | Stateless::Other(_) => {
                    ProtocolState::Stateless
                }
            },
        }
    }
}
