//! What people and programs ask of the table, as Linux's ctnetlink answers it: connections made, changed and taken out by request, and the table read
//! a piece at a time.
//!
//! A [`NewConnection`] becomes a connection ([`Engine::create`]); a [`ConnUpdate`] changes one ([`Engine::update`]): all of it or, with a [`ParseError`], nothing. Whoever reads or
//! empties a large table does so in pieces ([`Engine::poll`], [`Engine::flush`]), between which packets pass: records never move, so
//! that each connection that lives all the while is met exactly once. Nothing here believes what it is asked: no request makes a table that
//! packets could not have made, but for the numbers it may choose.
mod create;
#[cfg(test)]
mod tests;

use crate::protocol::sctp::Sctp;
use crate::protocol::{Tcp, seconds_to_ticks};
use crate::table::record::{HotRecord, RecordKind};
use crate::time::Ticks;
use crate::{ConnId, Engine, Entry, EventKind, Instant, NatRange, SctpState, Status, TcpState, Tuple, Zone};
use keepstate_types::ipproto;

/// What is to be so of a connection; what is `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnUpdate {
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// All status bits; of a connection that is there, those that may not be changed must be as they are.
    pub status: Option<Status>,
    /// The mark.
    pub mark: Option<u32>,
    /// Labels, and which of them are meant.
    pub labels: Option<[[u8; 16]; 2]>,
    /// What its protocol is to know.
    pub protocol: Option<ProtocolUpdate>,
}

/// What a protocol is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolUpdate {
    /// TCP's.
    Tcp {
        /// The state.
        state: Option<TcpState>,
        /// Window scales, original then reply: taken only together.
        scales: Option<[u8; 2]>,
        /// Flags and which of them are meant, original then reply; the numbers are those of [`TcpSide::flags`](crate::TcpSide::flags).
        flags: [Option<[u8; 2]>; 2],
    },
    /// SCTP's.
    Sctp {
        /// The state.
        state: SctpState,
        /// Verification tags, original then reply.
        tags: [u32; 2],
    },
}

/// A connection to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewConnection {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The answer's tuple.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// The rest of it. A timeout must be told.
    pub attributes: ConnUpdate,
    /// How its destination is to be translated.
    pub dst_nat: Option<NatRange>,
    /// How its source is to be translated.
    pub src_nat: Option<NatRange>,
}

/// Why something asked of the table was not done; then nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// A connection has one of the tuples already.
    #[error("there is such a connection already")]
    Exists,
    /// The connection has ended.
    #[error("there is no such connection")]
    NotFound,
    /// There is no such connection, or something that it must have was not told.
    #[error("no connection can be like that")]
    Invalid,
    /// Bits of the status that may not be changed.
    #[error("these bits of the status cannot be changed by request")]
    StatusUnchangeable,
    /// Its timeout is fixed: [`Status::FIXED_TIMEOUT`].
    #[error("its timeout is fixed")]
    FixedTimeout,
    /// The table is full, or there is no memory.
    #[error("there is no room for it: nf_conntrack_max, or memory")]
    TableFull,
}

/// Bits that a request never sets nor clears, though it may name them.
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
    /// Why it was not changed.
    pub fn update(&mut self, conn_id: ConnId, wish: &ConnUpdate, now: Instant) -> Result<(), UpdateError> {
        let tick = now.tick();
        if self.entry(conn_id, now).is_none() {
            return Err(UpdateError::NotFound);
        }
        let slot = conn_id.slot;
        let hot = self.table.records.hot_mut(slot).ok_or(UpdateError::NotFound)?;
        if hot.is_expired(tick) {
            return Err(UpdateError::NotFound);
        }
        let status = merge_status(hot.status(), wish.status)?;
        if wish.timeout.is_some() && hot.status().contains(Status::FIXED_TIMEOUT) {
            return Err(UpdateError::FixedTimeout);
        }
        if let Some(knowledge) = &wish.protocol {
            knowledge.apply_to(hot)?;
        }
        hot.set_status(status);
        if let Some(seconds) = wish.timeout {
            let deadline = tick.wrapping_add(seconds_to_ticks(seconds));
            hot.deadline = deadline;
            self.table.lower_timer_bound(slot, deadline);
        }
        if let (Some(mark), Some(cold)) = (wish.mark, self.table.records.cold_mut(slot)) {
            cold.mark = mark;
        }
        if let Some(labels) = wish.labels {
            self.set_labels(slot, labels);
        }
        self.dirty.mark_dirty(slot);
        if self.wants_event(EventKind::Update) {
            self.emit_update(slot, true, now);
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

    /// Sets the counts of packets and bytes of a connection to zero, as `conntrack -L -z` does.
    pub fn zero_counters(&mut self, conn_id: ConnId, now: Instant) {
        if self.entry(conn_id, now).is_some()
            && let Some(counts) = self.table.records.counts_mut(conn_id.slot)
        {
            *counts = [0; 4];
        }
    }

    /// A piece of the table: `each` is called for every connection, not expired at `now`, of at most `looks` places from `from` on. Gives the place where the
    /// next piece begins; `None` behind the last. Begin at 0.
    pub fn dump_range(&self, from: u32, looks: u32, now: Instant, mut each: impl FnMut(Entry)) -> Option<u32> {
        let (places, next) = self.slot_range(from, looks);
        for slot in places {
            let lives =
                self.table.records.hot(slot).is_some_and(|hot| hot.is_confirmed() && !hot.is_expired(now.tick()));
            if let Some(entry) = lives.then(|| self.dump_entry(slot, now)).flatten() {
                each(entry);
            }
        }
        next
    }

    /// Removes the connections of at most `looks` places from `from` on, and gives where the next piece begins, as [`Engine::poll`] does; all of
    /// them, or those of one family only.
    pub fn flush_range(&mut self, from: u32, looks: u32, family: Option<Family>, now: Instant) -> Option<u32> {
        let (places, next) = self.slot_range(from, looks);
        for slot in places {
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

    /// Takes an announced connection back: the one that a first packet of this tuple would fulfil. False if nobody expects it.
    pub fn delete_expectation(&mut self, tuple: &Tuple, zone: u16, now: Instant) -> bool {
        let before = self.expectations.len();
        let found = self.expectations.find_expectation(tuple, zone, now).is_some();
        self.counters.expect_delete += (before - self.expectations.len()) as u64;
        found
    }

    /// Takes every announced connection back.
    pub fn flush_expectations(&mut self) {
        self.counters.expect_delete += self.expectations.remove_expired(Instant(u64::MAX), usize::MAX) as u64;
    }

    fn slot_range(&self, from: u32, looks: u32) -> (core::ops::Range<u32>, Option<u32>) {
        let places = u32::try_from(self.table.records.slot_count()).unwrap_or(u32::MAX);
        let end = from.saturating_add(looks.max(1)).min(places);
        (from.min(end)..end, (end < places).then_some(end))
    }
}

pub use keepstate_wire::Family;

/// The status of a connection after a request for it.
fn merge_status(now: Status, wished: Option<Status>) -> Result<Status, UpdateError> {
    let Some(wished) = wished else { return Ok(now) };
    let differ = now ^ wished;
    let never = Status::EXPECTED | Status::CONFIRMED | Status::DYING;
    // What was seen stays seen.
    let only_set = Status::SEEN_REPLY | Status::ASSURED;
    if differ.intersects(never) || (differ & only_set).intersects(now) {
        return Err(UpdateError::StatusUnchangeable);
    }
    Ok(now & UNCHANGEABLE_STATUS | wished & !UNCHANGEABLE_STATUS | now & Status::HELPER)
}

impl ProtocolUpdate {
    /// Writes it into a record of its protocol. Knowledge of another protocol is passed over, as the kernel does.
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

/// RFC 7323.
const MAX_WINDOW_SCALE: u8 = 14;
