//! Flows that a faster way forwards for a while: handed out, counted in bulk, taken back.
//!
//! ```text
//! hand_out ─▶ Flow: tuples and edits of both directions; the connection is OFFLOAD, and not timed out as long as the way says that it lives
//!    take_in   counts and last-seen times come back, many at once
//! revoke    ─▶ back in software; also by itself, as soon as a packet of it arrives here (a FIN, a RST, a fragment), or when it ends: poll_revoked says so
//! ```
//! The way translates by [`Edits`](crate::Edits) alone and decides nothing. What a connection needs a second look at (a helper, adjusted sequence numbers, a state other than open) is not handed out.
//! Windows are forgotten at the handing out: who comes back is taken up in the middle, as Linux does.
use crate::nat::edits_of;
use crate::protocol::stateless::Stateless;
use crate::protocol::{Context, Ruling, Tcp, ticks};
use crate::table::Reference;
use crate::table::record::Kind;
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Direction, Edits, Engine, Handle, Instant, Knob, Manip, Status, TcpState, Tuple, Zone};
use alloc::vec::Vec;

/// A flow as a faster way needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Names its connection.
    pub handle: Handle,
    /// What its packets look like as they come in, each direction by its own.
    pub tuples: [Tuple; 2],
    /// What is changed in them, original direction first: the destination, then the source.
    pub edits: [[Edits; 2]; 2],
    /// Where its tuples hold.
    pub zone: Zone,
}

/// Why a flow is not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is not in the table any more.
    Gone,
    /// It is handed out already.
    Out,
    /// It is not yet assured, or it is closing.
    Unsettled,
    /// Its packets need a second look: a helper listens, sequence numbers are adjusted, its timeout is fixed.
    Watched,
    /// Its protocol has no ports that a table of flows could go by, or too many states.
    Protocol,
}

/// What a faster way has seen of one direction of a flow since it last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which flow.
    pub handle: Handle,
    /// Which direction.
    pub direction: Direction,
    /// Packets …
    pub packets: u64,
    /// … and their octets, from the IP header on.
    pub bytes: u64,
    /// When the last of them came.
    pub last: Instant,
}

/// Flows that are out.
#[derive(Debug, Default)]
pub(crate) struct Offload {
    out: usize,
    revoked: Vec<Handle>,
}

impl Engine {
    /// Hands a connection out to a faster way.
    ///
    /// # Errors
    /// Why it has to stay.
    pub fn hand_out(&mut self, handle: Handle, now: Instant) -> Result<Flow, Held> {
        let secret = self.secret.0;
        let hot = self.table.records.hot_mut(handle.slot).ok_or(Held::Gone)?;
        if !hot.living() || hot.stamp(secret) != handle.stamp || hot.expired(now.tick()) {
            return Err(Held::Gone);
        }
        let status = hot.status();
        if status.has(Status::OFFLOAD) {
            return Err(Held::Out);
        }
        let watched = Status::SEQ_ADJUST.0 | Status::FIXED_TIMEOUT.0 | Status::HELPER.0;
        let listened =
            hot.kind.is(Kind::EXTRAS) && self.extras.of(handle.slot).is_some_and(|extra| extra.listener.is_some());
        if status.0 & watched != 0 || listened {
            return Err(Held::Watched);
        }
        if !status.has(Status::ASSURED) {
            return Err(Held::Unsettled);
        }
        match hot.protocol() {
            protocol::UDP | protocol::UDPLITE => (),
            protocol::TCP if Tcp::of(hot).state() == TcpState::Established => Tcp::of(hot).forget_windows(),
            protocol::TCP => return Err(Held::Unsettled),
            _ => return Err(Held::Protocol),
        }
        hot.status |= Status::OFFLOAD.0;
        let keys = [Direction::Original, Direction::Reply]
            .map(|direction| self.table.records.key(Reference::new(handle.slot, direction)));
        let [Some(original), Some(reply)] = keys else { return Err(Held::Gone) };
        self.offload.out += 1;
        let tuples = [original.tuple(), reply.tuple()];
        let of = |direction: Direction, opposite| {
            [Manip::Destination, Manip::Source].map(|manip| edits_of(status, opposite, direction, manip))
        };
        let edits = [of(Direction::Original, &tuples[1]), of(Direction::Reply, &tuples[0])];
        Ok(Flow { handle, tuples, edits, zone: self.table.records.zone(handle.slot) })
    }

    /// Takes in what a faster way has seen; gives how many of these flows are not out (any more).
    pub fn take_in(&mut self, seen: impl IntoIterator<Item = Seen>, now: Instant) -> usize {
        seen.into_iter().filter(|seen| !self.take_in_one(seen, now)).count()
    }

    fn take_in_one(&mut self, seen: &Seen, now: Instant) -> bool {
        let (slot, secret) = (seen.handle.slot, self.secret.0);
        let Some(hot) = self.table.records.hot_mut(slot) else { return false };
        if !hot.living() || hot.stamp(secret) != seen.handle.stamp || !hot.status().has(Status::OFFLOAD) {
            return false;
        }
        let tick = now.tick();
        let context = Context {
            knobs: &self.knobs,
            status: hot.status(),
            now: tick,
            remaining_ticks: hot.deadline.wrapping_sub(tick),
            secret: self.secret,
            ahead: 0,
        };
        let timeout = match hot.protocol() {
            protocol::TCP => ticks(self.knobs[Knob::TcpTimeoutEstablished]),
            _ => match Stateless::load(hot).advance(&context) {
                Ruling::Pass { timeout, .. } => timeout,
                _ => 0,
            },
        };
        // Told late, a packet counts from when it came; a deadline never moves back by it.
        let deadline = seen.last.tick().wrapping_add(timeout);
        if deadline.wrapping_sub(hot.deadline) as i32 > 0 {
            hot.deadline = deadline;
        }
        let counted = hot.kind.is(Kind::COUNTED);
        if let (true, Some(counts)) = (counted, self.table.records.counts_mut(slot)) {
            let at = seen.direction as usize * 2;
            counts[at] += seen.packets;
            counts[at + 1] += seen.bytes;
        }
        true
    }

    /// Takes a flow back. False if it was not out.
    pub fn revoke(&mut self, handle: Handle) -> bool {
        let secret = self.secret.0;
        let Some(hot) = self.table.records.hot(handle.slot) else { return false };
        let is_out = hot.living() && hot.stamp(secret) == handle.stamp && hot.status().has(Status::OFFLOAD);
        if is_out {
            self.come_back(handle.slot);
        }
        is_out
    }

    /// Takes every flow back: its edits may be cached, and the rules have changed.
    pub fn revoke_all(&mut self) {
        if self.offload.out == 0 {
            return;
        }
        let slots: Vec<u32> = self.table.slots().collect();
        for slot in slots {
            if self.table.records.hot(slot).is_some_and(|hot| hot.status().has(Status::OFFLOAD)) {
                self.come_back(slot);
            }
        }
    }

    /// A flow that is not out any more, though nobody has revoked it by its name: forget it.
    pub fn poll_revoked(&mut self) -> Option<Handle> {
        self.offload.revoked.pop()
    }

    /// Flows that are out.
    pub fn handed_out(&self) -> usize {
        self.offload.out
    }

    /// A flow is the table's own again.
    #[cold]
    pub(crate) fn come_back(&mut self, slot: u32) {
        let handle = self.handle_of(slot);
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.status &= !Status::OFFLOAD.0;
        }
        self.offload.out = self.offload.out.saturating_sub(1);
        self.offload.revoked.push(handle);
    }
}

#[cfg(test)]
mod tests;
