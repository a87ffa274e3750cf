//! Where ports ran out: per translated address and destination, which Linux never says.
//!
//! A translation that finds no free tuple is counted here and its packet dropped. The list is bounded: what does not fit is counted as others.
use crate::{Instant, Tuple};
use alloc::vec::Vec;
use core::net::IpAddr;
use hashbrown::HashMap;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shortage {
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
pub struct Shortfall {
    /// Connections that found no port.
    pub refused: u64,
    /// When it happened first and last.
    pub first: Instant,
    /// See `first`.
    pub last: Instant,
}

/// Every shortage so far, bounded.
#[derive(Default)]
pub(crate) struct Exhaustion {
    known: HashMap<Shortage, Shortfall>,
    /// Those that were new since somebody last asked.
    fresh: Vec<Shortage>,
    /// Refused for want of a port, all in all.
    pub(crate) refused: u64,
}

/// Shortages told apart.
const MOST: usize = 1024;

impl Exhaustion {
    pub(super) fn note(&mut self, translated: &Tuple, manip: super::Manip, now: Instant) {
        let (address, peer, peer_port) = match manip {
            super::Manip::Source => (translated.source, translated.destination, translated.destination_key),
            super::Manip::Destination => (translated.destination, translated.source, translated.source_key),
        };
        self.refused += 1;
        let shortage = Shortage { address, peer, peer_port, protocol: translated.protocol };
        if let Some(known) = self.known.get_mut(&shortage) {
            known.refused += 1;
            known.last = now;
        } else if self.known.len() < MOST {
            self.known.insert(shortage, Shortfall { refused: 1, first: now, last: now });
            self.fresh.push(shortage);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Shortage, &Shortfall)> {
        self.known.iter()
    }

    pub(super) fn take_fresh(&mut self) -> Option<Shortage> {
        self.fresh.pop()
    }
}
