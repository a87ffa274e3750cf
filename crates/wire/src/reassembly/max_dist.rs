//! How many other fragments of the same IPv4 source arrive between two fragments of a packet (`net.ipv4.ipfrag_max_dist`).
//!
//! The 16-bit identification wraps within a second at today's rates, and a fragment of an old packet would be put into a new
//! one. A source is counter while it has a queue; a queue keeps the count of its last fragment.
use crate::keyed_hash::{KeyedMap, SipKey};

#[derive(Debug)]
pub(super) struct SourceCounters {
    sources: KeyedMap<[u8; 4], SourceCounter>,
}

#[derive(Debug, Default)]
struct SourceCounter {
    /// Fragments so far, modulo 2³²: only differences count.
    fragments: u32,
    queues: usize,
}

impl SourceCounters {
    pub fn new(key: SipKey) -> Self {
        SourceCounters { sources: key.map() }
    }

    /// Counts a fragment of `source`. `rid` is the count kept by its queue, if it has one. True if that queue's last fragment is
    /// more than `max` fragments ago.
    pub fn count_fragment(&mut self, source: [u8; 4], rid: Option<&mut u32>, max: u32) -> bool {
        let Some(counter) = self.sources.get_mut(&source) else { return false };
        counter.fragments = counter.fragments.wrapping_add(1);
        let Some(rid) = rid else { return false };
        let before = core::mem::replace(rid, counter.fragments);
        max != 0 && counter.fragments.wrapping_sub(before) > max
    }

    /// A queue of `source` begins. Returns the count to keep in it.
    pub fn add_queue(&mut self, source: [u8; 4]) -> u32 {
        let counter = self.sources.entry(source).or_default();
        counter.queues += 1;
        counter.fragments
    }

    /// A queue of `source` has ended.
    pub fn remove_queue(&mut self, source: [u8; 4]) {
        if let Some(counter) = self.sources.get_mut(&source) {
            counter.queues = counter.queues.saturating_sub(1);
            if counter.queues == 0 {
                self.sources.remove(&source);
            }
        }
    }
}
