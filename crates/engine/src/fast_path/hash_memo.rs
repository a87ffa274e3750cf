//! What [`Engine::prefetch`](crate::Engine::prefetch) has found, for the packets that [`Engine::track`](crate::Engine::track) gets one by one. Without an engine.
//!
//! A hash follows from its key alone and cannot be out of date. A connection can: it is one probable connection more, and never to be trusted. A lost entry costs nothing but the time to hash again.
use crate::table::TupleRef;
use alloc::boxed::Box;

/// Hashes computed ahead, of IPv4 packets with ports, by what was hashed: so an old hash is right still, and one that is overwritten is computed again.
#[derive(Clone)]
pub(crate) struct HashMemo(Box<[MemoEntry; MEMO_ENTRIES]>);

/// Four times as many as a driver has packets in a batch: few share a place.
const MEMO_ENTRIES: usize = 256;

#[derive(Clone, Copy)]
struct MemoEntry {
    addresses: u64,
    /// Never 0 of an entry in use. [`FOUND`] says what `other` is.
    tail: u64,
    hash: u64,
    /// The probable connection, or the hash of the reply key; that is 0 if unknown.
    other: u64,
}

/// Above the tail, which has seven bytes.
const FOUND: u64 = 1 << 63;

/// What was found ahead of a packet.
#[derive(Clone, Copy)]
pub(super) struct Remembered {
    pub(super) hash: u64,
    /// 0 if unknown.
    pub(super) reply_hash: u64,
    /// The probable connection, as it was then.
    pub(super) candidate: Option<TupleRef>,
}

impl HashMemo {
    pub(super) fn new() -> HashMemo {
        HashMemo(Box::new([MemoEntry { addresses: 0, tail: 0, hash: 0, other: 0 }; MEMO_ENTRIES]))
    }

    /// Need not be unpredictable: who makes packets share a place makes them be hashed twice.
    #[inline(always)]
    fn place(addresses: u64, tail: u64) -> usize {
        let mixed = (addresses ^ addresses >> 32 ^ tail >> 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize & (MEMO_ENTRIES - 1)
    }

    /// What was found of a key; the reply's hash is that of the same zone.
    #[inline(always)]
    pub(super) fn find(&self, addresses: u64, tail: u64) -> Option<Remembered> {
        let entry = &self.0[HashMemo::place(addresses, tail)];
        if entry.addresses != addresses || entry.tail & !FOUND != tail {
            return None;
        }
        let (hash, other) = (entry.hash, entry.other);
        Some(match entry.tail & FOUND {
            0 => Remembered { hash, reply_hash: other, candidate: None },
            _ => Remembered { hash, reply_hash: 0, candidate: Some(TupleRef::from_bits(other as u32)) },
        })
    }

    #[inline(always)]
    pub(super) fn remember(&mut self, addresses: u64, tail: u64, found: Remembered) {
        let (flag, other) = match found.candidate {
            Some(reference) => (FOUND, u64::from(reference.bits())),
            None => (0, found.reply_hash),
        };
        let entry = MemoEntry { addresses, tail: tail | flag, hash: found.hash, other };
        self.0[HashMemo::place(addresses, tail)] = entry;
    }
}
