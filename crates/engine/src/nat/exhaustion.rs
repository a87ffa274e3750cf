//! Statistics of port exhaustion, per translated address and destination. Linux has no such statistics.
//!
//! A translation that finds no free tuple is counted here and its packet is dropped. The list is bounded: what does not fit is counted as other.
use crate::{Instant, Tuple};
use alloc::vec::Vec;
use core::net::IpAddr;
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};

/// The address, peer and protocol whose ports ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExhaustionKey {
    /// The address that a source was to be translated to, or the translated destination.
    pub address: IpAddr,
    /// The other end: its address …
    pub peer: IpAddr,
    /// … and port. Ports are exhausted per peer: one port can serve connections to many peers.
    pub peer_port: u16,
    /// The transport protocol.
    pub protocol: u8,
}

/// How often the ports ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExhaustionStats {
    /// Number of connections that found no port.
    pub failures: u64,
    /// Time of the first and the last failure.
    pub first: Instant,
    /// See `first`.
    pub last: Instant,
}

/// All shortages so far, bounded.
#[derive(Clone)]
pub(crate) struct Exhaustion {
    by_key: KeyedMap<ExhaustionKey, ExhaustionStats>,
    /// Shortages that were not reported yet.
    unreported: Vec<ExhaustionKey>,
    /// Total number of connections dropped for lack of a port.
    pub(crate) failures: u64,
}

/// Maximum number of distinct keys.
const MAX_KEYS: usize = 1024;

impl Exhaustion {
    pub(super) fn new(key: SipKey) -> Exhaustion {
        Exhaustion { by_key: key.map(), unreported: Vec::new(), failures: 0 }
    }

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
