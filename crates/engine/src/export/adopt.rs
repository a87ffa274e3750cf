//! Adopts a connection that a data path has forwarded while no engine ran: its snapshot, and when its last packet came.
use super::{ConnSnapshot, ImportError, ProtocolState, WindowTrust};
use crate::table::TupleRef;
use crate::table::record::RecordKind;
use crate::time::{Ticks, millis_to_ticks};
use crate::{ConnId, Direction, Engine, Instant, Status, Sysctl, Sysctls};
use core::time::Duration;

/// How old a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAge {
    /// Since it was taken.
    pub since_taken: Duration,
    /// Since the connection's last packet was forwarded.
    pub since_seen: Duration,
}

impl Engine {
    /// As [`Engine::import`], of a connection that was established and went on meanwhile. If this very connection is there already, it gets what the snapshot knows better: a later
    /// deadline and higher counts.
    ///
    /// # Errors
    /// As [`Engine::import`].
    pub fn adopt(&mut self, snapshot: &ConnSnapshot, age: SnapshotAge, now: Instant) -> Result<ConnId, ImportError> {
        let seen = snapshot.as_last_seen(age, &self.sysctls);
        let (snapshot, gap) = (seen.as_ref().unwrap_or(snapshot), age.since_seen);
        let found = self.find_by_original(&snapshot.original, snapshot.zone);
        let same = |slot: &u32| {
            let key = self.table.records.key(TupleRef::new(*slot, Direction::Reply));
            let is_alive = self.table.records.hot(*slot).is_some_and(|hot| !hot.is_expired(now.tick()));
            is_alive && key.is_some_and(|key| key.tuple() == snapshot.reply)
        };
        let Some(slot) = found.filter(same) else {
            return self.import(snapshot, gap, WindowTrust::Lenient, now);
        };
        let gap = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let remaining = millis_to_ticks(snapshot.remaining_ms.saturating_sub(gap));
        if let Some(hot) = self.table.records.hot_mut(slot) {
            let deadline = now.tick().wrapping_add(remaining);
            if snapshot.status.contains(Status::ASSURED) {
                hot.add_status(Status::ASSURED);
            }
            if deadline.wrapping_sub(hot.deadline) as i32 > 0 && !hot.status().contains(Status::FIXED_TIMEOUT) {
                hot.deadline = deadline;
            }
            let counts = if hot.kind.has(RecordKind::COUNTED) { self.table.records.counts_mut(slot) } else { None };
            if let (Some(counts), Some([original, reply])) = (counts, snapshot.accounting) {
                let known = [original.packets, original.bytes, reply.packets, reply.bytes];
                counts.iter_mut().zip(known).for_each(|(count, known)| *count = known.max(*count));
            }
        }
        Ok(self.conn_id(slot))
    }
}

impl ConnSnapshot {
    /// What a packet that came as long after the snapshot has made of a UDP connection; `None` if there was none, or it has changed nothing.
    fn as_last_seen(&self, age: SnapshotAge, sysctls: &Sysctls) -> Option<ConnSnapshot> {
        let ProtocolState::Udp { stream_in_ms } = self.protocol else { return None };
        let went_on = age.since_taken.checked_sub(age.since_seen)?;
        let went_on = u64::try_from(went_on.as_millis()).unwrap_or(u64::MAX);
        let stream_in_ms = stream_in_ms.saturating_sub(went_on);
        let is_answered = self.status.contains(Status::SEEN_REPLY) && !self.status.contains(Status::NAT_CLASH);
        let mut seen = ConnSnapshot { protocol: ProtocolState::Udp { stream_in_ms }, ..self.clone() };
        if went_on > 0 && stream_in_ms == 0 && is_answered && !self.status.contains(Status::ASSURED) {
            let own = self.timeouts.iter().find(|(sysctl, _)| *sysctl == Sysctl::UdpTimeoutStream);
            let timeout = own.map_or(sysctls[Sysctl::UdpTimeoutStream], |(_, timeout)| *timeout);
            seen.status |= Status::ASSURED;
            seen.remaining_ms = u64::from(timeout) * 1000;
        }
        Some(seen)
    }
}
