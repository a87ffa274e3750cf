//! Export and import: moves connections from one engine to another, for restart, upgrade and failover.
//!
//! A [`ConnSnapshot`] is made from an existing connection ([`Engine::export`]), can be encoded to bytes with a version ([`ConnSnapshot::encode`]), and
//! becomes a connection again in an engine that has neither of its tuples ([`Engine::import`]). Its timeouts continue, a child finds its master, a
//! source keeps its NAT mapping (of several, the one imported last). [`Engine::poll_dirty_slot`] reports which connections have changed since.
//! Snapshots are untrusted: an impossible connection is rejected with an error and must never be inserted in part. Expectations are not exported.
mod adopt;
mod codec;
mod dirty;
mod import;

pub use adopt::SnapshotAge;
pub use codec::SnapshotDecodeError;
pub use dirty::DirtySlots;
pub use import::{ImportError, WindowTrust};

use crate::helper::HelperState;
use crate::nat::SeqAdj;
use crate::protocol::{IgnoredSyn, Tcp, sctp::Sctp, stateless::Stateless};
use crate::table::TupleRef;
use crate::table::record::{HotRecord, RecordKind};
use crate::time::{Ticks, ticks_to_millis};
use crate::{
    Accounting, ConnId, Direction, Engine, Helper, Instant, Status, SynproxyState, Sysctl, Tuple, UnixTime, Zone,
};
use alloc::vec::Vec;
use keepstate_types::ipproto;

/// A connection, independent of any engine. Times are relative to the export.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnSnapshot {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The reply tuple; if it is not the inverse of the original, the connection is translated.
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
    /// When it was confirmed, by the wall clock, if that was recorded.
    pub start: Option<UnixTime>,
    /// The original tuple of its master, if it was expected.
    pub master: Option<Tuple>,
    /// Its source is the address that an interface had when it began.
    pub masqueraded: bool,
    /// Its own timeouts (`ct timeout`), in seconds.
    pub timeouts: Vec<(Sysctl, u32)>,
    pub(crate) protocol: ProtocolState,
    pub(crate) helper_state: Option<HelperState>,
    pub(crate) ignored_syn: Option<IgnoredSyn>,
    /// Its sequence number offsets.
    pub(crate) seqadj: Option<SeqAdj>,
    /// Its synproxy state.
    pub(crate) synproxy: Option<SynproxyState>,
    /// Segments per direction until its TCP windows are strict again.
    pub(crate) lenient_segments_left: Option<[u8; 2]>,
}

/// The protocol tracker's state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ProtocolState {
    Tcp(Tcp),
    Sctp(Sctp),
    /// UDP: milliseconds until it can become a stream; 0 if it already can.
    Udp {
        stream_in_ms: u64,
    },
    /// GRE: the timeouts when it was created, in milliseconds.
    Gre {
        timeout_ms: u64,
        stream_timeout_ms: u64,
    },
    /// Other protocols have no state.
    Stateless,
}

impl ConnSnapshot {
    /// The helper attached to it.
    pub fn helper(&self) -> Option<Helper> {
        self.helper_state.map(|helper_state| helper_state.helper())
    }
}

impl Engine {
    /// Exports one connection; `None` if it is not in the table.
    ///
    /// ```
    /// use keepstate_engine::{ConnSnapshot, Engine, Instant, Sysctls, Secret, WindowTrust, Zone};
    /// use keepstate_wire::Packet;
    /// let ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xd3, 10, 1, 0, 2, 10, 2, 0, 9, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    /// let outcome = engine.handle(&Packet::parse(&ping).unwrap(), Zone::default(), Instant(0));
    /// let mut bytes = Vec::new();
    /// engine.export(outcome.connection.unwrap(), Instant(0)).unwrap().encode(&mut bytes);
    /// // Ten seconds later, in another engine:
    /// let (gap, now) = (std::time::Duration::from_secs(10), Instant::from_secs(10));
    /// let mut target = Engine::new(Sysctls::default(), Secret([8; 16]));
    /// let snapshot = ConnSnapshot::decode(&bytes).unwrap();
    /// let conn_id = target.import(&snapshot, gap, WindowTrust::Exact, now).unwrap();
    /// assert_eq!(target.entry(conn_id, now).unwrap().timeout, 20);
    /// ```
    pub fn export(&self, conn_id: ConnId, now: Instant) -> Option<ConnSnapshot> {
        let exists = self.entry(conn_id, now).is_some();
        if exists { self.export_slot(conn_id.slot, now) } else { None }
    }

    /// The tuples of the connection in a slot, original and reply; `None` as for [`Engine::export_slot`].
    pub fn slot_tuples(&self, slot: u32, now: Instant) -> Option<(Tuple, Tuple)> {
        let records = &self.table.records;
        records.hot(slot).filter(|hot| hot.is_confirmed() && !hot.is_expired(now.tick()))?;
        let tuple = |direction| records.key(TupleRef::new(slot, direction)).map(|key| key.tuple());
        Some((tuple(Direction::Original)?, tuple(Direction::Reply)?))
    }

    /// Exports the connection in a slot; `None` if the slot is free or the connection has expired. Slots are numbered from 0 up to
    /// [`Engine::slot_count`].
    pub fn export_slot(&self, slot: u32, now: Instant) -> Option<ConnSnapshot> {
        let records = &self.table.records;
        let hot = records.hot(slot).filter(|hot| hot.is_confirmed() && !hot.is_expired(now.tick()))?;
        let extension = if hot.kind.has(RecordKind::HAS_EXTENSION) { self.extensions.find(slot) } else { None };
        let counts = if hot.kind.has(RecordKind::COUNTED) { records.counts(slot) } else { None };
        let start = records.start(slot);
        Some(ConnSnapshot {
            original: records.key(TupleRef::new(slot, Direction::Original))?.tuple(),
            reply: records.key(TupleRef::new(slot, Direction::Reply))?.tuple(),
            zone: records.zone(slot),
            status: hot.status(),
            remaining_ms: ticks_to_millis(self.remaining_ticks(slot, hot.deadline, now.tick())),
            mark: records.mark(slot),
            labels: extension.and_then(|extension| extension.labels),
            accounting: counts.map(|counts| [0, 2].map(|at| Accounting { packets: counts[at], bytes: counts[at + 1] })),
            start: (start != 0).then_some(UnixTime(start)),
            master: extension.and_then(|extension| extension.master).map(|master| master.tuple),
            masqueraded: hot.is_masqueraded(),
            timeouts: self.timeout_settings(extension.and_then(|extension| extension.timeout_policy)),
            protocol: ProtocolState::of(hot, now.tick()),
            helper_state: extension.and_then(|extension| extension.helper_state),
            ignored_syn: extension.and_then(|extension| extension.ignored_syn),
            seqadj: extension.and_then(|extension| extension.seqadj),
            synproxy: extension.and_then(|extension| extension.synproxy),
            lenient_segments_left: extension.and_then(|extension| extension.lenient_segments_left),
        })
    }

    /// The number of slots, in use or not: at least the largest number of connections there ever was.
    pub fn slot_count(&self) -> u32 {
        u32::try_from(self.table.records.slot_count()).unwrap_or(u32::MAX)
    }

    /// Exports every connection that has not expired at `now`.
    pub fn export_all(&self, now: Instant) -> impl Iterator<Item = ConnSnapshot> + '_ {
        (0..self.slot_count()).filter_map(move |slot| self.export_slot(slot, now))
    }

    /// Enables or disables recording of dirty slots, for [`Engine::poll_dirty_slot`]. Both clear the queue.
    pub fn track_dirty(&mut self, on: bool) {
        self.dirty.set_enabled(on);
    }

    /// Takes a slot whose connection was created, changed (state, status, mark; not counters, timeout or windows alone) or removed since the
    /// slot was last returned here. `None` if there is none.
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
                    // It can become a stream one tick after `stream_after`.
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
