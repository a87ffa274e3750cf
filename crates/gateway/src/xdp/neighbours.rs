//! Who stands at an address on a link, by the kernel's own table; and what waits until that is known.
//!
//! The kernel does the asking (ARP, neighbour discovery). It only keeps fresh what somebody uses, so that it is told of what we use. What waits is bounded, for each neighbour and for all.
use super::Key;
use keepstate_engine::Instant;
use keepstate_linux::route::{Told, Watcher, message::Neighbour};
use std::collections::HashMap;
use std::net::IpAddr;

/// Datagrams that wait for one neighbour.
const EACH: usize = 16;
/// Datagrams that wait for any.
const ALL: usize = 1024;
/// Nanoseconds until the kernel is told again that somebody uses a neighbour, or wants one.
const AGAIN: u64 = 3_000_000_000;
const AGAIN_UNKNOWN: u64 = 1_000_000_000;

/// What is known of a neighbour.
pub(super) enum Found {
    /// Its address on the Ethernet.
    At([u8; 6]),
    /// The kernel is asking.
    NotYet,
}

/// One of them.
#[derive(Default)]
struct Known {
    mac: Option<[u8; 6]>,
    /// When the kernel was told last.
    told: Option<Instant>,
    waiting: Vec<Vec<u8>>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Neighbours {
    known: HashMap<Key, Known>,
    waiting: usize,
    ready: Vec<(u32, [u8; 6], Vec<u8>)>,
    failed: Vec<Vec<u8>>,
}

/// More than this are not remembered: an attacker may name as many as a prefix has addresses.
const MOST: usize = 65_536;

impl Neighbours {
    /// The neighbours among what the kernel has told.
    pub(super) fn learn_all(&mut self, known: &[Told]) {
        for told in known {
            if let Told::Neighbour(neighbour) = told {
                self.learn(neighbour);
            }
        }
    }

    /// What the kernel says of one.
    pub(super) fn learn(&mut self, neighbour: &Neighbour) {
        let key = (neighbour.device, neighbour.address);
        if neighbour.mac.is_none() && !neighbour.failed {
            // The kernel is asking, or has forgotten it: so do we, unless something waits.
            if self.known.get(&key).is_some_and(|known| known.waiting.is_empty()) {
                self.known.remove(&key);
            }
            return;
        }
        let known = self.known.entry(key).or_default();
        known.mac = neighbour.mac;
        let waiting = std::mem::take(&mut known.waiting);
        self.waiting -= waiting.len();
        match neighbour.mac {
            Some(mac) => self.ready.extend(waiting.into_iter().map(|bytes| (neighbour.device, mac, bytes))),
            None => {
                self.failed.extend(waiting);
                self.known.remove(&key);
            }
        }
    }

    /// Who stands there; if nobody knows, the kernel is asked.
    pub(super) fn find(&mut self, device: u32, address: IpAddr, now: Instant, watcher: &mut Watcher) -> Found {
        if self.known.len() >= MOST && !self.known.contains_key(&(device, address)) {
            self.known.retain(|_, known| known.mac.is_some());
        }
        let known = self.known.entry((device, address)).or_default();
        let patience = if known.mac.is_some() { AGAIN } else { AGAIN_UNKNOWN };
        if known.told.is_none_or(|told| now.0.saturating_sub(told.0) > patience) {
            known.told = Some(now);
            // A device that is gone has no neighbours; the news of that is on its way.
            let _ = watcher.find(device, address);
        }
        known.mac.map_or(Found::NotYet, Found::At)
    }

    /// Keeps a datagram until its neighbour is known. False if there is no room, and it is lost.
    pub(super) fn wait(&mut self, device: u32, address: IpAddr, bytes: Vec<u8>) -> bool {
        let known = self.known.entry((device, address)).or_default();
        if known.waiting.len() >= EACH || self.waiting >= ALL {
            return false;
        }
        known.waiting.push(bytes);
        self.waiting += 1;
        true
    }

    /// What need not wait any longer: device, neighbour, datagram.
    pub(super) fn released(&mut self) -> Vec<(u32, [u8; 6], Vec<u8>)> {
        std::mem::take(&mut self.ready)
    }

    /// Datagrams whose neighbour did not answer.
    pub(super) fn failed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.failed)
    }
}
