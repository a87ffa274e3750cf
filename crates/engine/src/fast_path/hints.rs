//! The first two stages of a group of packets: their hashes, with the buckets prefetched, then the probable connections, with their records prefetched.
//!
//! Nothing here changes the table, and nothing found here is more than a guess.
use super::hash_memo::{HashMemo, Remembered};
use crate::classify::Classification;
use crate::table::key::{PackedAddrs, TupleKey, key_tail};
use crate::table::record::Ipv6Addrs;
use crate::table::{Bucket, LookupKey, Table, TupleRef};
use crate::{Direction, Engine, Zone, ZoneDirection};
use keepstate_wire::Packet;

/// Packets that are prefetched together; a power of two, at most 32.
pub(super) const GROUP: usize = 32;

/// What the first stages compute of a packet before it is tracked.
#[derive(Clone, Copy)]
pub(super) struct LookupHint {
    pub(super) hash: u64,
    /// The hash of the reply key, if the packet probably begins a connection; 0 if unknown.
    reply_hash: u64,
    /// Of an IPv4 packet: the part of the key that a hot record holds.
    pub(super) addresses: u64,
    /// The rest of what is hashed: keys, zone, protocol. 0 for a packet without a tuple.
    tail: u64,
    /// The probable connection, found by fingerprint only.
    pub(super) candidate: Option<TupleRef>,
}

/// The hints of a group, by field: several are hashed at once.
pub(super) struct LookupHints {
    hashes: [u64; GROUP],
    reply_hashes: [u64; GROUP],
    addresses: [u64; GROUP],
    tails: [u64; GROUP],
    candidates: [Option<TupleRef>; GROUP],
    /// One bit for each IPv4 packet with ports; bits beyond the group mean nothing.
    plain: u32,
    /// One bit for each packet without a candidate: only those have a reply hash.
    missing: u32,
}

impl LookupHint {
    /// Source and destination key.
    #[inline(always)]
    pub(super) const fn keys(&self) -> u32 {
        (self.tail >> 24) as u32
    }

    /// The hashes of the packet's tuple and of the reply; 0 if unknown.
    #[inline(always)]
    pub(super) const fn hashes(&self) -> [u64; 2] {
        [self.hash, self.reply_hash]
    }

    /// The lookup key of the packet with `key`, with this hint's hashes and candidate.
    pub(super) fn lookup_key(&self, key: TupleKey, zone: Zone) -> LookupKey {
        LookupKey { key, zone, hash: self.hash, candidate: self.candidate, reply_hash: self.reply_hash }
    }
}

impl LookupHints {
    pub(super) const EMPTY: LookupHints = LookupHints {
        hashes: [0; GROUP],
        reply_hashes: [0; GROUP],
        addresses: [0; GROUP],
        tails: [0; GROUP],
        candidates: [None; GROUP],
        plain: 0,
        missing: 0,
    };

    /// The hint of packet `at` of the group.
    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> LookupHint {
        // There are never more packets than hints; the mask saves five checks.
        let at = at & (GROUP - 1);
        LookupHint {
            hash: self.hashes[at],
            reply_hash: if self.missing >> at & 1 != 0 { self.reply_hashes[at] } else { 0 },
            addresses: self.addresses[at],
            tail: self.tails[at],
            candidate: self.candidates[at],
        }
    }
}

/// The IPv6 keys of a group that are hashed together, in the order they were added.
struct Ipv6Group {
    words: [[u64; GROUP]; 4],
    tails: [u64; GROUP],
    /// Where each stands in the group of packets.
    places: [u8; GROUP],
    count: usize,
}

impl Ipv6Group {
    const EMPTY: Ipv6Group = Ipv6Group { words: [[0; GROUP]; 4], tails: [0; GROUP], places: [0; GROUP], count: 0 };

    #[inline(always)]
    fn add(&mut self, place: usize, [[a, b], [c, d]]: Ipv6Addrs, tail: u64) {
        let at = self.count & (GROUP - 1);
        for (words, word) in self.words.iter_mut().zip([a, b, c, d]) {
            words[at] = word;
        }
        self.tails[at] = tail;
        self.places[at] = place as u8;
        self.count += 1;
    }

    #[inline(always)]
    fn hash(&self, table: &Table, hashes: &mut [u64; GROUP]) {
        if self.count == 0 {
            return;
        }
        let [a, b, c, d] = &self.words;
        let mut hashed = [0; GROUP];
        table.hash_group([a, b, c, d], &self.tails, self.count, &mut hashed);
        for (place, hash) in self.places.iter().zip(hashed).take(self.count) {
            hashes[usize::from(*place) & (GROUP - 1)] = hash;
        }
    }
}

impl Engine {
    /// The first two stages: hash each packet, then prefetch all buckets together, so that the TLB misses overlap too; then the records that the buckets refer to.
    #[inline(always)]
    pub(super) fn look_ahead(&self, packets: &[Packet<'_>], zone: Zone, hints: &mut LookupHints) {
        self.hash_group(packets, zone, hints);
        let mut buckets: [Option<&Bucket>; GROUP] = [None; GROUP];
        for (bucket, hash) in buckets.iter_mut().zip(&hints.hashes).take(packets.len()) {
            *bucket = self.table.prefetched_bucket(*hash);
        }
        let mut missing: u32 = 0;
        for (at, packet) in packets.iter().enumerate() {
            let place = at & (GROUP - 1);
            let candidate = self.table.candidate_in(buckets[place], hints.hashes[place]);
            hints.candidates[place] = candidate;
            match candidate {
                Some(reference) => self.table.prefetch_record(reference, packet.family()),
                None => missing |= 1 << place,
            }
        }
        hints.missing = missing;
        if missing != 0 {
            self.prefetch_reply_buckets(packets, zone, missing, hints);
        }
    }

    /// Hashes each packet.
    #[inline(always)]
    fn hash_group(&self, packets: &[Packet<'_>], zone: Zone, hints: &mut LookupHints) {
        let zone_id = zone.id_for(Direction::Original);
        let mut others: u32 = 0;
        for (at, packet) in packets.iter().enumerate() {
            let place = at & (GROUP - 1);
            match packet.flow_key_v4() {
                Some((word, keys)) => {
                    hints.addresses[place] = word;
                    hints.tails[place] = key_tail(keys, zone_id, packet.protocol());
                }
                None => others |= 1 << place,
            }
        }
        // Of a group that is not full, the rest means nothing.
        hints.plain = !others;
        self.table.hash_group([&hints.addresses], &hints.tails, GROUP, &mut hints.hashes);
        if others != 0 {
            self.hash_others(packets, zone, others, hints);
        }
    }

    /// The hashes of packets that are not IPv4 with ports.
    #[inline(never)]
    fn hash_others(&self, packets: &[Packet<'_>], zone: Zone, others: u32, hints: &mut LookupHints) {
        let mut group = Ipv6Group::EMPTY;
        for (at, packet) in packets.iter().enumerate().filter(|(at, _)| others >> at & 1 != 0) {
            let place = at & (GROUP - 1);
            match packet.flow_key_v6() {
                Some((addresses, keys)) => {
                    hints.tails[place] = key_tail(keys, zone.id_for(Direction::Original), packet.protocol());
                    group.add(place, addresses, hints.tails[place]);
                }
                None => {
                    let hint = self.hint_of_other(packet, zone);
                    (hints.hashes[place], hints.addresses[place], hints.tails[place]) =
                        (hint.hash, hint.addresses, hint.tail);
                }
            }
        }
        group.hash(&self.table, &mut hints.hashes);
    }

    /// The `missing` packets probably begin connections: prefetches the buckets where their reply tuples will be inserted.
    #[inline(never)]
    fn prefetch_reply_buckets(&self, packets: &[Packet<'_>], zone: Zone, missing: u32, hints: &mut LookupHints) {
        let plain = missing & hints.plain;
        if plain != 0 {
            let zone_id = zone.id_for(Direction::Reply);
            let (mut addresses, mut tails) = ([0; GROUP], [0; GROUP]);
            for at in 0..GROUP {
                addresses[at] = hints.addresses[at].rotate_left(32);
                let tail = hints.tails[at];
                tails[at] = key_tail(((tail >> 24) as u32).rotate_left(16), zone_id, tail as u8);
            }
            self.table.hash_group([&addresses], &tails, GROUP, &mut hints.reply_hashes);
        }
        if missing != plain {
            self.hash_other_replies(packets, zone, missing & !plain, hints);
        }
        for at in (0..packets.len()).filter(|at| missing >> at & 1 != 0) {
            self.table.prefetch_bucket(hints.reply_hashes[at & (GROUP - 1)]);
        }
    }

    /// The hashes of the replies to packets that are not IPv4 with ports; 0 of a packet that has no reply.
    #[inline(never)]
    fn hash_other_replies(&self, packets: &[Packet<'_>], zone: Zone, others: u32, hints: &mut LookupHints) {
        let zone_id = zone.id_for(Direction::Reply);
        let mut group = Ipv6Group::EMPTY;
        for (at, packet) in packets.iter().enumerate().filter(|(at, _)| others >> at & 1 != 0) {
            let place = at & (GROUP - 1);
            match packet.flow_key_v6() {
                Some(([source, destination], keys)) => {
                    let tail = key_tail(keys.rotate_left(16), zone_id, packet.protocol());
                    group.add(place, [destination, source], tail);
                }
                None => {
                    hints.reply_hashes[place] = match self.classify(packet) {
                        (Classification::Tuple, key) => self.table.hash_of_reply_to(&key, zone).unwrap_or(0),
                        _ => 0,
                    }
                }
            }
        }
        group.hash(&self.table, &mut hints.reply_hashes);
    }

    /// Keeps the hashes of a group for [`Engine::memo_hint`].
    pub(super) fn remember_hashes(&mut self, packets: &[Packet<'_>], hints: &LookupHints) {
        let memo = self.hash_memo.get_or_insert_with(HashMemo::new);
        for at in (0..packets.len()).filter(|at| hints.plain >> at & 1 != 0) {
            let LookupHint { hash, reply_hash, addresses, tail, candidate } = hints.get(at);
            memo.remember(addresses, tail, Remembered { hash, reply_hash, candidate });
        }
    }

    /// As [`Engine::find_hint`], for a packet that may have been hashed ahead.
    #[inline(always)]
    pub(super) fn memo_hint(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        if let (Some(memo), ZoneDirection::Both) = (&self.hash_memo, zone.direction)
            && let Some((addresses, keys)) = packet.flow_key_v4()
        {
            let tail = key_tail(keys, zone.id, packet.protocol());
            if let Some(Remembered { hash, reply_hash, candidate }) = memo.find(addresses, tail) {
                // Packets before this one may have begun its connection.
                let candidate = candidate.or_else(|| self.table.candidate(hash));
                return LookupHint { hash, reply_hash, addresses, tail, candidate };
            }
        }
        self.find_hint(packet, zone)
    }

    /// Both stages for a single packet, whose record is prefetched too.
    #[inline(always)]
    pub(super) fn find_hint(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        let mut hint = match packet.flow_key_v4() {
            Some((word, keys)) => {
                let key = TupleKey { addresses: PackedAddrs::V4(word), keys, protocol: packet.protocol() };
                let tail = key_tail(keys, zone.id_for(Direction::Original), packet.protocol());
                let hash = self.table.hash(&key, zone);
                LookupHint { hash, reply_hash: 0, addresses: word, tail, candidate: None }
            }
            None => self.hint_of_other(packet, zone),
        };
        hint.candidate = self.table.candidate(hint.hash);
        if let Some(reference) = hint.candidate {
            self.table.prefetch_record(reference, packet.family());
        }
        hint
    }

    #[inline(never)]
    fn hint_of_other(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        let key = match packet.flow_key_v6() {
            Some((addresses, keys)) => {
                Some(TupleKey { addresses: PackedAddrs::V6(addresses), keys, protocol: packet.protocol() })
            }
            None => match self.classify(packet) {
                (Classification::Tuple, key) => Some(key),
                _ => None,
            },
        };
        let Some(key) = key else {
            return LookupHint { hash: 0, reply_hash: 0, addresses: 0, tail: 0, candidate: None };
        };
        LookupHint {
            hash: self.table.hash(&key, zone),
            reply_hash: 0,
            addresses: key.packed_addresses(),
            tail: key_tail(key.keys, zone.id_for(Direction::Original), key.protocol),
            candidate: None,
        }
    }
}
