//! What all workers share beside the router: neighbours, the way to the machine itself, and what was lost.
use super::HOST;
use super::neighbours::{Found, Neighbours};
use crate::train;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::route::Watcher;
use keepstate_linux::tun::Tun;
use keepstate_wire::segment::Train;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// All of it.
pub(super) struct Around {
    held: Mutex<Held>,
    pub(super) losses: Losses,
}

pub(super) struct Held {
    pub(super) watcher: Watcher,
    pub(super) neighbours: Neighbours,
    host: Tun,
}

/// What the driver lost.
#[derive(Default)]
pub(super) struct Losses {
    /// No room in a device's queue.
    room: AtomicU64,
    /// A neighbour that did not answer.
    neighbour: AtomicU64,
}

impl Losses {
    pub(super) fn no_room(&self, datagrams: u64) {
        self.room.fetch_add(datagrams, Ordering::Relaxed);
    }

    pub(super) fn no_neighbour(&self, datagrams: u64) {
        self.neighbour.fetch_add(datagrams, Ordering::Relaxed);
    }

    /// For the closing note; empty if there were none.
    pub(super) fn account(&self) -> String {
        match (self.room.load(Ordering::Relaxed), self.neighbour.load(Ordering::Relaxed)) {
            (0, 0) => String::new(),
            (room, waited) => format!("; {room} found no room in a device's queue, {waited} no neighbour"),
        }
    }
}

impl Around {
    pub(super) fn new(watcher: Watcher, neighbours: Neighbours, host: Tun) -> Around {
        Around { held: Mutex::new(Held { watcher, neighbours, host }), losses: Losses::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who stands there. If nobody knows yet, the datagram waits for it, in single segments, as there will be few.
    pub(super) fn find(
        &self,
        (device, to): (u32, IpAddr),
        bytes: &[u8],
        train: Option<&Train>,
        now: Instant,
    ) -> Option<[u8; 6]> {
        let mut held = self.lock();
        let Held { watcher, neighbours, .. } = &mut *held;
        if let Found::At(mac) = neighbours.find(device, to, now, watcher) {
            return Some(mac);
        }
        let mut wait = |bytes| {
            if !neighbours.wait(device, to, bytes) {
                self.losses.no_neighbour(1);
            }
        };
        match train.filter(|train| bytes.len() > train.longest()) {
            None => wait(bytes.to_vec()),
            Some(train) => train.segments(bytes).for_each(wait),
        }
        None
    }

    /// To the machine itself, or to a device that is the kernel's: it goes on there, if the kernel forwards.
    ///
    /// # Errors
    /// The way to it is gone.
    pub(super) fn hand_over(&self, bytes: &mut [u8], train: Option<&Train>) -> Result<()> {
        let left = train::offload(train, bytes);
        let written = self.lock().host.write(bytes, left).with_context(|| format!("{HOST} is gone"))?;
        self.losses.no_room(u64::from(!written));
        Ok(())
    }
}
