//! The rate limit of ICMP errors, as Linux's `icmp_ratelimit` and `icmp_msgs_per_sec`: a router must not be used to flood another host.
//!
//! One token bucket for all errors, and one for each peer. Peers' buckets are in a table of fixed size; peers whose hashes collide share a bucket. It must never grow.
use keepstate_engine::Instant;
use keepstate_wire::keyed_hash::SipKey;
use std::hash::BuildHasher;
use std::net::IpAddr;

/// Number of peer buckets.
const PEER_BUCKETS: usize = 4096;
/// The limit of one peer.
const PEER_RATE: Rate = Rate { interval: 1_000_000_000, burst: 6 };
/// The limit of all peers together.
const GLOBAL_RATE: Rate = Rate { interval: 1_000_000, burst: 50 };

#[derive(Clone, Copy)]
struct Rate {
    /// Nanoseconds a token.
    interval: u64,
    /// Tokens at once.
    burst: u64,
}

/// The token buckets.
pub(crate) struct IcmpRateLimiter {
    key: SipKey,
    global: u64,
    peers: Vec<u64>,
}

impl IcmpRateLimiter {
    pub(crate) fn new(key: SipKey) -> IcmpRateLimiter {
        IcmpRateLimiter { key, global: 0, peers: vec![0; PEER_BUCKETS] }
    }

    /// Takes a token for an error to this peer, if there is one. Called once for each error.
    pub(crate) fn allows(&mut self, peer: IpAddr, now: Instant) -> bool {
        let hash = self.key.hash_one(peer);
        // It is less than the length of the table, which fits.
        let at = (hash % PEER_BUCKETS as u64) as usize;
        let Some(bucket) = self.peers.get_mut(at) else { return false };
        let full = PEER_RATE.has_token(*bucket, now);
        if full && GLOBAL_RATE.take(&mut self.global, now) { PEER_RATE.take(bucket, now) } else { false }
    }
}

impl Rate {
    /// A bucket is stored as the time at which it was, or will have been, empty.
    fn emptied_at(self, bucket: u64, now: Instant) -> u64 {
        bucket.max(now.0.saturating_sub(self.interval * self.burst))
    }

    fn has_token(self, bucket: u64, now: Instant) -> bool {
        self.emptied_at(bucket, now).saturating_add(self.interval) <= now.0
    }

    fn take(self, bucket: &mut u64, now: Instant) -> bool {
        let may = self.has_token(*bucket, now);
        if may {
            *bucket = self.emptied_at(*bucket, now) + self.interval;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_allowed(limiter: &mut IcmpRateLimiter, peer: [u8; 4], now: u64, asks: usize) -> usize {
        (0..asks).filter(|_| limiter.allows(peer.into(), Instant(now))).count()
    }

    #[test]
    fn per_peer_limit_is_six_then_one_a_second() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        let second = 1_000_000_000;
        let begun = 100 * second;
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun, 20), 6);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + second / 2, 20), 0);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + second, 20), 1);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 2], begun + second, 20), 6, "another peer has its own limit");
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + 60 * second, 20), 6);
    }

    #[test]
    fn global_limit_is_fifty_then_a_thousand_a_second() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        let begun = 100_000_000_000;
        let everybody = |limiter: &mut IcmpRateLimiter, now| -> usize {
            (0..200_u8).map(|last| count_allowed(limiter, [10, 0, 1, last], now, 1)).sum()
        };
        assert_eq!(everybody(&mut limiter, begun), 50);
        assert_eq!(everybody(&mut limiter, begun + 10_000_000), 10);
    }
}
