//! The connections of services: how many each backend has, and which are to end with it.
//!
//! A connection is added when it is confirmed, and removed when a sweep finds it gone from the table. Closed TCP connections no longer count before that; if a late
//! segment reopens one, it counts again. Sweeps are bounded, so a backend's count lags by one pass over the list at most. The connections of a backend that is down or removed end in bounded
//! steps too; a packet of one that was not reached yet is checked by itself, so none goes to that backend any more.
use super::backend::BackendId;
use indexmap::IndexMap;
use keepstate_engine::{ConnId, Engine, Entry, Instant, ProtocolInfo, Status, TcpState};
use keepstate_wire::keyed_hash::SipKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Connections that one sweep checks, at least; with many, 1/1024 of them.
const SWEEP_MIN: usize = 256;
/// Connections that a thorough sweep checks, at most: packets wait meanwhile.
const SWEEP_MAX: usize = 65_536;

/// The connections of all services.
#[derive(Debug)]
pub(super) struct ServiceConnections {
    entries: IndexMap<ConnId, ServiceConnection, SipKey>,
    /// Where the next sweep begins.
    sweep_cursor: usize,
    /// The backends whose connections end.
    ending: BTreeMap<BackendId, Ending>,
    /// When all connections are to be checked for such backends.
    passes: BTreeSet<Instant>,
    /// The connections below this index are still to be checked.
    end_cursor: usize,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct ServiceConnection {
    backend: BackendId,
    /// Closed at the last sweep.
    closed: bool,
}

impl ServiceConnection {
    fn report_removed(self, mut tell: impl FnMut(BackendId, ConnectionEvent)) {
        if !self.closed {
            tell(self.backend, ConnectionEvent::Closed);
        }
        tell(self.backend, ConnectionEvent::Removed);
    }
}

/// Why the connections of a backend end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndMode {
    /// It is down: UDP and what was never answered ends; TCP only with `reset`.
    Down { reset: bool },
    /// It is no longer configured: everything ends.
    Removed,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    mode: EndMode,
    at: Instant,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndAction {
    /// It is taken out of the table: the next packet begins a new one, to another backend.
    Remove,
    /// Its next segment is answered by a reset.
    Reset,
}

/// How long a TCP connection of a removed backend waits for a segment to answer with a reset.
const RESET_GRACE: Duration = Duration::from_secs(60);

/// What a sweep finds of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
    /// It was closed.
    Closed,
    /// It was closed and is open again.
    Reopened,
    /// It has left the table.
    Removed,
}

impl ServiceConnections {
    pub(super) fn new(key: SipKey) -> ServiceConnections {
        ServiceConnections {
            entries: IndexMap::with_hasher(key),
            sweep_cursor: 0,
            ending: BTreeMap::new(),
            passes: BTreeSet::new(),
            end_cursor: 0,
        }
    }

    /// Adds a confirmed connection. If an earlier one with the same id ended unseen, its end is reported.
    pub(super) fn insert(&mut self, handle: ConnId, backend: BackendId, tell: impl FnMut(BackendId, ConnectionEvent)) {
        if let Some(before) = self.entries.insert(handle, ServiceConnection { backend, closed: false }) {
            before.report_removed(tell);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is it in the list?
    pub(super) fn contains(&self, handle: ConnId) -> bool {
        self.entries.contains_key(&handle)
    }

    /// Checks the next connections (`thorough`: all, up to a limit), and reports what has changed.
    pub(super) fn sweep(
        &mut self,
        engine: &Engine,
        thorough: bool,
        now: Instant,
        tell: impl FnMut(BackendId, ConnectionEvent),
    ) {
        let looks = if thorough { SWEEP_MAX } else { SWEEP_MIN.max(self.entries.len() / 1024) };
        if thorough && self.entries.len() <= SWEEP_MAX {
            self.sweep_cursor = 0;
        }
        self.sweep_some(engine, looks, now, tell);
    }

    /// Checks the next connections, so many at most and not beyond the end of the list; returns how many.
    pub(super) fn sweep_some(
        &mut self,
        engine: &Engine,
        looks: usize,
        now: Instant,
        mut tell: impl FnMut(BackendId, ConnectionEvent),
    ) -> usize {
        if self.sweep_cursor >= self.entries.len() {
            self.sweep_cursor = 0;
        }
        for looked in 0..looks {
            let Some((handle, known)) = self.entries.get_index_mut(self.sweep_cursor) else { return looked };
            let handle = *handle;
            let entry = engine.entry(handle, now);
            let was_over = known.closed;
            known.closed = entry.is_none_or(|entry| is_closed(&entry));
            match (was_over, known.closed) {
                (false, true) => tell(known.backend, ConnectionEvent::Closed),
                (true, false) => tell(known.backend, ConnectionEvent::Reopened),
                _ => (),
            }
            if entry.is_some() {
                self.sweep_cursor += 1;
            } else {
                tell(known.backend, ConnectionEvent::Removed);
                self.entries.swap_remove_index(self.sweep_cursor);
            }
        }
        looks
    }

    /// From `at` on the connections of a backend end, as `mode` says. A later call for the same backend replaces an earlier one.
    pub(super) fn begin_end(&mut self, backend: BackendId, mode: EndMode, at: Instant) {
        self.ending.insert(backend, Ending { mode, at });
        self.passes.insert(at);
        if mode == EndMode::Removed {
            self.passes.insert(at.after(RESET_GRACE));
        }
    }

    /// The connections of a backend go on.
    pub(super) fn cancel_end(&mut self, backend: BackendId) {
        self.ending.remove(&backend);
    }

    /// How the connections of a backend end, if they do, and since or from when.
    pub(super) fn ending(&self, backend: BackendId) -> Option<(EndMode, Instant)> {
        self.ending.get(&backend).map(|ending| (ending.mode, ending.at))
    }

    /// Forgets the ends of backends that are gone.
    pub(super) fn retain_endings(&mut self, exists: impl Fn(BackendId) -> bool) {
        self.ending.retain(|backend, _| exists(*backend));
    }

    /// The backend of a connection, if its connections have begun to end.
    pub(super) fn ending_backend(&self, handle: ConnId, now: Instant) -> Option<BackendId> {
        if self.ending.is_empty() {
            return None;
        }
        let backend = self.entries.get(&handle)?.backend;
        self.ending.get(&backend).is_some_and(|ending| ending.at <= now).then_some(backend)
    }

    /// What is to happen to a connection whose backend ends.
    pub(super) fn end_action(&self, backend: BackendId, entry: &Entry, now: Instant) -> Option<EndAction> {
        let Ending { mode, at } = *self.ending.get(&backend)?;
        let answered_tcp = entry.original.protocol == TCP && entry.status.contains(Status::SEEN_REPLY);
        match mode {
            EndMode::Removed if answered_tcp && now < at.after(RESET_GRACE) => Some(EndAction::Reset),
            EndMode::Removed => Some(EndAction::Remove),
            EndMode::Down { reset } if answered_tcp => reset.then_some(EndAction::Reset),
            EndMode::Down { .. } => {
                let kept = entry.original.protocol != UDP && entry.status.contains(Status::SEEN_REPLY);
                (!kept).then_some(EndAction::Remove)
            }
        }
    }

    /// Checks up to `budget` connections for backends that end; the next call goes on.
    pub(super) fn next_ending(&mut self, now: Instant, budget: usize) -> Vec<(ConnId, BackendId)> {
        while self.passes.first().is_some_and(|due| *due <= now) {
            self.passes.pop_first();
            // Downwards: what `swap_remove` moves has been checked.
            self.end_cursor = self.entries.len();
        }
        self.end_cursor = self.end_cursor.min(self.entries.len());
        let first = self.end_cursor.saturating_sub(budget);
        let checked = first..self.end_cursor;
        self.end_cursor = first;
        let found = checked.filter_map(|at| self.entries.get_index(at));
        found
            .filter(|(_, known)| self.ending.get(&known.backend).is_some_and(|ending| ending.at <= now))
            .map(|(handle, known)| (*handle, known.backend))
            .collect()
    }

    /// Takes a connection off the list.
    pub(super) fn remove(&mut self, handle: ConnId, tell: impl FnMut(BackendId, ConnectionEvent)) {
        if let Some(known) = self.entries.swap_remove(&handle) {
            known.report_removed(tell);
        }
    }
}

fn is_closed(entry: &Entry) -> bool {
    matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
