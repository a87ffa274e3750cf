//! Connections that services have begun: how many each backend has, and which are to end with it.
//!
//! A connection is entered when it is confirmed and leaves when a sweep finds it over: gone from the table, or TCP that is closed. Sweeps are bounded, so that a
//! backend's count is behind by a pass over the list at most.
use super::BackendId;
use indexmap::IndexMap;
use keepstate_engine::{Engine, Handle, Instant, ProtocolInfo, Status, TcpState};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

/// Connections that one sweep looks at, at least; with many, a thousandth of them.
const LOOKS: usize = 256;
/// Connections that the sweep of who wants to know looks at, at most: packets wait meanwhile.
const MOST_LOOKS: usize = 65_536;

/// Handles are the engine's own numbers: nobody from outside chooses what collides here.
type Hashed = BuildHasherDefault<DefaultHasher>;

/// The connections of all services.
#[derive(Debug, Default)]
pub(super) struct Live {
    entries: IndexMap<Handle, BackendId, Hashed>,
    /// Where the next sweep begins.
    next: usize,
    /// Their next segment is answered by a reset.
    condemned: HashSet<Handle, Hashed>,
}

impl Live {
    /// A connection was confirmed. Gives the backend of another that ended unseen and had the same handle.
    pub(super) fn enter(&mut self, handle: Handle, backend: BackendId) -> Option<BackendId> {
        self.condemned.remove(&handle);
        self.entries.insert(handle, backend)
    }

    /// Is it entered?
    pub(super) fn has(&self, handle: Handle) -> bool {
        self.entries.contains_key(&handle)
    }

    /// Looks at the connections that are next (`thorough`: at all, unless they are very many), and tells whose is over.
    pub(super) fn sweep(&mut self, engine: &Engine, thorough: bool, now: Instant, mut over: impl FnMut(BackendId)) {
        let mut looks = if thorough { MOST_LOOKS } else { LOOKS.max(self.entries.len() / 1024) };
        if self.next >= self.entries.len() || thorough && self.entries.len() <= MOST_LOOKS {
            self.next = 0;
        }
        while let Some((handle, backend)) =
            self.entries.get_index(self.next).map(|(handle, backend)| (*handle, *backend))
        {
            if looks == 0 {
                break;
            }
            looks -= 1;
            if is_living(engine, handle, now) {
                self.next += 1;
            } else {
                self.entries.swap_remove_index(self.next);
                self.condemned.remove(&handle);
                over(backend);
            }
        }
    }

    /// A backend is down: connections that cannot go on without it end, so that the next packet finds another. These are UDP, and what was never answered; with
    /// `reset` the rest of TCP is condemned. Gives how many have ended.
    pub(super) fn end(&mut self, engine: &mut Engine, down: BackendId, reset: bool, now: Instant) -> u64 {
        let Live { entries, condemned, .. } = self;
        let before = entries.len();
        entries.retain(|handle, backend| {
            if *backend != down {
                return true;
            }
            let Some(entry) = engine.entry(*handle, now) else { return false };
            if entry.original.protocol == UDP || !entry.status.has(Status::SEEN_REPLY) {
                engine.remove(*handle, now);
                return false;
            }
            if reset && entry.original.protocol == TCP {
                condemned.insert(*handle);
            }
            true
        });
        (before - entries.len()) as u64
    }

    /// A backend is up again: what has not ended may go on.
    pub(super) fn spare(&mut self, up: BackendId) {
        let Live { entries, condemned, .. } = self;
        for (handle, _) in entries.iter().filter(|(_, backend)| **backend == up) {
            condemned.remove(handle);
        }
    }

    /// Is this connection to be answered by a reset?
    pub(super) fn is_condemned(&self, handle: Option<Handle>) -> bool {
        !self.condemned.is_empty() && handle.is_some_and(|handle| self.condemned.contains(&handle))
    }
}

fn is_living(engine: &Engine, handle: Handle, now: Instant) -> bool {
    engine.entry(handle, now).is_some_and(|entry| {
        !matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
    })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
