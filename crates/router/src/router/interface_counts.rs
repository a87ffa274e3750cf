//! Packets by interface, as the router counts them: those that a faster data path forwards are added when it reports them.
use std::collections::BTreeMap;

/// Interfaces with a small index are found without a search.
const DIRECT: usize = 256;

/// Packets of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceCounts {
    /// Packets that came in by it.
    pub received: u64,
    /// Their bytes, from the IP header on.
    pub received_bytes: u64,
    /// Packets that left by it.
    pub sent: u64,
    /// Their bytes, from the IP header on.
    pub sent_bytes: u64,
    /// Packets that came in by it and were dropped.
    pub dropped: u64,
}

/// Counts by interface index.
#[derive(Default)]
pub(super) struct InterfaceCountTable {
    direct: Vec<InterfaceCounts>,
    others: BTreeMap<u32, InterfaceCounts>,
}

impl InterfaceCountTable {
    #[inline]
    fn of(&mut self, index: u32) -> &mut InterfaceCounts {
        let at = index as usize;
        if at >= DIRECT {
            return self.others.entry(index).or_default();
        }
        if self.direct.len() <= at {
            self.direct.resize(at + 1, InterfaceCounts::default());
        }
        &mut self.direct[at]
    }

    #[inline]
    pub(super) fn count_received(&mut self, by: Option<u32>, length: usize, is_dropped: bool) {
        let Some(index) = by else { return };
        let counts = self.of(index);
        counts.received += 1;
        counts.received_bytes += length as u64;
        counts.dropped += u64::from(is_dropped);
    }

    #[inline]
    pub(super) fn count_sent(&mut self, by: u32, length: usize) {
        self.add_sent(by, 1, length as u64);
    }

    pub(super) fn add_received(&mut self, by: u32, packets: u64, bytes: u64) {
        let counts = self.of(by);
        counts.received += packets;
        counts.received_bytes += bytes;
    }

    pub(super) fn add_sent(&mut self, by: u32, packets: u64, bytes: u64) {
        let counts = self.of(by);
        counts.sent += packets;
        counts.sent_bytes += bytes;
    }

    pub(super) fn get(&self, index: u32) -> InterfaceCounts {
        let found = self.direct.get(index as usize).or_else(|| self.others.get(&index));
        found.copied().unwrap_or_default()
    }
}
