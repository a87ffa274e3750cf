//! What all workers share beside the router: neighbours, the way to the machine itself, and what was lost.
use super::HOST_TUN;
use super::neighbours::{Neighbours, Resolution};
use crate::gso;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::rtnetlink::RtMonitor;
use keepstate_linux::tun::Tun;
use keepstate_wire::gso::GsoPacket;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All of it.
pub(super) struct XdpShared {
    state: Mutex<XdpSharedState>,
    pub(super) drops: TxDrops,
}

pub(super) struct XdpSharedState {
    pub(super) watcher: RtMonitor,
    pub(super) neighbours: Neighbours,
    host: Tun,
}

/// What the driver lost.
#[derive(Default)]
pub(super) struct TxDrops {
    /// No room in a device's queue.
    ring_full: AtomicU64,
    /// A neighbour that did not answer.
    unresolved: AtomicU64,
}

impl TxDrops {
    pub(super) fn add_ring_full(&self, datagrams: u64) {
        self.ring_full.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn add_unresolved(&self, datagrams: u64) {
        self.unresolved.fetch_add(datagrams, Ordering::Relaxed);
    }

    /// For the closing note; empty if there were none.
    pub(super) fn summary(&self) -> String {
        match (self.ring_full.load(Ordering::Relaxed), self.unresolved.load(Ordering::Relaxed)) {
            (0, 0) => String::new(),
            (room, waited) => format!("; {room} found no room in a device's queue, {waited} no neighbour"),
        }
    }
}

impl XdpShared {
    pub(super) fn new(watcher: RtMonitor, neighbours: Neighbours, host: Tun) -> XdpShared {
        XdpShared { state: Mutex::new(XdpSharedState { watcher, neighbours, host }), drops: TxDrops::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, XdpSharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who stands there. If nobody knows yet, the datagram waits for it, in single segments, as there will be few.
    pub(super) fn resolve(
        &self,
        (device, to): (u32, IpAddr),
        bytes: &[u8],
        train: Option<&GsoPacket>,
        now: Instant,
    ) -> Option<[u8; 6]> {
        let mut held = self.lock();
        let XdpSharedState { watcher, neighbours, .. } = &mut *held;
        if let Resolution::Resolved(mac) = neighbours.resolve(device, to, now, watcher) {
            return Some(mac);
        }
        let mut wait = |bytes| {
            if !neighbours.enqueue(device, to, bytes) {
                self.drops.add_unresolved(1);
            }
        };
        match train.filter(|train| bytes.len() > train.max_segment_len()) {
            None => wait(bytes.to_vec()),
            Some(train) => train.segments(bytes).for_each(wait),
        }
        None
    }

    /// To the machine itself, or to a device that is the kernel's: it goes on there, if the kernel forwards.
    ///
    /// # Errors
    /// The way to it is gone.
    pub(super) fn to_kernel(&self, bytes: &mut [u8], train: Option<&GsoPacket>) -> Result<()> {
        let left = gso::tx_offload(train, bytes);
        let written = self.lock().host.write(bytes, left).with_context(|| format!("{HOST_TUN} is gone"))?;
        self.drops.add_ring_full(u64::from(!written));
        Ok(())
    }
}
