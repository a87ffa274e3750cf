//! Held connections: their timers stand still while those of all others go on. For connections that another machine decides and that this one only keeps for it.
//!
//! What a held connection has left is kept here; its record has a deadline far away, moved on before it comes, so packets and expiry know nothing of it. An engine that
//! has never held one pays one test where it looks for expired connections. A packet must not be handed to the engine for a held connection: release it first.
pub(crate) mod held_timers;

use crate::table::TupleRef;
use crate::time::Ticks;
use crate::{ConnId, Direction, Engine, Instant};

/// How far away the deadline of a held connection is, in ticks: 24 days. It is moved on at half of it.
const FAR: u32 = 1 << 29;

impl Engine {
    /// Stops the timer of a connection. It neither expires nor is removed for a new one until [`Engine::release`]; what it has left stays what it is now. False if there is no such connection.
    pub fn hold(&mut self, conn_id: ConnId, now: Instant) -> bool {
        let tick = now.tick();
        let hot = self.table.records.hot(conn_id.slot).filter(|hot| !hot.is_expired(tick)).copied();
        let Some(hot) = hot.filter(|_| self.names(conn_id)) else { return false };
        if self.held.remaining(conn_id.slot).is_none() {
            self.held.put(conn_id.slot, hot.deadline.wrapping_sub(tick));
            self.put_far(conn_id.slot, tick);
        }
        true
    }

    /// Lets the timer of a held connection go on with what it had left. Nothing if it is not held.
    pub fn release(&mut self, conn_id: ConnId, now: Instant) {
        if !self.is_held(conn_id) {
            return;
        }
        let Some(remaining) = self.held.take(conn_id.slot) else { return };
        let deadline = now.tick().wrapping_add(remaining);
        if let Some(hot) = self.table.records.hot_mut(conn_id.slot) {
            hot.deadline = deadline;
        }
        self.table.lower_timer_bound(conn_id.slot, deadline);
    }

    /// Does its timer stand still?
    pub fn is_held(&self, conn_id: ConnId) -> bool {
        self.held.remaining(conn_id.slot).is_some() && self.names(conn_id)
    }

    /// Number of held connections.
    pub fn held_count(&self) -> usize {
        self.held.count()
    }

    /// The ticks until the connection in `slot` expires, by its deadline; of a held one, what it had left.
    #[inline(always)]
    pub(crate) fn remaining_ticks(&self, slot: u32, deadline: u32, tick: u32) -> u32 {
        self.held.remaining(slot).unwrap_or_else(|| deadline.wrapping_sub(tick))
    }

    /// Moves the deadline of a held connection away again, so that it never comes; its bound brings us here long before.
    fn put_far(&mut self, slot: u32, tick: u32) {
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.deadline = tick.wrapping_add(FAR);
        }
        self.table.lower_timer_bound(slot, tick.wrapping_add(FAR / 2));
    }

    /// Held: the deadline is moved on, and when to look again is returned, in ticks.
    pub(crate) fn rearm_held(&mut self, slot: u32, tick: u32) -> Option<u32> {
        self.held.remaining(slot)?;
        if let Some(hot) = self.table.records.hot_mut(slot) {
            hot.deadline = tick.wrapping_add(FAR);
        }
        Some(FAR / 2)
    }

    /// Is every held slot one of a connection?
    pub(crate) fn check_held(&self) -> Result<(), alloc::string::String> {
        let mut count = 0;
        for slot in self.held.slots() {
            count += 1;
            let has_key = self.table.records.key(TupleRef::new(slot, Direction::Original)).is_some();
            if !has_key || self.table.records.hot(slot).is_none_or(|hot| !hot.is_confirmed()) {
                return Err(alloc::format!("slot {slot} is held and has no connection"));
            }
        }
        if count == self.held.count() {
            Ok(())
        } else {
            Err(alloc::format!("{count} connections are held, {} counted", self.held.count()))
        }
    }
}

#[cfg(test)]
mod tests;
