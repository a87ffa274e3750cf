//! Where ports ran out: per translated address and destination, which Linux never says.
//!
//! A translation that finds no free tuple is counted here and its packet dropped. The list is bounded: what does not fit is counted as others.
use crate::{Instant, Tuple};
use alloc::vec::Vec;
use core::net::IpAddr;
use hashbrown::HashMap;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExhaustionKey {
    /// The address that a source was to be translated to, or the translated destination.
    pub address: IpAddr,
    /// The other end: its address …
    pub peer: IpAddr,
    /// … and port. Ports are used up per peer: the same one serves connections to many.
    pub peer_port: u16,
    /// The transport protocol.
    pub protocol: u8,
}

/// How often it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExhaustionStats {
    /// Connections that found no port.
    pub failures: u64,
    /// When it happened first and last.
    pub first: Instant,
    /// See `first`.
    pub last: Instant,
}

/// Every shortage so far, bounded.
#[derive(Default)]
pub(crate) struct Exhaustion {
    by_key: HashMap<ExhaustionKey, ExhaustionStats>,
    /// Those that were new since somebody last asked.
    unreported: Vec<ExhaustionKey>,
    /// Refused for want of a port, all in all.
    pub(crate) failures: u64,
}

/// Shortages told apart.
const MAX_KEYS: usize = 1024;

impl Exhaustion {
    pub(super) fn record(&mut self, translated: &Tuple, manip: super::range::Manip, now: Instant) {
        let (address, peer, peer_port) = match manip {
            super::range::Manip::Source => (translated.source, translated.destination, translated.destination_key),
            super::range::Manip::Destination => (translated.destination, translated.source, translated.source_key),
        };
        self.failures += 1;
        let shortage = ExhaustionKey { address, peer, peer_port, protocol: translated.protocol };
        if let Some(known) = self.by_key.get_mut(&shortage) {
            known.failures += 1;
            known.last = now;
        } else if self.by_key.len() < MAX_KEYS {
            self.by_key.insert(shortage, ExhaustionStats { failures: 1, first: now, last: now });
            self.unreported.push(shortage);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ExhaustionKey, &ExhaustionStats)> {
        self.by_key.iter()
    }

    pub(super) fn pop_unreported(&mut self) -> Option<ExhaustionKey> {
        self.unreported.pop()
    }
}
