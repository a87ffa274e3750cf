//! Hashes that [`Engine::prefetch`](crate::Engine::prefetch) has computed, for the packets that [`Engine::track`](crate::Engine::track) gets one by one. Without an engine.
//!
//! A hash follows from its key alone: nothing here can be out of date, and a lost entry costs nothing but the time to hash again.
use alloc::boxed::Box;

/// Hashes computed ahead, of IPv4 packets with ports, by what was hashed: so an old entry is right still, and one that is overwritten is computed again.
#[derive(Clone)]
pub(crate) struct HashMemo(Box<[MemoEntry; MEMO_ENTRIES]>);

/// Four times as many as a driver has packets in a batch: few share a place.
const MEMO_ENTRIES: usize = 256;

#[derive(Clone, Copy)]
struct MemoEntry {
    addresses: u64,
    /// Never 0 of an entry in use.
    tail: u64,
    hash: u64,
    /// 0 if unknown.
    reply_hash: u64,
}

impl HashMemo {
    pub(super) fn new() -> HashMemo {
        HashMemo(Box::new([MemoEntry { addresses: 0, tail: 0, hash: 0, reply_hash: 0 }; MEMO_ENTRIES]))
    }

    /// Need not be unpredictable: who makes packets share a place makes them be hashed twice.
    #[inline(always)]
    fn place(addresses: u64, tail: u64) -> usize {
        let mixed = (addresses ^ addresses >> 32 ^ tail >> 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize & (MEMO_ENTRIES - 1)
    }

    /// Both hashes of a key: the reply's is that of the same zone.
    #[inline(always)]
    pub(super) fn find(&self, addresses: u64, tail: u64) -> Option<[u64; 2]> {
        let entry = &self.0[HashMemo::place(addresses, tail)];
        (entry.addresses == addresses && entry.tail == tail).then_some([entry.hash, entry.reply_hash])
    }

    #[inline(always)]
    pub(super) fn remember(&mut self, addresses: u64, tail: u64, [hash, reply_hash]: [u64; 2]) {
        self.0[HashMemo::place(addresses, tail)] = MemoEntry { addresses, tail, hash, reply_hash };
    }
}
