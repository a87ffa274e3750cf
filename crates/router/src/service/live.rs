//! Connections that services have begun: how many each backend has, and which are to end with it.
//!
//! A connection is entered when it is confirmed, and leaves when a sweep finds it gone from the table. TCP that is closed is over before that, and counts no more; should
//! a late segment revive it, it counts again. Sweeps are bounded, so that a backend's count is behind by a pass over the list at most.
use super::BackendId;
use indexmap::IndexMap;
use keepstate_engine::{Engine, Entry, Handle, Instant, ProtocolInfo, Status, TcpState};
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
    entries: IndexMap<Handle, Known, Hashed>,
    /// Where the next sweep begins.
    next: usize,
    /// Their next segment is answered by a reset.
    condemned: HashSet<Handle, Hashed>,
}

/// One connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    backend: BackendId,
    /// It was over when it was last looked at.
    is_over: bool,
}

impl Known {
    fn leave(self, mut tell: impl FnMut(BackendId, Found)) {
        if !self.is_over {
            tell(self.backend, Found::Over);
        }
        tell(self.backend, Found::Gone);
    }
}

/// What is found of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is over.
    Over,
    /// It was over, and is no more.
    Revived,
    /// It has left the table.
    Gone,
}

impl Live {
    /// A connection was confirmed. If another ended unseen that had the same handle, that is told.
    pub(super) fn enter(&mut self, handle: Handle, backend: BackendId, tell: impl FnMut(BackendId, Found)) {
        self.condemned.remove(&handle);
        if let Some(before) = self.entries.insert(handle, Known { backend, is_over: false }) {
            before.leave(tell);
        }
    }

    /// Is it entered?
    pub(super) fn has(&self, handle: Handle) -> bool {
        self.entries.contains_key(&handle)
    }

    /// Looks at the connections that are next (`thorough`: at all, unless they are very many), and tells what has changed.
    pub(super) fn sweep(
        &mut self,
        engine: &Engine,
        thorough: bool,
        now: Instant,
        mut tell: impl FnMut(BackendId, Found),
    ) {
        let looks = if thorough { MOST_LOOKS } else { LOOKS.max(self.entries.len() / 1024) };
        if self.next >= self.entries.len() || thorough && self.entries.len() <= MOST_LOOKS {
            self.next = 0;
        }
        for _ in 0..looks {
            let Some((handle, known)) = self.entries.get_index_mut(self.next) else { break };
            let handle = *handle;
            let entry = engine.entry(handle, now);
            let was_over = known.is_over;
            known.is_over = entry.is_none_or(|entry| is_closed(&entry));
            match (was_over, known.is_over) {
                (false, true) => tell(known.backend, Found::Over),
                (true, false) => tell(known.backend, Found::Revived),
                _ => (),
            }
            if entry.is_some() {
                self.next += 1;
            } else {
                tell(known.backend, Found::Gone);
                self.entries.swap_remove_index(self.next);
                self.condemned.remove(&handle);
            }
        }
    }

    /// A backend is down: connections that cannot go on without it end, so that the next packet finds another. These are UDP, and what was never answered; with
    /// `reset` the rest of TCP is condemned.
    pub(super) fn end(
        &mut self,
        engine: &mut Engine,
        down: BackendId,
        reset: bool,
        now: Instant,
        mut tell: impl FnMut(BackendId, Found),
    ) {
        let Live { entries, condemned, .. } = self;
        entries.retain(|handle, known| {
            if known.backend != down {
                return true;
            }
            if let Some(entry) = engine.entry(*handle, now) {
                if entry.original.protocol != UDP && entry.status.has(Status::SEEN_REPLY) {
                    if reset && entry.original.protocol == TCP {
                        condemned.insert(*handle);
                    }
                    return true;
                }
                engine.remove(*handle, now);
            }
            condemned.remove(handle);
            known.leave(&mut tell);
            false
        });
    }

    /// A backend is up again: what has not ended may go on.
    pub(super) fn spare(&mut self, up: BackendId) {
        let Live { entries, condemned, .. } = self;
        for (handle, _) in entries.iter().filter(|(_, known)| known.backend == up) {
            condemned.remove(handle);
        }
    }

    /// Is this connection to be answered by a reset?
    pub(super) fn is_condemned(&self, handle: Option<Handle>) -> bool {
        !self.condemned.is_empty() && handle.is_some_and(|handle| self.condemned.contains(&handle))
    }
}

fn is_closed(entry: &Entry) -> bool {
    matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::TimeWait | TcpState::Close, .. })
}

const TCP: u8 = 6;
const UDP: u8 = 17;
