//! The kernel's neighbour table (address to MAC), and the packets that wait for a neighbour.
//!
//! The kernel resolves neighbours (ARP, neighbour discovery). It only refreshes entries that are used, so it is told which ones we use. Waiting packets are bounded, per neighbour and in total.
use keepstate_engine::Instant;
use keepstate_linux::rtnetlink::{RtMessage, RtNeighbour};
use std::collections::HashMap;
use std::net::IpAddr;

/// Packets that wait for one neighbour.
const MAX_QUEUED_PER_NEIGHBOUR: usize = 16;
/// Packets that wait, in total.
const MAX_QUEUED: usize = 1024;
/// Nanoseconds until the kernel is told again that a neighbour is used, or wanted.
const REFRESH_INTERVAL: u64 = 3_000_000_000;
const RETRY_INTERVAL: u64 = 1_000_000_000;

/// The state of a neighbour.
pub(super) enum Resolution {
    /// Its MAC address.
    Resolved([u8; 6]),
    /// The kernel is resolving it.
    Pending,
}

/// The interface index, and the address.
type NeighbourKey = (u32, IpAddr);

/// One neighbour.
#[derive(Default)]
struct NeighbourEntry {
    mac: Option<[u8; 6]>,
    /// When the kernel was last asked.
    kernel_asked: Option<Instant>,
    queue: Vec<Vec<u8>>,
}

/// All neighbours.
#[derive(Default)]
pub(super) struct Neighbours {
    entries: HashMap<NeighbourKey, NeighbourEntry>,
    queued: usize,
    resolved: Vec<(u32, [u8; 6], Vec<u8>)>,
    failed: Vec<Vec<u8>>,
}

/// The most entries: an attacker may send to every address of a prefix.
const MAX_NEIGHBOURS: usize = 65_536;

impl Neighbours {
    /// Takes over the neighbours of a dump.
    pub(super) fn update_all(&mut self, messages: &[RtMessage]) {
        for message in messages {
            if let RtMessage::Neighbour(neighbour) = message {
                self.update(neighbour);
            }
        }
    }

    /// Takes over a change of one neighbour.
    pub(super) fn update(&mut self, neighbour: &RtNeighbour) {
        let key = (neighbour.ifindex, neighbour.address);
        if neighbour.mac.is_none() && !neighbour.failed {
            // The kernel is resolving it, or has dropped it: so do we, unless packets wait.
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

    /// Takes over the neighbours of a dump, and forgets those that are not in it, except where packets wait.
    pub(super) fn replace_all(&mut self, messages: &[RtMessage]) {
        for known in self.entries.values_mut() {
            known.mac = None;
        }
        self.update_all(messages);
        self.entries.retain(|_, known| known.mac.is_some() || !known.queue.is_empty());
    }

    /// Looks a neighbour up; if it is unknown or has not been used for a while, the kernel is asked.
    pub(super) fn resolve(&mut self, ifindex: u32, address: IpAddr, now: Instant, ask: impl FnOnce()) -> Resolution {
        if self.entries.len() >= MAX_NEIGHBOURS && !self.entries.contains_key(&(ifindex, address)) {
            self.entries.retain(|_, known| known.mac.is_some());
        }
        let known = self.entries.entry((ifindex, address)).or_default();
        let interval = if known.mac.is_some() { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        if known.kernel_asked.is_none_or(|asked| now.0.saturating_sub(asked.0) > interval) {
            known.kernel_asked = Some(now);
            ask();
        }
        known.mac.map_or(Resolution::Pending, Resolution::Resolved)
    }

    /// Queues a packet until its neighbour is known. False if the queue is full and the packet dropped.
    pub(super) fn enqueue(&mut self, ifindex: u32, address: IpAddr, bytes: Vec<u8>) -> bool {
        let known = self.entries.entry((ifindex, address)).or_default();
        if known.queue.len() >= MAX_QUEUED_PER_NEIGHBOUR || self.queued >= MAX_QUEUED {
            return false;
        }
        known.queue.push(bytes);
        self.queued += 1;
        true
    }

    /// Packets whose neighbour is known now: interface index, MAC address, packet.
    pub(super) fn take_resolved(&mut self) -> Vec<(u32, [u8; 6], Vec<u8>)> {
        std::mem::take(&mut self.resolved)
    }

    /// Packets whose neighbour did not answer.
    pub(super) fn take_failed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.failed)
    }
}
