//! Imports a snapshot: validates it and inserts the connection into the table, or returns an error.
//!
//! A snapshot is untrusted input. Import must never insert a connection that packets could not have created, and after an error nothing has changed.
use super::{ConnSnapshot, ProtocolState};
use crate::extension::Extension;
use crate::protocol::{Tracker, stateless::Stateless};
use crate::table::key::TupleKey;
use crate::table::record::{HotRecord, RecordKind};
use crate::table::{NewRecord, TupleRef};
use crate::time::{Ticks, millis_to_ticks};
use crate::{ConnId, Direction, Engine, EventKind, Instant, Status, Sysctl, Tuple};
use core::time::Duration;
use keepstate_types::ipproto;

/// Whether the TCP windows of a snapshot are still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowTrust {
    /// No packet has passed since the export: the windows are exact.
    Exact,
    /// Packets may have passed unseen, or the snapshot is old. As for a connection picked up mid-stream, windows are learned from the next segments, and
    /// until then no segment is invalid because of its sequence numbers. After a few segments of each end, windows are strict again.
    Lenient,
}

/// Why a snapshot was not imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It has expired since the export.
    #[error("it has expired")]
    Expired,
    /// One of its tuples belongs to another connection.
    #[error("another connection with one of its tuples exists")]
    Clash,
    /// The table is full: `nf_conntrack_max`.
    #[error("the table is full (nf_conntrack_max)")]
    TableFull,
    /// Out of memory.
    #[error("out of memory")]
    NoMemory,
    /// The snapshot is inconsistent: there can be no such connection.
    #[error("inconsistent: {0}")]
    Invalid(&'static str),
}

/// Milliseconds; longer than any timeout.
const MAX_REMAINING_MS: u64 = (1 << 31) * 4;

impl Engine {
    /// Inserts the connection of a snapshot. `gap` is the time since its export. Import a master before its children, otherwise they have no master.
    ///
    /// # Errors
    /// It is invalid, has expired, clashes with another connection, or the table is full. Then nothing has changed.
    pub fn import(
        &mut self,
        snapshot: &ConnSnapshot,
        gap: Duration,
        trust: WindowTrust,
        now: Instant,
    ) -> Result<ConnId, ImportError> {
        validate(snapshot)?;
        let gap = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let remaining = millis_to_ticks(snapshot.remaining_ms.saturating_sub(gap));
        if remaining == 0 {
            return Err(ImportError::Expired);
        }
        let (original, reply) = (TupleKey::from(&snapshot.original), TupleKey::from(&snapshot.reply));
        if !self.shard.owns(&original) || !self.shard.owns(&reply) {
            return Err(ImportError::Invalid("a tuple of another shard"));
        }
        if !self.has_room(&original) {
            return Err(ImportError::TableFull);
        }
        // One that has expired is gone, even if nobody has removed it yet: on a standby nothing does.
        for (key, direction) in [(&original, Direction::Original), (&reply, Direction::Reply)] {
            let owner = self.table.tuple_owner(key, snapshot.zone, direction).map(|owner| owner.slot());
            if let Some(slot) = owner
                && self.table.records.hot(slot).is_some_and(|hot| hot.is_expired(now.tick()))
            {
                self.destroy(slot, now);
            }
        }
        let owner = |key, direction| self.table.tuple_owner(key, snapshot.zone, direction);
        if owner(&original, Direction::Original).is_some() || owner(&reply, Direction::Reply).is_some() {
            return Err(ImportError::Clash);
        }
        let timeouts =
            if snapshot.timeouts.is_empty() { None } else { Some(self.add_timeout_policy(&snapshot.timeouts)) };
        let timeouts =
            timeouts.transpose().map_err(|_| ImportError::Invalid("a timeout of its own that cannot be set"))?;
        let (tracker, lenient_segments_left) = snapshot.restore_tracker(gap, trust, now);
        let extension = Extension {
            labels: snapshot.labels,
            ignored_syn: snapshot.ignored_syn,
            helper_state: snapshot.helper_state,
            master: snapshot.master.map(|tuple| self.master_by_tuple(&tuple, snapshot.zone)),
            seqadj: snapshot.seqadj,
            synproxy: snapshot.synproxy,
            lenient_segments_left,
            timeout_policy: timeouts,
            ..Extension::default()
        };
        let status = snapshot.status - (Status::OFFLOAD | Status::HW_OFFLOAD);
        let mut hot = HotRecord { deadline: now.tick().wrapping_add(remaining), ..HotRecord::default() };
        hot.set_status(status);
        hot.set_masqueraded(snapshot.masqueraded);
        tracker.store(&mut hot);
        let plain = original.invert() == Some(reply);
        let kind = if extension.is_empty() { 0 } else { RecordKind::HAS_EXTENSION }
            | if plain { RecordKind::UNTRANSLATED } else { 0 };
        let counts =
            snapshot.accounting.map(|[original, reply]| [original.packets, original.bytes, reply.packets, reply.bytes]);
        let record = NewRecord {
            original: &original,
            reply: &reply,
            zone: snapshot.zone,
            mark: snapshot.mark,
            hot,
            kind,
            counts,
            start: snapshot.start.map_or(0, |start| start.0),
            hashes: [0; 2],
        };
        if !self.shard.take_entry(self.sysctls[Sysctl::Max] as usize) {
            return Err(ImportError::TableFull);
        }
        let Some(slot) = self.table.insert(&record, now.tick()) else {
            self.shard.give_entry_back();
            return Err(ImportError::NoMemory);
        };
        self.admission_added(&original, false, now);
        self.synproxy_in_use |= extension.synproxy.is_some();
        if !extension.is_empty() {
            *self.extensions.find_or_insert(slot) = extension;
            extension.master.iter().for_each(|master| self.add_child(master));
        }
        self.nat.in_use |= !plain;
        self.restore_bysource(slot);
        self.restore_mapping(slot, now);
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::New) {
            self.emit_event(EventKind::New, slot, now);
        }
        Ok(self.conn_id(slot))
    }
}

impl ConnSnapshot {
    /// The tracker to continue with, and the number of lenient segments per direction.
    fn restore_tracker(&self, gap: u64, trust: WindowTrust, now: Instant) -> (Tracker, Option<[u8; 2]>) {
        let stateless = |stateless| (Tracker::Stateless(stateless), None);
        match self.protocol {
            ProtocolState::Tcp(mut tcp) => {
                let lenient_segments_left = match trust {
                    WindowTrust::Exact => self.lenient_segments_left,
                    WindowTrust::Lenient => tcp.resume(self.lenient_segments_left.is_some()),
                };
                (Tracker::Tcp(tcp), lenient_segments_left)
            }
            ProtocolState::Sctp(sctp) => (Tracker::Sctp(sctp), None),
            ProtocolState::Udp { stream_in_ms: stream_in } => {
                let ahead = millis_to_ticks(stream_in.saturating_sub(gap));
                stateless(Stateless::Udp { stream_after: now.tick().wrapping_add(ahead).wrapping_sub(1) })
            }
            ProtocolState::Gre { timeout_ms: timeout, stream_timeout_ms: stream } => {
                stateless(Stateless::Gre { timeout: millis_to_ticks(timeout), stream: millis_to_ticks(stream) })
            }
            ProtocolState::Stateless => stateless(match self.original.protocol {
                ipproto::UDPLITE => Stateless::UdpLite,
                ipproto::ICMP => Stateless::Icmp,
                ipproto::ICMPV6 => Stateless::Icmpv6,
                other => Stateless::Other(other),
            }),
        }
    }
}

/// Checks that such a connection is possible.
fn validate(snapshot: &ConnSnapshot) -> Result<(), ImportError> {
    let ConnSnapshot { original, reply, status, .. } = snapshot;
    let ends = [original.source, original.destination, reply.source, reply.destination];
    let translated = Status::SRC_NAT | Status::DST_NAT;
    let progress = match original.protocol {
        ipproto::TCP => matches!(snapshot.protocol, ProtocolState::Tcp(_)),
        ipproto::SCTP => matches!(snapshot.protocol, ProtocolState::Sctp(_)),
        ipproto::UDP => matches!(snapshot.protocol, ProtocolState::Udp { .. }),
        ipproto::GRE => matches!(snapshot.protocol, ProtocolState::Gre { .. }),
        _ => snapshot.protocol == ProtocolState::Stateless,
    };
    let checks = [
        (ends.iter().all(|end| end.is_ipv6() == original.is_ipv6()), "addresses of both families"),
        (original.protocol == reply.protocol, "its directions have different protocols"),
        (original.invert().is_some() && reply.invert().is_some(), "a tuple that has no answer"),
        (status.contains(Status::CONFIRMED), "it was never confirmed"),
        (!status.intersects(Status::DYING | Status::TEMPLATE), "it was dying, or a template"),
        (status.intersects(translated) || original.invert() == Some(*reply), "translated, and not marked so"),
        (nat_setup_done(*status), "translated without a decision"),
        (snapshot.remaining_ms <= MAX_REMAINING_MS, "a timeout longer than there are"),
        (progress, "the state of another protocol"),
        (snapshot.helper().is_none_or(|helper| helper.protocol() == original.protocol), "a helper of another protocol"),
        (
            snapshot.helper().is_some() == status.contains(Status::HELPER),
            "a helper without its mark, or a mark without its helper",
        ),
        (snapshot.master.is_none() || status.contains(Status::EXPECTED), "a master's that was not expected"),
        (
            snapshot.seqadj.is_some() == status.contains(Status::SEQ_ADJUST),
            "shifted numbers without their mark, or a mark without them",
        ),
        (snapshot.synproxy.is_none() || original.protocol == ipproto::TCP, "a handshake of a protocol that has none"),
        (
            snapshot.lenient_segments_left.is_none() || original.protocol == ipproto::TCP,
            "a window of a protocol that has none",
        ),
    ];
    checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(ImportError::Invalid(what)))
}

/// Is every translated side marked as decided (`*_NAT_DONE`)?
fn nat_setup_done(status: Status) -> bool {
    let source = !status.contains(Status::SRC_NAT) || status.contains(Status::SRC_NAT_DONE);
    source && (!status.contains(Status::DST_NAT) || status.contains(Status::DST_NAT_DONE))
}

impl Engine {
    /// The slot of the connection whose original tuple is `tuple`.
    pub(crate) fn find_by_original(&self, tuple: &Tuple, zone: crate::Zone) -> Option<u32> {
        let found = self.table.tuple_owner(&tuple.into(), zone, Direction::Original)?;
        let same = found == TupleRef::new(found.slot(), Direction::Original);
        if same { Some(found.slot()) } else { None }
    }
}
