//! Fragments to datagrams, within limits of time and memory.
//!
//! A [`Reassembler`] holds one queue for each datagram of which some piece has come. A queue is made by the first piece,
//! grows by the others in any order, and ends in one of four ways: it is complete and becomes a datagram, a piece breaks
//! it (an overlap, for one), its time is over, or the reassembler is dropped. The clock is the caller's; nothing here
//! waits, and no more memory is held than [`Limits`] allow.
//!
//! What is accepted is what Linux 6.18 was seen to accept, which differs between IPv4 and IPv6 as noted in the code. One
//! thing is not imitated: the kernel's way of counting memory (here each piece is counted by the memory it takes here).
//! Zones and interfaces are not part of the key: keep one reassembler for each.
//!
//! Linux drops a refused fragment silently, with two exceptions in IPv6 that go on as they are, [`ParseError::FragmentLength`]
//! and [`ParseError::FragmentHeaders`]: see [`Fate::Passed`](crate::Fate::Passed).
mod deadlines;
mod max_dist;
mod queue;
mod rebuild;
#[cfg(test)]
mod tests;

use crate::ipv6_ext::{self, SkipMode};
use crate::packet::protocol;
use crate::{Addresses, Family, FragmentHeader, Packet, ParseError};
use alloc::vec::Vec;
use core::hash::BuildHasher;
use deadlines::Deadlines;
use hashbrown::HashMap;
use max_dist::SourceCounters;
use queue::{FragmentQueue, FragmentView, QueueError};
use siphasher::sip::SipHasher13;

/// What became of a fragment that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassembly {
    /// The datagram is whole: the buffer holds it. Read it with [`Packet::parse_reassembled`].
    Complete(FragmentInfo),
    /// More fragments are needed.
    Incomplete,
}

/// What a datagram came in as. Whoever cuts it again makes no piece longer than those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Octets of the longest piece, with its headers.
    pub max_size: usize,
    /// Octets of the headers that every piece has: IPv4's header with its options, or IPv6's with the extensions before the fragment header.
    pub header_len: usize,
}

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReassemblyLimits {
    /// Octets of memory for the queues of each family; above it every fragment is refused
    /// (`net.ipv4.ipfrag_high_thresh`, `net.netfilter.nf_conntrack_frag6_high_thresh`).
    pub high_thresh: usize,
    /// Nanoseconds from a queue's first fragment to its end, IPv4 (`net.ipv4.ipfrag_time`).
    pub timeout_v4: u64,
    /// The same for IPv6 (`net.netfilter.nf_conntrack_frag6_timeout`).
    pub timeout_v6: u64,
    /// How many other fragments of the same IPv4 source may come between two pieces of a datagram. After more, its
    /// identification is taken to have come round, and the earlier pieces are dropped. 0: any number (`net.ipv4.ipfrag_max_dist`).
    pub max_dist: u32,
}

impl Default for ReassemblyLimits {
    fn default() -> Self {
        ReassemblyLimits { high_thresh: 4 << 20, timeout_v4: 30_000_000_000, timeout_v6: 60_000_000_000, max_dist: 64 }
    }
}

/// The queues of both families.
#[derive(Debug)]
pub struct Reassembler {
    queues: HashMap<FragmentKey, FragmentQueue, SipKey>,
    v4: FamilyUsage,
    v6: FamilyUsage,
    source_counters: SourceCounters,
    limits: ReassemblyLimits,
    now: u64,
    serial: u64,
}

/// What one family uses of its limits.
#[derive(Debug, Default)]
struct FamilyUsage {
    memory: usize,
    deadlines: Deadlines,
}

impl Reassembler {
    /// An empty reassembler. `secret` keys the hash of its table: it must be random and must not be shown to senders.
    pub fn new(secret: (u64, u64), limits: ReassemblyLimits) -> Self {
        Reassembler {
            queues: HashMap::with_hasher(SipKey(secret.0, secret.1)),
            v4: FamilyUsage::default(),
            v6: FamilyUsage::default(),
            source_counters: SourceCounters::new(secret),
            limits,
            now: 0,
            serial: 0,
        }
    }

    /// Takes one fragment at the time `now`, in nanoseconds of a clock that does not go back.
    ///
    /// When that makes its datagram whole, `out` is cleared and filled with the datagram. A packet that is no fragment is
    /// whole at once. A refusal names what is wrong; whether the fragment alone or all of its queue is lost is as in Linux.
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
        let piece = FragmentView { packet, offset: fragment.offset, more: fragment.more };
        self.add_to_queue(key, &piece, out)
    }

    fn add_to_queue(
        &mut self,
        key: FragmentKey,
        piece: &FragmentView<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<Reassembly, ParseError> {
        let family = piece.packet.family();
        let added = match self.queues.get_mut(&key) {
            Some(queue) => {
                let before = queue.memory();
                let result = queue.add(piece);
                let after = queue.memory();
                let share = usage_of(&mut self.v4, &mut self.v6, family);
                share.memory = share.memory + after - before;
                result
            }
            None => return self.open_queue(key, piece, out),
        };
        if matches!(added, Ok(true) | Err(QueueError::DropQueue(_)))
            && let Some(queue) = self.remove_queue(&key)
            && added.is_ok()
        {
            return queue.rebuild(out).map(Reassembly::Complete);
        }
        added.map(|_| Reassembly::Incomplete).map_err(QueueError::reason)
    }

    /// The first piece of a datagram. Nothing is kept when it is the only one or when it is refused.
    fn open_queue(
        &mut self,
        key: FragmentKey,
        piece: &FragmentView<'_, '_>,
        out: &mut Vec<u8>,
    ) -> Result<Reassembly, ParseError> {
        let family = piece.packet.family();
        self.serial = self.serial.wrapping_add(1);
        let mut queue = FragmentQueue::new(family, self.serial);
        match queue.add(piece) {
            Ok(true) => return queue.rebuild(out).map(Reassembly::Complete),
            Ok(false) => {}
            Err(QueueError::DropQueue(refusal)) => return Err(refusal),
            // A piece without data may have told where the end is, and that is remembered.
            Err(QueueError::DropFragment(refusal)) if queue.is_empty() => return Err(refusal),
            Err(QueueError::DropFragment(refusal)) => {
                self.insert_queue(key, queue, family);
                return Err(refusal);
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
        let share = usage_of(&mut self.v4, &mut self.v6, family);
        share.memory += queue.memory();
        share.deadlines.add(self.now.saturating_add(timeout), queue.serial(), key);
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
        let share = usage_of(&mut self.v4, &mut self.v6, key.family());
        share.memory = share.memory.saturating_sub(queue.memory());
        let queues = &self.queues;
        share.deadlines.remove_one(|serial, key| queues.get(key).is_some_and(|queue| queue.serial() == serial));
        Some(queue)
    }

    /// Drops the queues whose time is over at `now`, and says how many.
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

    /// When [`poll`](Reassembler::poll) will next have something to drop.
    pub fn next_wake(&self) -> Option<u64> {
        match (self.v4.deadlines.next(), self.v6.deadlines.next()) {
            (Some(v4), Some(v6)) => Some(v4.min(v6)),
            (v4, v6) => v4.or(v6),
        }
    }

    /// How many datagrams wait for fragments.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Octets of memory held for the waiting datagrams of one family.
    pub fn memory(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.memory,
            Family::V6 => self.v6.memory,
        }
    }
}

/// Borrows one share and leaves the rest of the reassembler free.
fn usage_of<'s>(v4: &'s mut FamilyUsage, v6: &'s mut FamilyUsage, family: Family) -> &'s mut FamilyUsage {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// RFC 8200, section 4.5: the first fragment holds all headers up to the transport's.
fn check_first_fragment_headers(packet: &Packet<'_>) -> Result<(), ParseError> {
    let end =
        ipv6_ext::skip_exthdrs(packet.bytes(), packet.transport_at(), packet.protocol(), SkipMode::ThroughFragments)
            .map_err(|_| ParseError::FragmentHeaders)?;
    let needed = match end.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 => 8,
        _ => 1,
    };
    let present = packet.bytes().len().saturating_sub(end.transport_at);
    if present < needed { Err(ParseError::FragmentHeaders) } else { Ok(()) }
}

/// What tells the pieces of one datagram from all others (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FragmentKey {
    V4 { addresses: [u8; 8], id: u32, protocol: u8 },
    V6 { source: [u8; 16], destination: [u8; 16], id: u32 },
}

impl FragmentKey {
    fn new(packet: &Packet<'_>, fragment: &FragmentHeader) -> Self {
        match packet.addresses() {
            Addresses::V4 { source: [a, b, c, d], destination: [e, f, g, h] } => {
                FragmentKey::V4 { addresses: [a, b, c, d, e, f, g, h], id: fragment.id, protocol: packet.protocol() }
            }
            Addresses::V6 { source, destination } => FragmentKey::V6 { source, destination, id: fragment.id },
        }
    }

    fn family(&self) -> Family {
        match self {
            FragmentKey::V4 { .. } => Family::V4,
            FragmentKey::V6 { .. } => Family::V6,
        }
    }
}

/// The key of the table's hash.
#[derive(Clone)]
struct SipKey(u64, u64);

impl core::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl BuildHasher for SipKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
