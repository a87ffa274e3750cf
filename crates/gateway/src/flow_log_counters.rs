//! How a log is doing, as its thread and `keepstate control stats` share it.
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one log.
#[derive(Debug)]
pub(crate) struct FlowLogCounters {
    /// Where it goes, as the user wrote it.
    pub(crate) target: String,
    written: AtomicU64,
    lost: AtomicU64,
    failing: AtomicBool,
}

impl FlowLogCounters {
    pub(crate) fn new(target: String) -> FlowLogCounters {
        FlowLogCounters { target, written: AtomicU64::new(0), lost: AtomicU64::new(0), failing: AtomicBool::new(false) }
    }

    /// Records handed to the file or the collector.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Records that are not in the log.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Can it not be written at present?
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(crate) fn add_written(&self, records: u64) {
        self.written.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn add_lost(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }
}
