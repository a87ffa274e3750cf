//! What people and programs ask of the table, as Linux's ctnetlink answers it: connections made, changed and taken out by request, and the table read
//! a piece at a time.
//!
//! A [`Draft`] becomes a connection ([`Engine::create`]); a [`Wish`] changes one ([`Engine::change`]): all of it or, with a [`Refusal`], nothing. Whoever reads or
//! empties a large table does so in pieces ([`Engine::piece`], [`Engine::flush_piece`]), between which packets pass: records never move, so
//! that each connection that lives all the while is met exactly once. Nothing here believes what it is asked: no request makes a table that
//! packets could not have made, but for the numbers it may choose.
mod create;
#[cfg(test)]
mod tests;

use crate::protocol::sctp::Sctp;
use crate::protocol::{Tcp, ticks};
use crate::table::record::{Hot, Kind};
use crate::time::Clock;
use crate::tuple::protocol;
use crate::{Engine, Entry, EventKind, Handle, Instant, Range, SctpState, Status, TcpState, Tuple, Zone};

/// What is to be so of a connection; what is `None` is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Seconds until it expires.
    pub timeout: Option<u32>,
    /// All status bits; of a connection that is there, those that may not be changed must be as they are.
    pub status: Option<Status>,
    /// The mark.
    pub mark: Option<u32>,
    /// Labels, and which of them are meant.
    pub labels: Option<[[u8; 16]; 2]>,
    /// What its protocol is to know.
    pub protocol: Option<Knowledge>,
}

/// What a protocol is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
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
pub struct Draft {
    /// The first packet's tuple.
    pub original: Tuple,
    /// The answer's tuple.
    pub reply: Tuple,
    /// Its zone.
    pub zone: Zone,
    /// The rest of it. A timeout must be told.
    pub wish: Wish,
    /// How its destination is to be translated.
    pub destination: Option<Range>,
    /// How its source is to be translated.
    pub source: Option<Range>,
}

/// Why something asked of the table was not done; then nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A connection has one of the tuples already.
    #[error("there is such a connection already")]
    Exists,
    /// The connection has ended.
    #[error("there is no such connection")]
    Gone,
    /// There is no such connection, or something that it must have was not told.
    #[error("no connection can be like that")]
    Impossible,
    /// Bits of the status that may not be changed.
    #[error("these bits of the status cannot be changed by request")]
    Unchangeable,
    /// Its timeout is fixed: [`Status::FIXED_TIMEOUT`].
    #[error("its timeout is fixed")]
    Fixed,
    /// The table is full, or there is no memory.
    #[error("there is no room for it: nf_conntrack_max, or memory")]
    Full,
}

/// Bits that a request never sets nor clears, though it may name them.
const LEFT_ALONE: u16 = Status::SRC_NAT.0
    | Status::DST_NAT.0
    | Status::SRC_NAT_DONE.0
    | Status::DST_NAT_DONE.0
    | Status::SEQ_ADJUST.0
    | Status::EXPECTED.0
    | Status::CONFIRMED.0
    | Status::DYING.0
    | Status::TEMPLATE.0
    | Status::OFFLOAD.0
    | Status::HW_OFFLOAD.0;

impl Engine {
    /// Changes a connection, as `conntrack -U` does.
    ///
    /// # Errors
    /// Why it was not changed.
    pub fn change(&mut self, handle: Handle, wish: &Wish, now: Instant) -> Result<(), Refusal> {
        let tick = now.tick();
        if self.entry(handle, now).is_none() {
            return Err(Refusal::Gone);
        }
        let slot = handle.slot;
        let hot = self.table.records.hot_mut(slot).ok_or(Refusal::Gone)?;
        if hot.expired(tick) {
            return Err(Refusal::Gone);
        }
        let status = wished_status(hot.status(), wish.status)?;
        if wish.timeout.is_some() && hot.status().has(Status::FIXED_TIMEOUT) {
            return Err(Refusal::Fixed);
        }
        if let Some(knowledge) = &wish.protocol {
            knowledge.learn(hot)?;
        }
        hot.status = status.0;
        if let Some(seconds) = wish.timeout {
            let deadline = tick.wrapping_add(ticks(seconds));
            hot.deadline = deadline;
            self.table.lower_deadline(slot, deadline);
        }
        if let (Some(mark), Some(cold)) = (wish.mark, self.table.records.cold_mut(slot)) {
            cold.mark = mark;
        }
        if let Some(labels) = wish.labels {
            self.label(slot, labels);
        }
        self.changes.note(slot);
        if self.reports(EventKind::Update) {
            self.report_update(slot, true, now);
        }
        Ok(())
    }

    fn label(&mut self, slot: u32, [labels, mask]: [[u8; 16]; 2]) {
        let Some(hot) = self.table.records.hot_mut(slot) else { return };
        hot.kind.set(Kind::EXTRAS);
        let known = self.extras.make(slot).labels.get_or_insert_default();
        for ((known, label), mask) in known.iter_mut().zip(labels).zip(mask) {
            *known = *known & !mask | label & mask;
        }
    }

    /// Sets the counts of packets and bytes of a connection to zero, as `conntrack -L -z` does.
    pub fn zero(&mut self, handle: Handle, now: Instant) {
        if self.entry(handle, now).is_some()
            && let Some(counts) = self.table.records.counts_mut(handle.slot)
        {
            *counts = [0; 4];
        }
    }

    /// A piece of the table: `each` is called for every connection, not expired at `now`, of at most `looks` places from `from` on. Gives the place where the
    /// next piece begins; `None` behind the last. Begin at 0.
    pub fn piece(&self, from: u32, looks: u32, now: Instant, mut each: impl FnMut(Entry)) -> Option<u32> {
        let (places, next) = self.stretch(from, looks);
        for slot in places {
            let lives = self.table.records.hot(slot).is_some_and(|hot| hot.living() && !hot.expired(now.tick()));
            if let Some(entry) = lives.then(|| self.show(slot, now)).flatten() {
                each(entry);
            }
        }
        next
    }

    /// Removes the connections of at most `looks` places from `from` on, and gives where the next piece begins, as [`Engine::piece`] does; all of
    /// them, or those of one family only.
    pub fn flush_piece(&mut self, from: u32, looks: u32, family: Option<Family>, now: Instant) -> Option<u32> {
        let (places, next) = self.stretch(from, looks);
        for slot in places {
            let meant = |hot: &Hot| {
                hot.living() && family.is_none_or(|family| hot.kind.is(Kind::WIDE) == (family == Family::V6))
            };
            if self.table.records.hot(slot).is_some_and(meant) {
                self.destroy(slot, now);
            }
        }
        next
    }

    /// Takes an announced connection back: the one that a first packet of this tuple would fulfil. False if nobody expects it.
    pub fn forget_expected(&mut self, tuple: &Tuple, zone: u16, now: Instant) -> bool {
        let before = self.expectations.len();
        let found = self.expectations.find(tuple, zone, now).is_some();
        self.counters.expect_delete += (before - self.expectations.len()) as u64;
        found
    }

    /// Takes every announced connection back.
    pub fn forget_all_expected(&mut self) {
        self.counters.expect_delete += self.expectations.remove_expired(Instant(u64::MAX), usize::MAX) as u64;
    }

    fn stretch(&self, from: u32, looks: u32) -> (core::ops::Range<u32>, Option<u32>) {
        let places = u32::try_from(self.table.records.slots()).unwrap_or(u32::MAX);
        let end = from.saturating_add(looks.max(1)).min(places);
        (from.min(end)..end, (end < places).then_some(end))
    }
}

pub use keepstate_wire::Family;

/// The status of a connection after a request for it.
fn wished_status(now: Status, wished: Option<Status>) -> Result<Status, Refusal> {
    let Some(wished) = wished else { return Ok(now) };
    let differ = now.0 ^ wished.0;
    let never = Status::EXPECTED.0 | Status::CONFIRMED.0 | Status::DYING.0;
    // What was seen stays seen.
    let only_set = Status::SEEN_REPLY.0 | Status::ASSURED.0;
    if differ & never != 0 || differ & only_set & now.0 != 0 {
        return Err(Refusal::Unchangeable);
    }
    Ok(Status(now.0 & LEFT_ALONE | wished.0 & !LEFT_ALONE | now.0 & Status::HELPER.0))
}

impl Knowledge {
    /// Writes it into a record of its protocol. Knowledge of another protocol is passed over, as the kernel does.
    fn learn(&self, hot: &mut Hot) -> Result<(), Refusal> {
        match (*self, hot.protocol()) {
            (Knowledge::Tcp { state, scales, flags }, protocol::TCP) => {
                if scales.is_some_and(|scales| scales.iter().any(|scale| *scale > LARGEST_SCALE)) {
                    return Err(Refusal::Impossible);
                }
                Tcp::of(hot).be_told(state, scales, flags);
            }
            (Knowledge::Sctp { state, tags }, protocol::SCTP) => Sctp { state, tags, ..Sctp::load(hot) }.store(hot),
            _ => (),
        }
        Ok(())
    }
}

/// RFC 7323.
const LARGEST_SCALE: u8 = 14;
