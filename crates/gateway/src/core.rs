//! The router, and the file its table is kept in: what all threads that carry packets share. Whoever has it has all of it.
use super::keep::Keep;
use keepstate_engine::Instant;
use keepstate_router::Router;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Both.
pub(super) struct Core {
    pub(super) router: Router,
    pub(super) keep: Option<Keep>,
}

/// For all of them.
pub(super) struct Shared(Mutex<Core>);

impl Shared {
    pub(super) fn new(router: Router, keep: Option<Keep>) -> Shared {
        Shared(Mutex::new(Core { router, keep }))
    }

    /// To be held over a batch of packets, not over a wait or a write to a device.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> Core {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Puts on file what has been done so far, if the table is kept.
    pub(super) fn put_on_file(&mut self, now: Instant) {
        if let Some(keep) = &mut self.keep {
            keep.turn(self.router.engine(), now);
        }
    }
}
