//! Who stands at an address on a link, by the kernel's own table; and what waits until that is known.
//!
//! The kernel does the asking (ARP, neighbour discovery). It only keeps fresh what somebody uses, so that it is told of what we use. What waits is bounded, for each neighbour and for all.
use super::NeighbourKey;
use keepstate_engine::Instant;
use keepstate_linux::rtnetlink::{RtMessage, RtMonitor, message::RtNeighbour};
use std::collections::HashMap;
use std::net::IpAddr;

/// Datagrams that wait for one neighbour.
const MAX_QUEUED_PER_NEIGHBOUR: usize = 16;
/// Datagrams that wait for any.
const MAX_QUEUED: usize = 1024;
/// Nanoseconds until the kernel is told again that somebody uses a neighbour, or wants one.
const REFRESH_INTERVAL: u64 = 3_000_000_000;
const RETRY_INTERVAL: u64 = 1_000_000_000;

/// What is known of a neighbour.
pub(super) enum Resolution {
    /// Its address on the Ethernet.
    Resolved([u8; 6]),
    /// The kernel is asking.
    Pending,
}

/// One of them.
#[derive(Default)]
struct NeighbourEntry {
    mac: Option<[u8; 6]>,
    /// When the kernel was told last.
    kernel_asked: Option<Instant>,
    queue: Vec<Vec<u8>>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Neighbours {
    entries: HashMap<NeighbourKey, NeighbourEntry>,
    queued: usize,
    resolved: Vec<(u32, [u8; 6], Vec<u8>)>,
    failed: Vec<Vec<u8>>,
}

/// More than this are not remembered: an attacker may name as many as a prefix has addresses.
const MAX_NEIGHBOURS: usize = 65_536;

impl Neighbours {
    /// The neighbours among what the kernel has told.
    pub(super) fn update_all(&mut self, known: &[RtMessage]) {
        for told in known {
            if let RtMessage::Neighbour(neighbour) = told {
                self.update(neighbour);
            }
        }
    }

    /// What the kernel says of one.
    pub(super) fn update(&mut self, neighbour: &RtNeighbour) {
        let key = (neighbour.ifindex, neighbour.address);
        if neighbour.mac.is_none() && !neighbour.failed {
            // The kernel is asking, or has forgotten it: so do we, unless something waits.
            if self.entries.get(&key).is_some_and(|known| known.queue.is_empty()) {
                self.entries.remove(&key);
            }
            return;
        }
        let known = self.entries.entry(key).or_default();
        known.mac = neighbour.mac;
        let waiting = std::mem::take(&mut known.queue);
        self.queued -= waiting.len();
        match neighbour.mac {
            Some(mac) => self.resolved.extend(waiting.into_iter().map(|bytes| (neighbour.ifindex, mac, bytes))),
            None => {
                self.failed.extend(waiting);
                self.entries.remove(&key);
            }
        }
    }

    /// Who stands there; if nobody knows, the kernel is asked.
    pub(super) fn resolve(
        &mut self,
        device: u32,
        address: IpAddr,
        now: Instant,
        watcher: &mut RtMonitor,
    ) -> Resolution {
        if self.entries.len() >= MAX_NEIGHBOURS && !self.entries.contains_key(&(device, address)) {
            self.entries.retain(|_, known| known.mac.is_some());
        }
        let known = self.entries.entry((device, address)).or_default();
        let patience = if known.mac.is_some() { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        if known.kernel_asked.is_none_or(|told| now.0.saturating_sub(told.0) > patience) {
            known.kernel_asked = Some(now);
            // A device that is gone has no neighbours; the news of that is on its way.
            let _ = watcher.resolve_neighbour(device, address);
        }
        known.mac.map_or(Resolution::Pending, Resolution::Resolved)
    }

    /// Keeps a datagram until its neighbour is known. False if there is no room, and it is lost.
    pub(super) fn enqueue(&mut self, device: u32, address: IpAddr, bytes: Vec<u8>) -> bool {
        let known = self.entries.entry((device, address)).or_default();
        if known.queue.len() >= MAX_QUEUED_PER_NEIGHBOUR || self.queued >= MAX_QUEUED {
            return false;
        }
        known.queue.push(bytes);
        self.queued += 1;
        true
    }

    /// What need not wait any longer: device, neighbour, datagram.
    pub(super) fn take_resolved(&mut self) -> Vec<(u32, [u8; 6], Vec<u8>)> {
        std::mem::take(&mut self.resolved)
    }

    /// Datagrams whose neighbour did not answer.
    pub(super) fn take_failed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.failed)
    }
}
