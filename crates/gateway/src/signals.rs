//! The signals of a running gateway, as flags: SIGINT and SIGTERM end it, SIGHUP has it read its files again.
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by the signals that have come.
pub(super) struct SignalFlags {
    /// Every thread of the loop ends once this is set.
    pub(super) stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl SignalFlags {
    /// Without handlers.
    #[cfg(test)]
    pub(super) fn none() -> SignalFlags {
        SignalFlags { stop: Arc::default(), reload: Arc::default() }
    }

    /// As SIGHUP does.
    #[cfg(test)]
    pub(super) fn request_reload(&self) {
        self.reload.store(true, Ordering::Relaxed);
    }

    /// Installs the handlers, for the life of the process.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn install() -> io::Result<SignalFlags> {
        let flags = SignalFlags { stop: Arc::default(), reload: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, flags.stop.clone())?;
        }
        flag::register(SIGHUP, flags.reload.clone())?;
        Ok(flags)
    }

    /// True once for each SIGHUP (those that come together count as one).
    pub(super) fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
