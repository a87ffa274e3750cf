//! The router and its state store, as all packet threads share them. Whoever holds the lock has both.
use super::state_store::StateStore;
use keepstate_engine::Instant;
use keepstate_router::Router;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The router, and the file that its table is written to.
pub(super) struct GatewayState {
    pub(super) router: Router,
    pub(super) store: Option<StateStore>,
}

/// [`GatewayState`] behind its lock.
pub(super) struct SharedGateway(Mutex<GatewayState>);

impl SharedGateway {
    pub(super) fn new(router: Router, store: Option<StateStore>) -> SharedGateway {
        SharedGateway(Mutex::new(GatewayState { router, store }))
    }

    /// Held over a batch of packets, never over a wait or a write to an interface.
    pub(super) fn lock(&self) -> MutexGuard<'_, GatewayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> GatewayState {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
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
