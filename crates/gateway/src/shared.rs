//! The router, and the file its table is kept in: what all threads that carry packets share. Whoever has it has all of it.
use super::state_store::StateStore;
use keepstate_engine::Instant;
use keepstate_router::Router;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Both.
pub(super) struct GatewayState {
    pub(super) router: Router,
    pub(super) store: Option<StateStore>,
}

/// For all of them.
pub(super) struct SharedGateway(Mutex<GatewayState>);

impl SharedGateway {
    pub(super) fn new(router: Router, keep: Option<StateStore>) -> SharedGateway {
        SharedGateway(Mutex::new(GatewayState { router, store: keep }))
    }

    /// To be held over a batch of packets, not over a wait or a write to a device.
    pub(super) fn lock(&self) -> MutexGuard<'_, GatewayState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> GatewayState {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GatewayState {
    /// Puts on file what has been done so far, if the table is kept.
    pub(super) fn persist(&mut self, now: Instant) {
        if let Some(keep) = &mut self.store {
            keep.poll(self.router.engine_mut(), now);
        }
    }
}
