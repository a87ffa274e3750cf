//! The router and its state store, as the thread that routes packets shares them with others. Whoever holds the lock has both.
//!
//! Packets wait while it is held, so a holder does a bounded piece of work and no system call that may wait: in a debug build one is a panic
//! ([`no_blocking`]). Each hold is a turn; the longest of each kind is kept and shown by `keepstate control stats`.
use super::clock::TimeSource;
use super::state_store::StateStore;
use super::turns::{TurnKind, TurnTimes};
use keepstate_engine::Instant;
use keepstate_linux::no_blocking::{self, NoBlocking};
use keepstate_router::Router;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant as Clock;

/// The router, and the file that its table is written to.
pub(super) struct GatewayState {
    pub(super) router: Router,
    pub(super) store: Option<StateStore>,
}

/// Turns in a row that changes are handed to the state file in; what is left waits until packets had theirs.
const MAX_STATE_TURNS: usize = 8;

/// [`GatewayState`] behind its lock, and the clocks.
pub(super) struct SharedGateway {
    state: Mutex<GatewayState>,
    has_store: bool,
    /// The generation of flows that the driver goes by.
    flows_synced: AtomicU64,
    pub(super) time: Arc<dyn TimeSource>,
    pub(super) turns: TurnTimes,
}

/// The lock, held for one turn.
pub(super) struct RouterTurn<'a> {
    state: MutexGuard<'a, GatewayState>,
    kind: TurnKind,
    began: Clock,
    turns: &'a TurnTimes,
    _no_blocking: NoBlocking,
}

impl SharedGateway {
    pub(super) fn new(router: Router, store: Option<StateStore>, time: Arc<dyn TimeSource>) -> SharedGateway {
        let has_store = store.is_some();
        SharedGateway {
            state: Mutex::new(GatewayState { router, store }),
            has_store,
            flows_synced: AtomicU64::new(0),
            time,
            turns: TurnTimes::default(),
        }
    }

    /// Held over a bounded piece of work, never over a wait or a system call that may wait.
    pub(super) fn lock(&self, kind: TurnKind) -> RouterTurn<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        RouterTurn { state, kind, began: Clock::now(), turns: &self.turns, _no_blocking: no_blocking::forbid() }
    }

    /// Is the table written to a file?
    pub(super) fn has_store(&self) -> bool {
        self.has_store
    }

    /// The driver forwards no packet any more by what it knew before this generation of flows.
    pub(super) fn note_flows_synced(&self, generation: u64) {
        self.flows_synced.store(generation, Ordering::Release);
    }

    /// The generation of flows ([`Router::flow_generation`]) that the driver goes by; it never falls.
    pub(super) fn flows_synced(&self) -> u64 {
        self.flows_synced.load(Ordering::Acquire)
    }

    /// Hands the changes so far to the state file, if there is one; in several turns if they are many.
    pub(super) fn persist(&self) {
        if !self.has_store {
            return;
        }
        for _ in 0..MAX_STATE_TURNS {
            let now = self.now();
            let mut turn = self.lock(TurnKind::State);
            let GatewayState { router, store } = &mut *turn;
            let more = store.as_mut().is_some_and(|store| store.poll(router.engine_mut(), now));
            self.turns.note_state_file(store.as_ref().is_some_and(StateStore::is_suspended));
            if !more {
                break;
            }
        }
    }

    /// The time that packets go by.
    pub(super) fn now(&self) -> Instant {
        self.time.now()
    }

    pub(super) fn into_inner(self) -> GatewayState {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for RouterTurn<'_> {
    type Target = GatewayState;

    fn deref(&self) -> &GatewayState {
        &self.state
    }
}

impl DerefMut for RouterTurn<'_> {
    fn deref_mut(&mut self) -> &mut GatewayState {
        &mut self.state
    }
}

impl Drop for RouterTurn<'_> {
    fn drop(&mut self) {
        self.turns.record(self.kind, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemTimeSource;
    use keepstate_engine::{Engine, Secret, Sysctls};
    use keepstate_linux::poll::poll_readable;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_system_call_under_the_routers_lock_is_found_and_each_turn_is_measured() {
        let engine = Engine::new(Sysctls::default(), Secret([7; 16]));
        let router = Router::new(engine, Default::default(), Default::default(), (1, 2));
        let gateway = SharedGateway::new(router, None, Arc::new(SystemTimeSource));
        let (socket, _peer) = UnixStream::pair().unwrap();
        let turn = gateway.lock(TurnKind::Packets);
        let waited = std::panic::catch_unwind(|| poll_readable([socket.as_fd()], 0));
        assert!(waited.is_err(), "it was called while packets of all threads wait");
        drop(turn);
        assert_eq!(poll_readable([socket.as_fd()], 0).unwrap(), 0);
        let measured = gateway.turns.values();
        assert!(measured.iter().any(|(name, value)| *name == "longest_packets_us" && *value > 0), "{measured:?}");
    }
}
