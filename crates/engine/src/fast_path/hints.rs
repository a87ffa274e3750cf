//! The first two stages of a group of packets: their hashes, with the buckets prefetched, then the probable connections, with their records prefetched.
//!
//! Nothing here changes the table, and nothing found here is more than a guess.
use super::hash_memo::HashMemo;
use crate::classify::Classification;
use crate::table::key::{PackedAddrs, TupleKey, key_tail};
use crate::table::{Bucket, LookupKey, TupleRef};
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
        self.table.hash_group(&hints.addresses, &hints.tails, &mut hints.hashes);
        if others != 0 {
            self.hash_others(packets, zone, others, hints);
        }
    }

    /// The hashes of packets that are not IPv4 with ports.
    #[inline(never)]
    fn hash_others(&self, packets: &[Packet<'_>], zone: Zone, others: u32, hints: &mut LookupHints) {
        for (at, packet) in packets.iter().enumerate().filter(|(at, _)| others >> at & 1 != 0) {
            let hint = self.hint_of_other(packet, zone);
            (hints.hashes[at], hints.addresses[at], hints.tails[at]) = (hint.hash, hint.addresses, hint.tail);
        }
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
            self.table.hash_group(&addresses, &tails, &mut hints.reply_hashes);
        }
        for (at, packet) in packets.iter().enumerate().filter(|(at, _)| missing >> at & 1 != 0) {
            if plain >> at & 1 != 0 {
                self.table.prefetch_bucket(hints.reply_hashes[at]);
            } else {
                hints.reply_hashes[at] = self.prefetch_reply_bucket(packet, zone);
            }
        }
    }

    fn prefetch_reply_bucket(&self, packet: &Packet<'_>, zone: Zone) -> u64 {
        match self.classify(packet) {
            (Classification::Tuple, key) => self.table.prefetch_reply_bucket(&key, zone),
            _ => 0,
        }
    }

    /// Keeps the hashes of a group for [`Engine::memo_hint`].
    pub(super) fn remember_hashes(&mut self, packets: &[Packet<'_>], hints: &LookupHints) {
        let memo = self.hash_memo.get_or_insert_with(HashMemo::new);
        for at in (0..packets.len()).filter(|at| hints.plain >> at & 1 != 0) {
            let LookupHint { hash, reply_hash, addresses, tail, .. } = hints.get(at);
            memo.remember(addresses, tail, [hash, reply_hash]);
        }
    }

    /// As [`Engine::find_hint`], for a packet that may have been hashed ahead.
    #[inline(always)]
    pub(super) fn memo_hint(&self, packet: &Packet<'_>, zone: Zone) -> LookupHint {
        if let (Some(memo), ZoneDirection::Both) = (&self.hash_memo, zone.direction)
            && let Some((addresses, keys)) = packet.flow_key_v4()
        {
            let tail = key_tail(keys, zone.id, packet.protocol());
            if let Some([hash, reply_hash]) = memo.find(addresses, tail) {
                let candidate = self.table.candidate(hash);
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
