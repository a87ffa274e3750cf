//! How many frames wait to be sent: bounded in number and bytes, one side takes, the other gives back.
use keepstate_cluster::StateFrame;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Frames that were taken and are not yet acknowledged.
const MAX_FRAMES: usize = 1_024;
/// Their bytes.
const MAX_BYTES: usize = 16 << 20;

/// What is in use. Only the caller's side takes, so what it has seen to be free is free.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    frames: AtomicUsize,
    bytes: AtomicUsize,
}

impl Quota {
    /// Takes room for a frame; `false` if there is none.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let frames = self.frames.load(Ordering::Relaxed);
        if frames >= MAX_FRAMES || (frames > 0 && self.bytes.load(Ordering::Relaxed).saturating_add(bytes) > MAX_BYTES)
        {
            return false;
        }
        self.frames.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Gives the room of a frame back.
    pub(crate) fn give_back(&self, bytes: usize) {
        self.frames.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What a frame takes in memory, about.
pub(crate) fn frame_cost(frame: &StateFrame) -> usize {
    /// Its names, numbers and the queue's own.
    const OVERHEAD: usize = 200;
    frame.payload.len().saturating_add(OVERHEAD)
}
