//! Flow offload: established connections that a faster data path (XDP, hardware) forwards for a while, as Linux's flowtable does.
//!
//! ```text
//! offload         ─▶ OffloadedFlow: tuples and rewrites of both directions; the connection has status OFFLOAD
//! offload_opening ─▶ the same of a TCP connection that has just begun: the data path forwards the rest of its handshake too
//! note_segment       a segment that begins or closes a connection, which the data path has forwarded: tracked as if it had come here
//! update_stats       packet counts and last-seen times of many flows; they refresh the timeouts
//! revoke          ─▶ back in software. Also automatic: when a segment of the flow with SYN, FIN or RST arrives here, when a noted segment was the last one, or when
//!                    the connection ends. Then poll_revoked returns its id
//! ```
//! The data path translates by [`NatRewrite`](crate::NatRewrite) alone and takes no decision. A connection whose packets need more (a helper, adjusted
//! sequence numbers, a TCP state other than ESTABLISHED) must never be offloaded. TCP windows are forgotten while segments pass elsewhere: a flow that
//! comes back is picked up mid-stream, leniently (Linux: for ever), and strictly again after sixteen segments each way.
pub(crate) mod state;

use crate::ct_timeout::timeouts_of;
use crate::nat::nat_rewrite_for;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Tcp, TrackCtx, TrackResult, seconds_to_ticks};
use crate::table::TupleRef;
use crate::table::record::{HotRecord, RecordKind};
use crate::time::Ticks;
use crate::{
    ConnId, Direction, Engine, EventBits, Instant, Manip, NatRewrite, Status, Sysctl, Sysctls, TcpState, Tuple, Zone,
};
use alloc::vec::Vec;
use keepstate_types::ipproto;
use keepstate_wire::Packet;

/// An offloaded flow, as a data path needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadedFlow {
    /// Its connection.
    pub conn_id: ConnId,
    /// The tuples of its packets as they are received: original, reply.
    pub tuples: [Tuple; 2],
    /// The rewrites of each direction, original first: of the destination, then of the source.
    pub rewrites: [[NatRewrite; 2]; 2],
    /// The zone of its tuples.
    pub zone: Zone,
}

/// Why a connection cannot be offloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffloadError {
    /// It is not in the table.
    NotFound,
    /// It is already offloaded.
    AlreadyOffloaded,
    /// It is not yet assured (of UDP: not yet answered), or it is closing.
    NotEstablished,
    /// Its packets need the slow path: it has a helper, adjusted sequence numbers, a fixed timeout, or one so short that it could end between two reports.
    NeedsSlowPath,
    /// Its protocol has no ports to look a flow up by, or too many states: only TCP, UDP and UDP-Lite are supported.
    UnsupportedProtocol,
}

/// Statistics of one direction of a flow since the data path's last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// The flow's connection.
    pub conn_id: ConnId,
    /// The direction.
    pub direction: Direction,
    /// Packets since the last report.
    pub packets: u64,
    /// Bytes since the last report, from the IP header on.
    pub bytes: u64,
    /// When the last packet was received.
    pub last_seen: Instant,
}

/// Where in its life a connection is offloaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OffloadPhase {
    Opening,
    Established,
}

/// Of a packet that is tracked: it has come here; the data path has forwarded it.
pub(crate) const ARRIVED: bool = false;
pub(crate) const NOTED: bool = true;

/// The status as others see it: who has not finished its handshake, or is closing, is not called offloaded.
pub(crate) fn visible_status(hot: &HotRecord) -> Status {
    let status = hot.status();
    let hides = status.contains(Status::OFFLOAD)
        && hot.protocol() == ipproto::TCP
        && Tcp::load(hot).state() != TcpState::Established;
    if hides { status - Status::OFFLOAD } else { status }
}

/// Does an offload protect a connection from being dropped early? Not before it is assured, nor while its handshake goes on.
pub(crate) fn is_protected_by_offload(hot: &HotRecord) -> bool {
    visible_status(hot).contains(Status::OFFLOAD.union(Status::ASSURED))
}

/// Has a datagram of it been answered, so that its packets are established ones? It is assured later, when it has lasted.
fn is_answered_datagram(hot: &HotRecord) -> bool {
    matches!(hot.protocol(), ipproto::UDP | ipproto::UDPLITE)
        && hot.status().contains(Status::SEEN_REPLY)
        && !hot.status().contains(Status::NAT_CLASH)
}

/// The least timeout, in seconds, that a data path's reports refresh in time.
const MIN_TIMEOUT: u32 = 4;

/// The timeouts of connections of a protocol while they are offloaded.
fn lasting_timeouts(protocol: u8) -> &'static [Sysctl] {
    match protocol {
        ipproto::TCP => &[Sysctl::TcpTimeoutEstablished],
        _ => &[Sysctl::UdpTimeout, Sysctl::UdpTimeoutStream],
    }
}

/// Does a connection last from one report to the next?
fn outlasts_reports(hot: &HotRecord, timeouts: &Sysctls) -> bool {
    lasting_timeouts(hot.protocol()).iter().all(|timeout| timeouts[*timeout] >= MIN_TIMEOUT)
}

impl Engine {
    /// Offloads a connection: sets OFFLOAD and returns the flow for the data path.
    ///
    /// # Errors
    /// It is not in the table, already offloaded, not established, or needs the slow path. Then nothing has changed.
    pub fn offload(&mut self, conn_id: ConnId, now: Instant) -> Result<OffloadedFlow, OffloadError> {
        self.offload_in(OffloadPhase::Established, conn_id, now)
    }

    /// Offloads a TCP connection of which only the first SYN has come. The data path forwards the rest of its handshake, if it is one without doubt, and tells each segment of it by
    /// [`Engine::note_segment`]; everything else comes here. Until the connection is established, no one sees OFFLOAD.
    ///
    /// # Errors
    /// As [`Engine::offload`]; [`OffloadError::NotEstablished`] also if it is beyond its first SYN.
    pub fn offload_opening(&mut self, conn_id: ConnId, now: Instant) -> Result<OffloadedFlow, OffloadError> {
        self.offload_in(OffloadPhase::Opening, conn_id, now)
    }

    fn offload_in(
        &mut self,
        phase: OffloadPhase,
        conn_id: ConnId,
        now: Instant,
    ) -> Result<OffloadedFlow, OffloadError> {
        let named = self.names(conn_id);
        let hot = self.table.records.hot_mut(conn_id.slot).ok_or(OffloadError::NotFound)?;
        if !named || hot.is_expired(now.tick()) {
            return Err(OffloadError::NotFound);
        }
        let status = hot.status();
        if status.contains(Status::OFFLOAD) {
            return Err(OffloadError::AlreadyOffloaded);
        }
        let slow_path_status = Status::SEQ_ADJUST | Status::FIXED_TIMEOUT | Status::HELPER;
        let has_helper = hot.kind.has(RecordKind::HAS_EXTENSION)
            && self.extensions.find(conn_id.slot).is_some_and(|extension| extension.helper_state.is_some());
        let timeouts = timeouts_of(conn_id.slot, hot, &self.extensions, &self.timeout_policies, &self.sysctls);
        if status.intersects(slow_path_status) || has_helper || !outlasts_reports(hot, timeouts) {
            return Err(OffloadError::NeedsSlowPath);
        }
        let opens = phase == OffloadPhase::Opening;
        let is_lasting = status.contains(Status::ASSURED) || is_answered_datagram(hot);
        if is_lasting == opens {
            return Err(OffloadError::NotEstablished);
        }
        match hot.protocol() {
            ipproto::TCP if opens && Tcp::from_record_mut(hot).state() == TcpState::SynSent => (),
            _ if opens => return Err(OffloadError::NotEstablished),
            ipproto::UDP | ipproto::UDPLITE => (),
            ipproto::TCP if Tcp::from_record_mut(hot).state() == TcpState::Established => {
                Tcp::from_record_mut(hot).forget_windows();
                if hot.kind.has(RecordKind::HAS_EXTENSION) && self.extensions.end_leniency(conn_id.slot) {
                    self.extensions.make_strict(conn_id.slot, hot);
                }
            }
            ipproto::TCP => return Err(OffloadError::NotEstablished),
            _ => return Err(OffloadError::UnsupportedProtocol),
        }
        hot.add_status(Status::OFFLOAD);
        let keys = [Direction::Original, Direction::Reply]
            .map(|direction| self.table.records.key(TupleRef::new(conn_id.slot, direction)));
        let [Some(original), Some(reply)] = keys else { return Err(OffloadError::NotFound) };
        self.offload.count += 1;
        let tuples = [original.tuple(), reply.tuple()];
        let rewrites_of = |direction: Direction, opposite| {
            [Manip::Destination, Manip::Source].map(|manip| nat_rewrite_for(status, opposite, direction, manip))
        };
        let rewrites = [rewrites_of(Direction::Original, &tuples[1]), rewrites_of(Direction::Reply, &tuples[0])];
        Ok(OffloadedFlow { conn_id, tuples, rewrites, zone: self.table.records.zone(conn_id.slot) })
    }

    /// Adds the data path's statistics to the connections and refreshes the timeouts of those that are offloaded; what a data path reports of a connection that came back since is counted too.
    /// Returns how many of the given items belong to connections that are not in the table (any more).
    pub fn update_stats<'a>(&mut self, stats: impl IntoIterator<Item = &'a FlowStats, IntoIter: Clone>) -> usize {
        let stats = stats.into_iter();
        // Their records are fetched together.
        stats.clone().for_each(|stats| self.table.records.prefetch_for_stats(stats.conn_id.slot));
        stats.filter(|stats| !self.update_flow_stats(stats)).count()
    }

    fn update_flow_stats(&mut self, stats: &FlowStats) -> bool {
        let (slot, named) = (stats.conn_id.slot, self.names(stats.conn_id));
        let Some(hot) = self.table.records.hot_mut(slot) else { return false };
        if !named {
            return false;
        }
        let sysctls = timeouts_of(slot, hot, &self.extensions, &self.timeout_policies, &self.sysctls);
        // As when the packet was received, not when it is reported.
        let tick = stats.last_seen.tick();
        let context = TrackCtx {
            sysctls,
            status: hot.status(),
            now: tick,
            remaining_ticks: hot.deadline.wrapping_sub(tick),
            secret: self.secret,
            ack_offset: 0,
        };
        let (timeout, assured) = match hot.protocol() {
            // In its other states every segment is noted by itself.
            ipproto::TCP if Tcp::from_record_mut(hot).state() != TcpState::Established => (0, false),
            ipproto::TCP => (seconds_to_ticks(sysctls[Sysctl::TcpTimeoutEstablished]), false),
            _ => match Stateless::load(hot).track_packet(&context) {
                TrackResult::Pass { timeout, assured, .. } => (timeout, assured),
                _ => (0, false),
            },
        };
        if assured {
            hot.add_status(Status::ASSURED);
        }
        // A deadline never moves back.
        let deadline = tick.wrapping_add(timeout);
        if hot.status().contains(Status::OFFLOAD) && deadline.wrapping_sub(hot.deadline) as i32 > 0 {
            hot.deadline = deadline;
        }
        let counted = hot.kind.has(RecordKind::COUNTED);
        if let (true, Some(counts)) = (counted, self.table.records.counts_mut(slot)) {
            let at = stats.direction as usize * 2;
            counts[at] += stats.packets;
            counts[at + 1] += stats.bytes;
        }
        if assured {
            self.dirty.mark_dirty(slot);
            self.note_change(slot, EventBits::ASSURED);
            self.deliver_change(slot, stats.last_seen);
        }
        true
    }

    /// Tracks a segment of a TCP connection that the data path has forwarded: state, timeout, status and events are as if it had come here. It is not counted, since the data path's statistics do that.
    /// False if it is not in the table.
    pub fn note_segment(
        &mut self,
        packet: &Packet<'_>,
        (conn_id, direction): (ConnId, Direction),
        now: Instant,
    ) -> bool {
        let slot = conn_id.slot;
        if !self.names(conn_id) || packet.protocol() != ipproto::TCP {
            return false;
        }
        let is_known = self.track_in_slot::<NOTED>(packet, TupleRef::new(slot, direction), now).is_some();
        // It has passed: no rule has dropped it.
        self.deliver_change(slot, now);
        is_known
    }

    /// Ends the offload of a connection; [`Engine::poll_revoked`] will return its id. False if it was not offloaded.
    pub fn revoke(&mut self, conn_id: ConnId) -> bool {
        let Some(hot) = self.table.records.hot(conn_id.slot) else { return false };
        let is_offloaded = self.names(conn_id) && hot.status().contains(Status::OFFLOAD);
        if is_offloaded {
            self.unoffload(conn_id.slot);
        }
        is_offloaded
    }

    /// A timeout was set: connections that no longer last from one report to the next come back.
    pub(crate) fn revoke_short_lived(&mut self, changed: Sysctl) {
        let is_lasting = [ipproto::TCP, ipproto::UDP].into_iter().any(|of| lasting_timeouts(of).contains(&changed));
        if is_lasting && self.sysctls[changed] < MIN_TIMEOUT {
            self.revoke_all();
        }
    }

    /// Ends the offload of every connection, for instance because the ruleset has changed.
    pub fn revoke_all(&mut self) {
        if self.offload.count == 0 {
            return;
        }
        let slots: Vec<u32> = self.table.used_slots().collect();
        for slot in slots {
            if self.table.records.hot(slot).is_some_and(|hot| hot.status().contains(Status::OFFLOAD)) {
                self.unoffload(slot);
            }
        }
    }

    /// The id of a flow that is no longer offloaded: the data path must delete it. `None` if there is no further one.
    pub fn poll_revoked(&mut self) -> Option<ConnId> {
        self.offload.revoked.pop()
    }

    /// The number of offloaded flows.
    pub fn offloaded_count(&self) -> usize {
        self.offload.count
    }

    /// Clears OFFLOAD and queues the id for [`Engine::poll_revoked`].
    #[cold]
    pub(crate) fn unoffload(&mut self, slot: u32) {
        let conn_id = self.conn_id(slot);
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.remove_status(Status::OFFLOAD);
            if hot.protocol() == ipproto::TCP {
                // Segments seen meanwhile say nothing of those that were not.
                Tcp::from_record_mut(hot).forget_moved_windows();
            }
        }
        self.offload.count = self.offload.count.saturating_sub(1);
        self.offload.revoked.push(conn_id);
    }
}

#[cfg(test)]
mod tests;
