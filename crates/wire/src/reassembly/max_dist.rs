//! How far apart the pieces of an IPv4 datagram came, in fragments of the same source.
//!
//! Sixteen bits of identification come round within a second at today's rates, and a piece of an old datagram would be
//! put into a new one. A source is counted while it has a queue; a queue remembers the count at its last piece.
use super::SipKey;
use hashbrown::HashMap;

#[derive(Debug)]
pub(super) struct SourceCounters {
    sources: HashMap<[u8; 4], SourceCounter, SipKey>,
}

#[derive(Debug, Default)]
struct SourceCounter {
    /// Fragments so far; only differences mean something.
    fragments: u32,
    queues: usize,
}

impl SourceCounters {
    pub fn new(secret: (u64, u64)) -> Self {
        SourceCounters { sources: HashMap::with_hasher(SipKey(secret.0, secret.1)) }
    }

    /// Counts a fragment of `source`. `mark` is that of its queue, if there is one: true if that queue's last piece is too far behind.
    pub fn count_fragment(&mut self, source: [u8; 4], mark: Option<&mut u32>, max: u32) -> bool {
        let Some(counted) = self.sources.get_mut(&source) else { return false };
        counted.fragments = counted.fragments.wrapping_add(1);
        let Some(mark) = mark else { return false };
        let before = core::mem::replace(mark, counted.fragments);
        max != 0 && counted.fragments.wrapping_sub(before) > max
    }

    /// A queue of `source` begins: its mark.
    pub fn add_queue(&mut self, source: [u8; 4]) -> u32 {
        let counted = self.sources.entry(source).or_default();
        counted.queues += 1;
        counted.fragments
    }

    /// A queue of `source` has ended.
    pub fn remove_queue(&mut self, source: [u8; 4]) {
        if let Some(counted) = self.sources.get_mut(&source) {
            counted.queues = counted.queues.saturating_sub(1);
            if counted.queues == 0 {
                self.sources.remove(&source);
            }
        }
    }
}
