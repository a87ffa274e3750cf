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
//! Linux drops a refused fragment silently, with two exceptions in IPv6 that go on as they are, [`Refusal::FragmentLength`]
//! and [`Refusal::FragmentHeaders`]: see [`Fate::Passed`](crate::Fate::Passed).
mod deadlines;
mod distance;
mod queue;
mod rebuild;
#[cfg(test)]
mod tests;

use crate::extension::{self, Walk};
use crate::packet::protocol;
use crate::{Addresses, Family, Fragment, Packet, Refusal};
use alloc::vec::Vec;
use core::hash::BuildHasher;
use deadlines::Deadlines;
use distance::Distances;
use hashbrown::HashMap;
use queue::{Fault, Piece, Queue};
use siphasher::sip::SipHasher13;

/// What became of a fragment that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassembly {
    /// The datagram is whole: the buffer holds it. Read it with [`Packet::parse_reassembled`].
    Whole(Pieces),
    /// More fragments are needed.
    Waiting,
}

/// What a datagram came in as. Whoever cuts it again makes no piece longer than those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Octets of the longest piece, with its headers.
    pub longest: usize,
    /// Octets of the headers that every piece has: IPv4's header with its options, or IPv6's with the extensions before the fragment header.
    pub headers: usize,
}

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of memory for the queues of each family; above it every fragment is refused
    /// (`net.ipv4.ipfrag_high_thresh`, `net.netfilter.nf_conntrack_frag6_high_thresh`).
    pub memory: usize,
    /// Nanoseconds from a queue's first fragment to its end, IPv4 (`net.ipv4.ipfrag_time`).
    pub timeout_v4: u64,
    /// The same for IPv6 (`net.netfilter.nf_conntrack_frag6_timeout`).
    pub timeout_v6: u64,
    /// How many other fragments of the same IPv4 source may come between two pieces of a datagram. After more, its
    /// identification is taken to have come round, and the earlier pieces are dropped. 0: any number (`net.ipv4.ipfrag_max_dist`).
    pub max_distance: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { memory: 4 << 20, timeout_v4: 30_000_000_000, timeout_v6: 60_000_000_000, max_distance: 64 }
    }
}

/// The queues of both families.
#[derive(Debug)]
pub struct Reassembler {
    queues: HashMap<Key, Queue, Secret>,
    v4: Share,
    v6: Share,
    distances: Distances,
    limits: Limits,
    now: u64,
    serial: u64,
}

/// What one family uses of its limits.
#[derive(Debug, Default)]
struct Share {
    memory: usize,
    deadlines: Deadlines,
}

impl Reassembler {
    /// An empty reassembler. `secret` keys the hash of its table: it must be random and must not be shown to senders.
    pub fn new(secret: (u64, u64), limits: Limits) -> Self {
        Reassembler {
            queues: HashMap::with_hasher(Secret(secret.0, secret.1)),
            v4: Share::default(),
            v6: Share::default(),
            distances: Distances::new(secret),
            limits,
            now: 0,
            serial: 0,
        }
    }

    /// Takes one fragment at the time `now`, in nanoseconds of a clock that does not go back.
    ///
    /// When that makes its datagram whole, `out` is cleared and filled with the datagram. A packet that is no fragment is
    /// whole at once. A refusal names what is wrong; whether the fragment alone or all of its queue is lost is as in Linux.
    pub fn push(&mut self, packet: &Packet<'_>, now: u64, out: &mut Vec<u8>) -> Result<Reassembly, Refusal> {
        let Some(fragment) = packet.fragment() else {
            out.clear();
            out.extend_from_slice(packet.bytes());
            return Ok(Reassembly::Whole(Pieces { longest: packet.bytes().len(), headers: packet.transport_at() }));
        };
        if packet.is_snapped() {
            return Err(Refusal::NotCaptured);
        }
        self.poll(now);
        let family = packet.family();
        if family == Family::V6 && fragment.offset == 0 {
            holds_all_headers(packet)?;
        }
        if self.memory(family) > self.limits.memory {
            return Err(Refusal::FragmentMemory);
        }
        let key = Key::of(packet, &fragment);
        if let Key::V4 { addresses: [a, b, c, d, ..], .. } = key
            && self.distances.pass(
                [a, b, c, d],
                self.queues.get_mut(&key).map(Queue::mark_mut),
                self.limits.max_distance,
            )
        {
            self.close_queue(&key);
        }
        let piece = Piece { packet, offset: fragment.offset, more: fragment.more };
        self.queue_piece(key, &piece, out)
    }

    fn queue_piece(&mut self, key: Key, piece: &Piece<'_, '_>, out: &mut Vec<u8>) -> Result<Reassembly, Refusal> {
        let family = piece.packet.family();
        let added = match self.queues.get_mut(&key) {
            Some(queue) => {
                let before = queue.memory();
                let result = queue.add(piece);
                let after = queue.memory();
                let share = share(&mut self.v4, &mut self.v6, family);
                share.memory = share.memory + after - before;
                result
            }
            None => return self.open_queue(key, piece, out),
        };
        if matches!(added, Ok(true) | Err(Fault::Queue(_)))
            && let Some(queue) = self.close_queue(&key)
            && added.is_ok()
        {
            return queue.rebuild(out).map(Reassembly::Whole);
        }
        added.map(|_| Reassembly::Waiting).map_err(Fault::refusal)
    }

    /// The first piece of a datagram. Nothing is kept when it is the only one or when it is refused.
    fn open_queue(&mut self, key: Key, piece: &Piece<'_, '_>, out: &mut Vec<u8>) -> Result<Reassembly, Refusal> {
        let family = piece.packet.family();
        self.serial = self.serial.wrapping_add(1);
        let mut queue = Queue::new(family, self.serial);
        match queue.add(piece) {
            Ok(true) => return queue.rebuild(out).map(Reassembly::Whole),
            Ok(false) => {}
            Err(Fault::Queue(refusal)) => return Err(refusal),
            // A piece without data may have told where the end is, and that is remembered.
            Err(Fault::Piece(refusal)) if queue.is_blank() => return Err(refusal),
            Err(Fault::Piece(refusal)) => {
                self.keep(key, queue, family);
                return Err(refusal);
            }
        }
        self.keep(key, queue, family);
        Ok(Reassembly::Waiting)
    }

    fn keep(&mut self, key: Key, mut queue: Queue, family: Family) {
        let timeout = match family {
            Family::V4 => self.limits.timeout_v4,
            Family::V6 => self.limits.timeout_v6,
        };
        let share = share(&mut self.v4, &mut self.v6, family);
        share.memory += queue.memory();
        share.deadlines.add(self.now.saturating_add(timeout), queue.serial(), key);
        if let Key::V4 { addresses: [a, b, c, d, ..], .. } = key {
            *queue.mark_mut() = self.distances.enter([a, b, c, d]);
        }
        self.queues.insert(key, queue);
    }

    fn close_queue(&mut self, key: &Key) -> Option<Queue> {
        let queue = self.queues.remove(key)?;
        if let Key::V4 { addresses: [a, b, c, d, ..], .. } = *key {
            self.distances.leave([a, b, c, d]);
        }
        let share = share(&mut self.v4, &mut self.v6, key.family());
        share.memory = share.memory.saturating_sub(queue.memory());
        let queues = &self.queues;
        share.deadlines.forget_one(|serial, key| queues.get(key).is_some_and(|queue| queue.serial() == serial));
        Some(queue)
    }

    /// Drops the queues whose time is over at `now`, and says how many.
    pub fn poll(&mut self, now: u64) -> usize {
        self.now = self.now.max(now);
        let mut dropped = 0;
        for family in [Family::V4, Family::V6] {
            while let Some((serial, key)) = share(&mut self.v4, &mut self.v6, family).deadlines.due(self.now) {
                if self.queues.get(&key).is_some_and(|queue| queue.serial() == serial) {
                    self.close_queue(&key);
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
    pub fn waiting(&self) -> usize {
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
fn share<'s>(v4: &'s mut Share, v6: &'s mut Share, family: Family) -> &'s mut Share {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

/// RFC 8200, section 4.5: the first fragment holds all headers up to the transport's.
fn holds_all_headers(packet: &Packet<'_>) -> Result<(), Refusal> {
    let end = extension::walk(packet.bytes(), packet.transport_at(), packet.protocol(), Walk::Through)
        .map_err(|_| Refusal::FragmentHeaders)?;
    let needed = match end.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMPV6 => 8,
        _ => 1,
    };
    let present = packet.bytes().len().saturating_sub(end.transport_at);
    if present < needed { Err(Refusal::FragmentHeaders) } else { Ok(()) }
}

/// What tells the pieces of one datagram from all others (RFC 791, section 3.2; RFC 8200, section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4 { addresses: [u8; 8], id: u32, protocol: u8 },
    V6 { source: [u8; 16], destination: [u8; 16], id: u32 },
}

impl Key {
    fn of(packet: &Packet<'_>, fragment: &Fragment) -> Self {
        match packet.addresses() {
            Addresses::V4 { source: [a, b, c, d], destination: [e, f, g, h] } => {
                Key::V4 { addresses: [a, b, c, d, e, f, g, h], id: fragment.id, protocol: packet.protocol() }
            }
            Addresses::V6 { source, destination } => Key::V6 { source, destination, id: fragment.id },
        }
    }

    fn family(&self) -> Family {
        match self {
            Key::V4 { .. } => Family::V4,
            Key::V6 { .. } => Family::V6,
        }
    }
}

/// The key of the table's hash.
#[derive(Clone)]
struct Secret(u64, u64);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

impl BuildHasher for Secret {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}
