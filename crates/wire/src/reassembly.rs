//! Reassembly of fragments, within limits of time and memory.
//!
//! A [`Reassembler`] has one queue for each packet of which a fragment has arrived. The first fragment creates the queue, others
//! are added in any order, and it ends in one of four ways: it is complete and becomes a packet, a bad fragment (an overlap, for
//! example) drops it, it times out, or the reassembler is dropped. The caller passes the time; nothing here waits or reads a
//! clock, and it never holds more memory than [`ReassemblyLimits`] allow.
//!
//! It accepts what Linux 6.18 was observed to accept, which differs between IPv4 and IPv6 as noted in the code. One difference
//! is deliberate: memory is counted as it is used here, not as the kernel counts it. Zones and interfaces are not part of the
//! key: use one reassembler for each.
//!
//! Linux drops a bad fragment silently, except for two errors in IPv6, [`ParseError::FragmentLength`] and
//! [`ParseError::FragmentHeaders`]: see [`LinuxAction::PassedUnassembled`](crate::LinuxAction::PassedUnassembled).
//!
//! ```
//! use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
//! use keepstate_wire::{Packet, checksum};
//!
//! // A UDP packet of 16 bytes of payload, in two fragments of 8.
//! let fragment = |offset: u8, more: u8| {
//!     let mut bytes = vec![0x45, 0, 0, 28, 0, 7, more << 5, offset, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
//!     let check = checksum::internet(&bytes);
//!     bytes[10..12].copy_from_slice(&check.to_be_bytes());
//!     bytes.extend([offset; 8]);
//!     bytes
//! };
//! let mut reassembler = Reassembler::new((1, 2), ReassemblyLimits::default()); // In real use: a random secret.
//! let mut out = Vec::new();
//! let last = fragment(1, 0);
//! assert_eq!(reassembler.push(&Packet::parse(&last)?, 0, &mut out)?, Reassembly::Incomplete);
//! let first = fragment(0, 1);
//! assert!(matches!(reassembler.push(&Packet::parse(&first)?, 1_000, &mut out)?, Reassembly::Complete(_)));
//! assert_eq!(Packet::parse_reassembled(&out)?.total_len(), 36);
//! # Ok::<(), keepstate_wire::ParseError>(())
//! ```
mod deadlines;
mod fragment;
mod max_dist;
mod queue;
mod rebuild;
#[cfg(test)]
mod tests;

pub use fragment::FragmentInfo;

use crate::ipv6_ext::{self, SkipMode};
use crate::keyed_hash::{KeyedMap, SipKey};
use crate::{Family, Packet, ParseError, protocol};
use alloc::vec::Vec;
use deadlines::Deadlines;
use fragment::{FragmentKey, FragmentView};
use max_dist::SourceCounters;
use queue::{FragmentQueue, QueueError};

/// The result of an accepted fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reassembly {
    /// The packet is complete and in the buffer. Parse it with [`Packet::parse_reassembled`].
    Complete(FragmentInfo),
    /// More fragments are needed.
    Incomplete,
}

/// Limits of memory and time, as Linux's sysctl variables set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReassemblyLimits {
    /// Memory for the queues of each family, in bytes; above it every fragment is dropped
    /// (`net.ipv4.ipfrag_high_thresh`, `net.netfilter.nf_conntrack_frag6_high_thresh`).
    pub high_thresh: usize,
    /// Timeout of a queue from its first fragment, IPv4, in nanoseconds (`net.ipv4.ipfrag_time`).
    pub timeout_v4: u64,
    /// The same for IPv6, in nanoseconds (`net.netfilter.nf_conntrack_frag6_timeout`).
    pub timeout_v6: u64,
    /// How many other fragments of the same IPv4 source may arrive between two fragments of a packet. After more, the
    /// identification is taken to have wrapped, and the earlier fragments are dropped. 0: no limit (`net.ipv4.ipfrag_max_dist`).
    pub max_dist: u32,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        ReassemblyLimits { high_thresh: 4 << 20, timeout_v4: 30_000_000_000, timeout_v6: 60_000_000_000, max_dist: 64 }
    }
}

/// The queues of both families. See the [module](self) for an example.
#[derive(Debug)]
pub struct Reassembler {
    queues: KeyedMap<FragmentKey, FragmentQueue>,
    v4: FamilyUsage,
    v6: FamilyUsage,
    source_counters: SourceCounters,
    limits: ReassemblyLimits,
    now: u64,
    serial: u64,
}

/// Memory and deadlines of one family.
#[derive(Debug, Default)]
struct FamilyUsage {
    memory: usize,
    deadlines: Deadlines,
}

impl Reassembler {
    /// An empty reassembler. `secret` is the key of its hash table: it must be random, and senders must not learn it.
    pub fn new(secret: (u64, u64), limits: ReassemblyLimits) -> Self {
        let secret = SipKey::new(secret.0, secret.1);
        Reassembler {
            queues: secret.derive(0).map(),
            v4: FamilyUsage::default(),
            v6: FamilyUsage::default(),
            source_counters: SourceCounters::new(secret.derive(1)),
            limits,
            now: 0,
            serial: 0,
        }
    }

    /// Adds one fragment at the time `now`, in nanoseconds of a monotonic clock.
    ///
    /// If its packet is then complete, `out` is replaced by the packet. A packet that is no fragment is complete at once.
    ///
    /// # Errors
    /// What is wrong with the fragment. Whether it drops the fragment alone or the whole queue is as in Linux.
    pub fn push(&mut self, packet: &Packet<'_>, now: u64, out: &mut Vec<u8>) -> Result<Reassembly, ParseError> {
        let Some(fragment) = packet.fragment() else {
            out.clear();
            out.extend_from_slice(packet.bytes());
            return Ok(Reassembly::Complete(FragmentInfo {
                max_size: packet.bytes().len(),
                header_len: packet.transport_at(),
            }));
        };
        if packet.is_snapped() {
            return Err(ParseError::NotCaptured);
        }
        self.poll(now);
        let family = packet.family();
        if family == Family::V6 && fragment.offset == 0 {
            check_first_fragment_headers(packet)?;
        }
        if self.memory(family) > self.limits.high_thresh {
            return Err(ParseError::FragmentMemory);
        }
        let key = FragmentKey::new(packet, &fragment);
        if let FragmentKey::V4 { addresses: [a, b, c, d, ..], .. } = key
            && self.source_counters.count_fragment(
                [a, b, c, d],
                self.queues.get_mut(&key).map(FragmentQueue::rid_mut),
                self.limits.max_dist,
            )
        {
            self.remove_queue(&key);
        }
        let fragment = FragmentView { packet, offset: fragment.offset, more: fragment.more };
        self.add_to_queue(key, &fragment, out)
    }

    fn add_to_queue(
        &mut self,
        key: FragmentKey,
        fragment: &FragmentView<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<Reassembly, ParseError> {
        let family = fragment.packet.family();
        let added = match self.queues.get_mut(&key) {
            Some(queue) => {
                let before = queue.memory();
                let result = queue.add(fragment);
                let after = queue.memory();
                let usage = usage_of(&mut self.v4, &mut self.v6, family);
                usage.memory = usage.memory + after - before;
                result
            }
            None => return self.open_queue(key, fragment, out),
        };
        if matches!(added, Ok(true) | Err(QueueError::DropQueue(_)))
            && let Some(queue) = self.remove_queue(&key)
            && added.is_ok()
        {
            return queue.rebuild(out).map(Reassembly::Complete);
        }
        added.map(|_| Reassembly::Incomplete).map_err(QueueError::reason)
    }

    /// The first fragment of a packet. No queue is created if it completes the packet or is bad.
    fn open_queue(
        &mut self,
        key: FragmentKey,
        fragment: &FragmentView<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<Reassembly, ParseError> {
        let family = fragment.packet.family();
        self.serial = self.serial.wrapping_add(1);
        let mut queue = FragmentQueue::new(family, self.serial);
        match queue.add(fragment) {
            Ok(true) => return queue.rebuild(out).map(Reassembly::Complete),
            Ok(false) => {}
            Err(QueueError::DropQueue(error)) => return Err(error),
            // A fragment without data may have set the end, which is kept.
            Err(QueueError::DropFragment(error)) if queue.is_empty() => return Err(error),
            Err(QueueError::DropFragment(error)) => {
                self.insert_queue(key, queue, family);
                return Err(error);
            }
        }
        self.insert_queue(key, queue, family);
        Ok(Reassembly::Incomplete)
    }

    fn insert_queue(&mut self, key: FragmentKey, mut queue: FragmentQueue, family: Family) {
        let timeout = match family {
            Family::V4 => self.limits.timeout_v4,
            Family::V6 => self.limits.timeout_v6,
        };
        let usage = usage_of(&mut self.v4, &mut self.v6, family);
        usage.memory += queue.memory();
        usage.deadlines.add(self.now.saturating_add(timeout), queue.serial(), key);
        if let FragmentKey::V4 { addresses: [a, b, c, d, ..], .. } = key {
            *queue.rid_mut() = self.source_counters.add_queue([a, b, c, d]);
        }
        self.queues.insert(key, queue);
    }

    fn remove_queue(&mut self, key: &FragmentKey) -> Option<FragmentQueue> {
        let queue = self.queues.remove(key)?;
        if let FragmentKey::V4 { addresses: [a, b, c, d, ..], .. } = *key {
            self.source_counters.remove_queue([a, b, c, d]);
        }
        let usage = usage_of(&mut self.v4, &mut self.v6, key.family());
        usage.memory = usage.memory.saturating_sub(queue.memory());
        let queues = &self.queues;
        usage.deadlines.remove_one(|serial, key| queues.get(key).is_some_and(|queue| queue.serial() == serial));
        Some(queue)
    }

    /// Drops the queues that have timed out at `now`. Returns how many.
    pub fn poll(&mut self, now: u64) -> usize {
        self.now = self.now.max(now);
        let mut dropped = 0;
        for family in [Family::V4, Family::V6] {
            while let Some((serial, key)) = usage_of(&mut self.v4, &mut self.v6, family).deadlines.pop_expired(self.now)
            {
                if self.queues.get(&key).is_some_and(|queue| queue.serial() == serial) {
                    self.remove_queue(&key);
                    dropped += 1;
                }
            }
        }
        dropped
    }

    /// The next time at which [`poll`](Reassembler::poll) has a queue to drop.
    pub fn next_wake(&self) -> Option<u64> {
        match (self.v4.deadlines.next(), self.v6.deadlines.next()) {
            (Some(v4), Some(v6)) => Some(v4.min(v6)),
            (v4, v6) => v4.or(v6),
        }
    }

    /// The number of incomplete packets.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Memory of the incomplete packets of one family, in bytes.
    pub fn memory(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.memory,
            Family::V6 => self.v6.memory,
        }
    }
}

/// Borrows the usage of one family and leaves the rest of the reassembler free.
fn usage_of<'s>(v4: &'s mut FamilyUsage, v6: &'s mut FamilyUsage, family: Family) -> &'s mut FamilyUsage {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// RFC 8200, section 4.5: the first fragment holds all headers up to the transport header.
fn check_first_fragment_headers(packet: &Packet<'_>) -> Result<(), ParseError> {
    let end = match ipv6_ext::skip_exthdrs(
        packet.bytes(),
        packet.transport_at(),
        packet.protocol(),
        SkipMode::ThroughFragments,
    ) {
        Ok(end) => end,
        // All headers are there: Linux queues it.
        Err(ParseError::NoNextHeader) => return Ok(()),
        Err(_) => return Err(ParseError::FragmentHeaders),
    };
    let needed = match end.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 => 8,
        _ => 1,
    };
    let present = packet.bytes().len().saturating_sub(end.transport_at);
    if present < needed { Err(ParseError::FragmentHeaders) } else { Ok(()) }
}
