//! The connections of services: how many each backend has, and which are to end with it.
//!
//! A connection is added when it is confirmed, and removed when a sweep finds it gone from the table. Closed TCP connections no longer count before that; if a late
//! segment reopens one, it counts again. Sweeps are bounded, so a backend's count lags by one pass over the list at most.
use super::backend::BackendId;
use indexmap::IndexMap;
use keepstate_engine::{ConnId, Engine, Entry, Instant, ProtocolInfo, Status, TcpState};
use keepstate_wire::keyed_hash::{KeyedSet, SipKey};

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
    /// Connections whose next segment is answered by a reset.
    pending_resets: KeyedSet<ConnId>,
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
            entries: IndexMap::with_hasher(key.derive(0)),
            sweep_cursor: 0,
            pending_resets: key.derive(1).set(),
        }
    }

    /// Adds a confirmed connection. If an earlier one with the same id ended unseen, its end is reported.
    pub(super) fn insert(&mut self, handle: ConnId, backend: BackendId, tell: impl FnMut(BackendId, ConnectionEvent)) {
        self.pending_resets.remove(&handle);
        if let Some(before) = self.entries.insert(handle, ServiceConnection { backend, closed: false }) {
            before.report_removed(tell);
        }
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
        mut tell: impl FnMut(BackendId, ConnectionEvent),
    ) {
        let looks = if thorough { SWEEP_MAX } else { SWEEP_MIN.max(self.entries.len() / 1024) };
        if self.sweep_cursor >= self.entries.len() || thorough && self.entries.len() <= SWEEP_MAX {
            self.sweep_cursor = 0;
        }
        for _ in 0..looks {
            let Some((handle, known)) = self.entries.get_index_mut(self.sweep_cursor) else { break };
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
                self.pending_resets.remove(&handle);
            }
        }
    }

    /// A backend is down: removes its UDP connections and those without a reply, so that their next packet goes to another; with
    /// `reset` its TCP connections are reset at their next segment.
    pub(super) fn end_backend(
        &mut self,
        engine: &mut Engine,
        down: BackendId,
        reset: bool,
        now: Instant,
        mut tell: impl FnMut(BackendId, ConnectionEvent),
    ) {
        let ServiceConnections { entries, pending_resets, .. } = self;
        entries.retain(|handle, known| {
            if known.backend != down {
                return true;
            }
            if let Some(entry) = engine.entry(*handle, now) {
                if entry.original.protocol != UDP && entry.status.contains(Status::SEEN_REPLY) {
                    if reset && entry.original.protocol == TCP {
                        pending_resets.insert(*handle);
                    }
                    return true;
                }
                engine.remove(*handle, now);
            }
            pending_resets.remove(handle);
            known.report_removed(&mut tell);
            false
        });
    }

    /// A backend is up again: its connections are no longer reset.
    pub(super) fn cancel_resets(&mut self, up: BackendId) {
        let ServiceConnections { entries, pending_resets, .. } = self;
        for (handle, _) in entries.iter().filter(|(_, known)| known.backend == up) {
            pending_resets.remove(handle);
        }
    }

    /// Is this connection to be answered by a reset?
    pub(super) fn is_reset_pending(&self, handle: Option<ConnId>) -> bool {
        !self.pending_resets.is_empty() && handle.is_some_and(|handle| self.pending_resets.contains(&handle))
    }
}

fn is_closed(entry: &Entry) -> bool {
    matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
