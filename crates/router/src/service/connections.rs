//! Connections that services have begun: how many each backend has, and which are to end with it.
//!
//! A connection is entered when it is confirmed, and leaves when a sweep finds it gone from the table. TCP that is closed is over before that, and counts no more; should
//! a late segment revive it, it counts again. Sweeps are bounded, so that a backend's count is behind by a pass over the list at most.
use super::backend::BackendId;
use indexmap::IndexMap;
use keepstate_engine::{ConnId, Engine, Entry, Instant, ProtocolInfo, Status, TcpState};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// Connections that one sweep looks at, at least; with many, a thousandth of them.
const SWEEP_MIN: usize = 256;
/// Connections that the sweep of who wants to know looks at, at most: packets wait meanwhile.
const SWEEP_MAX: usize = 65_536;

/// Handles are the engine's own numbers: nobody from outside chooses what collides here.
type HandleHasher = BuildHasherDefault<DefaultHasher>;

/// The connections of all services.
#[derive(Debug, Default)]
pub(super) struct ServiceConnections {
    entries: IndexMap<ConnId, ServiceConnection, HandleHasher>,
    /// Where the next sweep begins.
    sweep_cursor: usize,
    /// Their next segment is answered by a reset.
    pending_resets: HashSet<ConnId, HandleHasher>,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct ServiceConnection {
    backend: BackendId,
    /// It was over when it was last looked at.
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

/// What is found of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
    /// It is over.
    Closed,
    /// It was over, and is no more.
    Reopened,
    /// It has left the table.
    Removed,
}

impl ServiceConnections {
    /// A connection was confirmed. If another ended unseen that had the same handle, that is told.
    pub(super) fn insert(&mut self, handle: ConnId, backend: BackendId, tell: impl FnMut(BackendId, ConnectionEvent)) {
        self.pending_resets.remove(&handle);
        if let Some(before) = self.entries.insert(handle, ServiceConnection { backend, closed: false }) {
            before.report_removed(tell);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Is it entered?
    pub(super) fn contains(&self, handle: ConnId) -> bool {
        self.entries.contains_key(&handle)
    }

    /// Looks at the connections that are next (`thorough`: at all, unless they are very many), and tells what has changed.
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

    /// A backend is down: connections that cannot go on without it end, so that the next packet finds another. These are UDP, and what was never answered; with
    /// `reset` the rest of TCP is condemned.
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

    /// A backend is up again: what has not ended may go on.
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
