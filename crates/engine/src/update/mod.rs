//! Requests to the table, as ctnetlink handles them: create, update and delete connections and expectations, and dump the table in pieces.
//!
//! A [`NewConnection`] becomes a connection ([`Engine::create`]); a [`ConnUpdate`] changes one ([`Engine::update`]): completely or, with an
//! [`UpdateError`], not at all. A large table is read or flushed in pieces ([`Engine::dump_range`], [`Engine::flush_range`]), between which packets can
//! be handled: records never move, so each connection that exists all the time is visited exactly once. Requests are untrusted: apart from the
//! values that they may choose, they must never create a table that packets could not have created.
mod create;
#[cfg(test)]
mod tests;

use crate::event_bits::EventBits;
use crate::protocol::sctp::Sctp;
use crate::protocol::{Tcp, seconds_to_ticks};
use crate::table::record::{HotRecord, RecordKind};
use crate::time::Ticks;
use crate::{ConnId, Engine, Entry, EventKind, Instant, NatRange, SctpState, Status, TcpState, Tuple, Zone};
use keepstate_types::ipproto;

/// The attributes to set on a connection; `None` leaves one unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnUpdate {
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// All status bits. In an update, EXPECTED, CONFIRMED and DYING must be as they are, and SEEN_REPLY and ASSURED can only be set; bits of NAT,
    /// offload and the like are ignored.
    pub status: Option<Status>,
    /// The mark.
    pub mark: Option<u32>,
    /// Labels, and the mask of those to change.
    pub labels: Option<[[u8; 16]; 2]>,
    /// Protocol state.
    pub protocol: Option<ProtocolUpdate>,
}

/// Protocol state to set. It is ignored if the connection has another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolUpdate {
    /// TCP.
    Tcp {
        /// The state.
        state: Option<TcpState>,
        /// Window scales, original then reply, 0 to 14.
        scales: Option<[u8; 2]>,
        /// Flags and the mask of those to change, original then reply; the bits are those of [`TcpSide::flags`](crate::TcpSide::flags).
        flags: [Option<[u8; 2]>; 2],
    },
    /// SCTP.
    Sctp {
        /// The state.
        state: SctpState,
        /// Verification tags, original then reply.
        tags: [u32; 2],
    },
}

/// A connection to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The reply tuple, before NAT.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// The other attributes. The timeout is mandatory.
    pub attributes: ConnUpdate,
    /// Destination NAT.
    pub dst_nat: Option<NatRange>,
    /// Source NAT.
    pub src_nat: Option<NatRange>,
}

/// Why a request failed; then nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A connection with one of the tuples exists.
    #[error("the connection exists already")]
    Exists,
    /// The connection does not exist (any more).
    #[error("no such connection")]
    NotFound,
    /// The request is inconsistent, or a mandatory attribute is missing.
    #[error("the values contradict each other")]
    Invalid,
    /// The request changes status bits that must not be changed.
    #[error("these status bits cannot be changed")]
    StatusUnchangeable,
    /// Its timeout is fixed: [`Status::FIXED_TIMEOUT`].
    #[error("its timeout is fixed")]
    FixedTimeout,
    /// The table is full, or out of memory.
    #[error("the table is full (nf_conntrack_max), or out of memory")]
    TableFull,
    /// One of its tuples belongs to another shard: see [`ShardMap`](crate::ShardMap).
    #[error("one of its tuples belongs to another shard")]
    WrongShard,
}

/// Status bits that a request can neither set nor clear.
const UNCHANGEABLE_STATUS: Status = Status::SRC_NAT
    .union(Status::DST_NAT)
    .union(Status::SRC_NAT_DONE)
    .union(Status::DST_NAT_DONE)
    .union(Status::SEQ_ADJUST)
    .union(Status::EXPECTED)
    .union(Status::CONFIRMED)
    .union(Status::DYING)
    .union(Status::TEMPLATE)
    .union(Status::OFFLOAD)
    .union(Status::HW_OFFLOAD);

impl Engine {
    /// Changes a connection, as `conntrack -U` does.
    ///
    /// # Errors
    /// It does not exist, the update is invalid, its timeout is fixed, or status bits must not be changed. Then nothing has changed.
    pub fn update(&mut self, conn_id: ConnId, changes: &ConnUpdate, now: Instant) -> Result<(), UpdateError> {
        let tick = now.tick();
        if self.entry(conn_id, now).is_none() {
            return Err(UpdateError::NotFound);
        }
        let slot = conn_id.slot;
        let hot = self.table.records.hot_mut(slot).ok_or(UpdateError::NotFound)?;
        if hot.is_expired(tick) {
            return Err(UpdateError::NotFound);
        }
        let status = merge_status(hot.status(), changes.status)?;
        if changes.timeout.is_some() && hot.status().contains(Status::FIXED_TIMEOUT) {
            return Err(UpdateError::FixedTimeout);
        }
        if let Some(protocol_update) = &changes.protocol {
            protocol_update.apply_to(hot)?;
        }
        hot.set_status(status);
        if let Some(seconds) = changes.timeout {
            let remaining = seconds_to_ticks(seconds);
            if !self.held.set_remaining(slot, remaining) {
                hot.deadline = tick.wrapping_add(remaining);
                self.table.lower_timer_bound(slot, tick.wrapping_add(remaining));
            }
        }
        if let Some(mark) = changes.mark {
            self.table.records.set_mark(slot, mark);
        }
        if let Some(labels) = changes.labels {
            self.set_labels(slot, labels);
        }
        if *changes != (ConnUpdate { timeout: changes.timeout, ..ConnUpdate::default() }) {
            // Its packets are to be judged by what it is now.
            self.revoke(conn_id);
        }
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::Update) {
            self.emit_update(slot, EventBits::REQUEST, now);
        }
        Ok(())
    }

    fn set_labels(&mut self, slot: u32, [labels, mask]: [[u8; 16]; 2]) {
        let Some(hot) = self.table.records.hot_mut(slot) else { return };
        hot.kind.set(RecordKind::HAS_EXTENSION);
        let known = self.extensions.find_or_insert(slot).labels.get_or_insert_default();
        for ((known, label), mask) in known.iter_mut().zip(labels).zip(mask) {
            *known = *known & !mask | label & mask;
        }
    }

    /// Sets the packet and byte counters of a connection to zero, as `conntrack -L -z` does.
    pub fn zero_counters(&mut self, conn_id: ConnId, now: Instant) {
        if self.entry(conn_id, now).is_some()
            && let Some(counts) = self.table.records.counts_mut(conn_id.slot)
        {
            *counts = [0; 4];
        }
    }

    /// Dumps a piece of the table: calls `each` for every connection in at most `max_slots` slots from slot `from` on that has not expired at `now`. Returns
    /// the slot where the next piece begins; `None` after the last. Begin at 0.
    pub fn dump_range(&self, from: u32, max_slots: u32, now: Instant, mut each: impl FnMut(Entry)) -> Option<u32> {
        let (slots, next) = self.slot_range(from, max_slots);
        for slot in slots {
            let exists =
                self.table.records.hot(slot).is_some_and(|hot| hot.is_confirmed() && !hot.is_expired(now.tick()));
            if let Some(entry) = exists.then(|| self.dump_entry(slot, now)).flatten() {
                each(entry);
            }
        }
        next
    }

    /// Removes the connections in at most `max_slots` slots from slot `from` on: all of them, or those of one address family. Returns the slot where the
    /// next piece begins, as [`Engine::dump_range`] does.
    pub fn flush_range(&mut self, from: u32, max_slots: u32, family: Option<Family>, now: Instant) -> Option<u32> {
        let (slots, next) = self.slot_range(from, max_slots);
        for slot in slots {
            let meant = |hot: &HotRecord| {
                hot.is_confirmed()
                    && family.is_none_or(|family| hot.kind.has(RecordKind::IPV6) == (family == Family::V6))
            };
            if self.table.records.hot(slot).is_some_and(meant) {
                self.destroy(slot, now);
            }
        }
        next
    }

    /// Removes the expectation that a first packet with this tuple would match. False if there is none.
    pub fn delete_expectation(&mut self, tuple: &Tuple, zone: u16, now: Instant) -> bool {
        let before = self.expectations.len();
        let found = self.expectations.find_expectation(tuple, zone, now).is_some();
        self.counters.expect_delete += (before - self.expectations.len()) as u64;
        found
    }

    /// Removes every expectation.
    pub fn flush_expectations(&mut self) {
        self.counters.expect_delete += self.expectations.remove_expired(Instant(u64::MAX), usize::MAX) as u64;
    }

    fn slot_range(&self, from: u32, max_slots: u32) -> (core::ops::Range<u32>, Option<u32>) {
        let slots = u32::try_from(self.table.records.slot_count()).unwrap_or(u32::MAX);
        let end = from.saturating_add(max_slots.max(1)).min(slots);
        (from.min(end)..end, (end < slots).then_some(end))
    }
}

pub use keepstate_wire::Family;

/// The status of a connection after a request for status `wished`.
fn merge_status(now: Status, requested: Option<Status>) -> Result<Status, UpdateError> {
    let Some(requested) = requested else { return Ok(now) };
    let difference = now ^ requested;
    let never = Status::EXPECTED | Status::CONFIRMED | Status::DYING;
    // These bits cannot be cleared.
    let only_set = Status::SEEN_REPLY | Status::ASSURED;
    if difference.intersects(never) || (difference & only_set).intersects(now) {
        return Err(UpdateError::StatusUnchangeable);
    }
    Ok(now & UNCHANGEABLE_STATUS | requested & !UNCHANGEABLE_STATUS | now & Status::HELPER)
}

impl ProtocolUpdate {
    /// Writes it into a record. As in the kernel, state of another protocol is ignored.
    fn apply_to(&self, hot: &mut HotRecord) -> Result<(), UpdateError> {
        match (*self, hot.protocol()) {
            (ProtocolUpdate::Tcp { state, scales, flags }, ipproto::TCP) => {
                if scales.is_some_and(|scales| scales.iter().any(|scale| *scale > MAX_WINDOW_SCALE)) {
                    return Err(UpdateError::Invalid);
                }
                Tcp::from_record_mut(hot).set_protoinfo(state, scales, flags);
            }
            (ProtocolUpdate::Sctp { state, tags }, ipproto::SCTP) => {
                Sctp { state, vtags: tags, ..Sctp::load(hot) }.store(hot)
            }
            _ => (),
        }
        Ok(())
    }
}

/// The largest window scale (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;
