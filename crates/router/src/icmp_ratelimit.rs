//! How many answers a router gives: Linux's limits of ICMP errors (`icmp_ratelimit`, `icmp_msgs_per_sec`), so that nobody uses it to flood somebody else.
//!
//! A bucket of tokens for all answers, and one for whom they go to. Those of peers stand in a table of fixed size, where two that meet share one: it must never grow, whoever asks.
use keepstate_engine::Instant;
use siphasher::sip::SipHasher13;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

/// Buckets of peers.
const PEER_BUCKETS: usize = 4096;
/// To one peer: one answer in so many nanoseconds, and so many at once.
const PEER_RATE: Rate = Rate { interval: 1_000_000_000, burst: 6 };
/// To all of them.
const GLOBAL_RATE: Rate = Rate { interval: 1_000_000, burst: 50 };

#[derive(Clone, Copy)]
struct Rate {
    interval: u64,
    burst: u64,
}

/// Who counts answers.
pub(crate) struct IcmpRateLimiter {
    secret: (u64, u64),
    global: u64,
    peers: Vec<u64>,
}

impl IcmpRateLimiter {
    pub(crate) fn new(secret: (u64, u64)) -> IcmpRateLimiter {
        IcmpRateLimiter { secret, global: 0, peers: vec![0; PEER_BUCKETS] }
    }

    /// May this peer be told something now? Asked once for each answer.
    pub(crate) fn allows(&mut self, peer: IpAddr, now: Instant) -> bool {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        peer.hash(&mut hasher);
        // It is less than the length of the table, which fits.
        let at = (hasher.finish() % PEER_BUCKETS as u64) as usize;
        let Some(bucket) = self.peers.get_mut(at) else { return false };
        let full = PEER_RATE.has_token(*bucket, now);
        if full && GLOBAL_RATE.take(&mut self.global, now) { PEER_RATE.take(bucket, now) } else { false }
    }
}

impl Rate {
    /// A bucket is the moment at which it was, or will have been, empty.
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
        let mut limiter = IcmpRateLimiter::new((1, 2));
        let second = 1_000_000_000;
        let begun = 100 * second;
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun, 20), 6);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + second / 2, 20), 0);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + second, 20), 1);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 2], begun + second, 20), 6, "another one has his own");
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + 60 * second, 20), 6);
    }

    #[test]
    fn global_limit_is_fifty_then_a_thousand_a_second() {
        let mut limiter = IcmpRateLimiter::new((1, 2));
        let begun = 100_000_000_000;
        let everybody = |limiter: &mut IcmpRateLimiter, now| -> usize {
            (0..200_u8).map(|last| count_allowed(limiter, [10, 0, 1, last], now, 1)).sum()
        };
        assert_eq!(everybody(&mut limiter, begun), 50);
        assert_eq!(everybody(&mut limiter, begun + 10_000_000), 10);
    }
}
