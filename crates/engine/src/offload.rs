//! Flows that a faster way forwards for a while: handed out, counted in bulk, taken back.
//!
//! ```text
//! hand_out ─▶ Flow: tuples and edits of both directions; the connection is OFFLOAD, and not timed out as long as the way says that it lives
//!    take_in   counts and last-seen times come back, many at once
//! revoke    ─▶ back in software; also by itself, as soon as a packet of it arrives here (a FIN, a RST, a fragment), or when it ends: poll_revoked says so
//! ```
//! The way translates by [`NatRewrite`](crate::NatRewrite) alone and decides nothing. What a connection needs a second look at (a helper, adjusted sequence numbers, a state other than open) is not handed out.
//! Windows are forgotten at the handing out: who comes back is taken up in the middle, as Linux does.
pub(crate) mod state;

use crate::nat::nat_rewrite_for;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Tcp, TrackCtx, TrackResult, seconds_to_ticks};
use crate::table::TupleRef;
use crate::table::record::RecordKind;
use crate::time::Ticks;
use crate::{ConnId, Direction, Engine, Instant, Manip, NatRewrite, Status, Sysctl, TcpState, Tuple, Zone};
use alloc::vec::Vec;
use keepstate_types::ipproto;

/// A flow as a faster way needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffloadedFlow {
    /// Names its connection.
    pub conn_id: ConnId,
    /// What its packets look like as they come in, each direction by its own.
    pub tuples: [Tuple; 2],
    /// What is changed in them, original direction first: the destination, then the source.
    pub rewrites: [[NatRewrite; 2]; 2],
    /// Where its tuples hold.
    pub zone: Zone,
}

/// Why a flow is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffloadError {
    /// It is not in the table any more.
    NotFound,
    /// It is handed out already.
    AlreadyOffloaded,
    /// It is not yet assured, or it is closing.
    NotEstablished,
    /// Its packets need a second look: a helper listens, sequence numbers are adjusted, its timeout is fixed.
    NeedsSlowPath,
    /// Its protocol has no ports that a table of flows could go by, or too many states.
    UnsupportedProtocol,
}

/// What a faster way has seen of one direction of a flow since it last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStats {
    /// Which flow.
    pub conn_id: ConnId,
    /// Which direction.
    pub direction: Direction,
    /// Packets …
    pub packets: u64,
    /// … and their bytes, from the IP header on.
    pub bytes: u64,
    /// When the last of them came.
    pub last_seen: Instant,
}

impl Engine {
    /// Hands a connection out to a faster way.
    ///
    /// # Errors
    /// Why it has to stay.
    pub fn offload(&mut self, conn_id: ConnId, now: Instant) -> Result<OffloadedFlow, OffloadError> {
        let secret = self.secret.0;
        let hot = self.table.records.hot_mut(conn_id.slot).ok_or(OffloadError::NotFound)?;
        if !hot.is_confirmed() || hot.tuple_hash(secret) != conn_id.tuple_hash || hot.is_expired(now.tick()) {
            return Err(OffloadError::NotFound);
        }
        let status = hot.status();
        if status.contains(Status::OFFLOAD) {
            return Err(OffloadError::AlreadyOffloaded);
        }
        let watched = Status::SEQ_ADJUST | Status::FIXED_TIMEOUT | Status::HELPER;
        let listened = hot.kind.has(RecordKind::HAS_EXTENSION)
            && self.extensions.find(conn_id.slot).is_some_and(|extra| extra.helper_state.is_some());
        if status.intersects(watched) || listened {
            return Err(OffloadError::NeedsSlowPath);
        }
        if !status.contains(Status::ASSURED) {
            return Err(OffloadError::NotEstablished);
        }
        match hot.protocol() {
            ipproto::UDP | ipproto::UDPLITE => (),
            ipproto::TCP if Tcp::from_record_mut(hot).state() == TcpState::Established => {
                Tcp::from_record_mut(hot).reset_max_windows()
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
        let of = |direction: Direction, opposite| {
            [Manip::Destination, Manip::Source].map(|manip| nat_rewrite_for(status, opposite, direction, manip))
        };
        let edits = [of(Direction::Original, &tuples[1]), of(Direction::Reply, &tuples[0])];
        Ok(OffloadedFlow { conn_id, tuples, rewrites: edits, zone: self.table.records.zone(conn_id.slot) })
    }

    /// Takes in what a faster way has seen; gives how many of these flows are not out (any more).
    pub fn update_stats(&mut self, seen: impl IntoIterator<Item = FlowStats>, now: Instant) -> usize {
        seen.into_iter().filter(|seen| !self.update_flow_stats(seen, now)).count()
    }

    fn update_flow_stats(&mut self, seen: &FlowStats, now: Instant) -> bool {
        let (slot, secret) = (seen.conn_id.slot, self.secret.0);
        let Some(hot) = self.table.records.hot_mut(slot) else { return false };
        if !hot.is_confirmed()
            || hot.tuple_hash(secret) != seen.conn_id.tuple_hash
            || !hot.status().contains(Status::OFFLOAD)
        {
            return false;
        }
        let tick = now.tick();
        let context = TrackCtx {
            sysctls: &self.sysctls,
            status: hot.status(),
            now: tick,
            remaining_ticks: hot.deadline.wrapping_sub(tick),
            secret: self.secret,
            ack_offset: 0,
        };
        let timeout = match hot.protocol() {
            ipproto::TCP => seconds_to_ticks(self.sysctls[Sysctl::TcpTimeoutEstablished]),
            _ => match Stateless::load(hot).track_packet(&context) {
                TrackResult::Pass { timeout, .. } => timeout,
                _ => 0,
            },
        };
        // Told late, a packet counts from when it came; a deadline never moves back by it.
        let deadline = seen.last_seen.tick().wrapping_add(timeout);
        if deadline.wrapping_sub(hot.deadline) as i32 > 0 {
            hot.deadline = deadline;
        }
        let counted = hot.kind.has(RecordKind::COUNTED);
        if let (true, Some(counts)) = (counted, self.table.records.counts_mut(slot)) {
            let at = seen.direction as usize * 2;
            counts[at] += seen.packets;
            counts[at + 1] += seen.bytes;
        }
        true
    }

    /// Takes a flow back. False if it was not out.
    pub fn revoke(&mut self, conn_id: ConnId) -> bool {
        let secret = self.secret.0;
        let Some(hot) = self.table.records.hot(conn_id.slot) else { return false };
        let is_out = hot.is_confirmed()
            && hot.tuple_hash(secret) == conn_id.tuple_hash
            && hot.status().contains(Status::OFFLOAD);
        if is_out {
            self.unoffload(conn_id.slot);
        }
        is_out
    }

    /// Takes every flow back: its edits may be cached, and the rules have changed.
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

    /// A flow that is not out any more, though nobody has revoked it by its name: forget it.
    pub fn poll_revoked(&mut self) -> Option<ConnId> {
        self.offload.revoked.pop()
    }

    /// Flows that are out.
    pub fn offloaded_count(&self) -> usize {
        self.offload.count
    }

    /// A flow is the table's own again.
    #[cold]
    pub(crate) fn unoffload(&mut self, slot: u32) {
        let conn_id = self.conn_id(slot);
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.remove_status(Status::OFFLOAD);
        }
        self.offload.count = self.offload.count.saturating_sub(1);
        self.offload.revoked.push(conn_id);
    }
}

#[cfg(test)]
mod tests;
