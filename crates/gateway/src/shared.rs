//! The router and its state store, as all packet threads share them. Whoever holds the lock has both.
use super::clock::TimeSource;
use super::state_store::StateStore;
use keepstate_engine::Instant;
use keepstate_router::Router;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The router, and the file that its table is written to.
pub(super) struct GatewayState {
    pub(super) router: Router,
    pub(super) store: Option<StateStore>,
}

/// [`GatewayState`] behind its lock, and the clocks.
pub(super) struct SharedGateway {
    state: Mutex<GatewayState>,
    pub(super) time: Arc<dyn TimeSource>,
}

impl SharedGateway {
    pub(super) fn new(router: Router, store: Option<StateStore>, time: Arc<dyn TimeSource>) -> SharedGateway {
        SharedGateway { state: Mutex::new(GatewayState { router, store }), time }
    }

    /// Held over a batch of packets, never over a wait or a write to an interface.
    pub(super) fn lock(&self) -> MutexGuard<'_, GatewayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that packets go by.
    pub(super) fn now(&self) -> Instant {
        self.time.now()
    }

    pub(super) fn into_inner(self) -> GatewayState {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GatewayState {
    /// Writes the changes so far to the state file, if there is one.
    pub(super) fn persist(&mut self, now: Instant) {
        if let Some(store) = &mut self.store {
            store.poll(self.router.engine_mut(), now);
        }
    }
}
