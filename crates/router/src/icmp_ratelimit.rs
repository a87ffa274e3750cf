//! The rate limit of ICMP errors, as Linux's (`icmp_ratelimit`, `icmp_ratemask`, `icmp_msgs_per_sec`, `icmp_msgs_burst`; for IPv6 `icmp/ratelimit` and `icmp/ratemask`): a router must not be used to flood
//! another host.
//!
//! One token bucket for all errors, and one for each peer. Peers' buckets are in a table of fixed size; peers whose hashes collide share a bucket. It must never grow.
use keepstate_engine::Instant;
use keepstate_wire::keyed_hash::SipKey;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

/// Number of peer buckets.
const PEER_BUCKETS: usize = 4096;
/// Errors that a peer gets at once (XRLIM_BURST_FACTOR).
const PEER_BURST: u64 = 6;
const SECOND: u64 = 1_000_000_000;

/// How ICMP errors are limited. The default is Linux's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpLimits {
    /// Between two ICMP errors to one peer, once it has had six: `net.ipv4.icmp_ratelimit`. Zero: no limit.
    pub interval_v4: Duration,
    /// The types of ICMP that are limited, a bit each: `net.ipv4.icmp_ratemask`.
    pub types_v4: u32,
    /// The same of ICMPv6: `net.ipv6.icmp.ratelimit`.
    pub interval_v6: Duration,
    /// The types of ICMPv6 that are limited, a bit each: `net.ipv6.icmp.ratemask`.
    pub types_v6: [u64; 4],
    /// Errors a second to all peers together: `net.ipv4.icmp_msgs_per_sec`.
    pub per_second: u32,
    /// Errors to all of them at once: `net.ipv4.icmp_msgs_burst`.
    pub burst: u32,
}

impl Default for IcmpLimits {
    fn default() -> IcmpLimits {
        IcmpLimits {
            interval_v4: Duration::from_secs(1),
            // Destination unreachable, source quench, time exceeded, parameter problem.
            types_v4: 1 << 3 | 1 << 4 | 1 << 11 | 1 << 12,
            interval_v6: Duration::from_millis(100),
            // All errors but "packet too big".
            types_v6: [!(1 << 2), u64::MAX, 0, 0],
            per_second: 1000,
            burst: 50,
        }
    }
}

/// An ICMP message that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpAnswer {
    pub(crate) to: IpAddr,
    pub(crate) kind: u8,
    pub(crate) code: u8,
}

impl IcmpLimits {
    /// Is such a message limited? As icmpv4_mask_allow and icmpv6_mask_allow have it: not what path MTU discovery needs.
    fn applies_to(&self, answer: IcmpAnswer) -> bool {
        const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
        match answer.to {
            IpAddr::V4(_) if (answer.kind, answer.code) == FRAGMENTATION_NEEDED => false,
            IpAddr::V4(_) => self.types_v4.checked_shr(answer.kind.into()).is_some_and(|bits| bits & 1 == 1),
            IpAddr::V6(_) => {
                let word = self.types_v6.get(usize::from(answer.kind / 64)).copied().unwrap_or_default();
                word >> (answer.kind % 64) & 1 == 1
            }
        }
    }

    fn of_peer(&self, answer: IcmpAnswer) -> Rate {
        let nanoseconds = |interval: Duration| u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX / PEER_BURST);
        let interval = match answer.to {
            IpAddr::V4(_) => nanoseconds(self.interval_v4),
            IpAddr::V6(_) => nanoseconds(self.interval_v6),
        };
        Rate { interval, burst: PEER_BURST }
    }

    /// Of all peers; `None` if there is no rate at all.
    fn of_all(&self) -> Option<Rate> {
        let interval = SECOND.checked_div(self.per_second.into())?;
        Some(Rate { interval, burst: self.burst.into() })
    }
}

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
    limits: IcmpLimits,
    global: u64,
    peers: Vec<u64>,
}

impl IcmpRateLimiter {
    pub(crate) fn new(key: SipKey) -> IcmpRateLimiter {
        IcmpRateLimiter { key, limits: IcmpLimits::default(), global: 0, peers: vec![0; PEER_BUCKETS] }
    }

    pub(crate) fn set_limits(&mut self, limits: IcmpLimits) {
        self.limits = limits;
    }

    /// Takes a token for this message, if there is one and it needs one. Called once for each message.
    pub(crate) fn allows(&mut self, answer: IcmpAnswer, now: Instant) -> bool {
        if !self.limits.applies_to(answer) {
            return true;
        }
        let hash = self.key.hash_one(answer.to);
        // It is less than the length of the table, which fits.
        let at = (hash % PEER_BUCKETS as u64) as usize;
        let (Some(bucket), Some(all)) = (self.peers.get_mut(at), self.limits.of_all()) else { return false };
        let peer = self.limits.of_peer(answer);
        let full = peer.has_token(*bucket, now);
        if full && all.take(&mut self.global, now) { peer.take(bucket, now) } else { false }
    }
}

impl Rate {
    /// A bucket is stored as the time at which it was, or will have been, empty. One that nothing was taken from has a minute's tokens, as in Linux (inet_getpeer).
    fn emptied_at(self, bucket: u64, now: Instant) -> u64 {
        let most = self.interval.saturating_mul(self.burst);
        bucket.max(now.0.saturating_sub(if bucket == 0 { most.min(60 * SECOND) } else { most }))
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

    const TIME_EXCEEDED: u8 = 11;

    fn count(limiter: &mut IcmpRateLimiter, answer: IcmpAnswer, now: u64, asks: usize) -> usize {
        (0..asks).filter(|_| limiter.allows(answer, Instant(now))).count()
    }

    fn count_allowed(limiter: &mut IcmpRateLimiter, peer: [u8; 4], now: u64, asks: usize) -> usize {
        let answer = IcmpAnswer { to: peer.into(), kind: TIME_EXCEEDED, code: 0 };
        count(limiter, answer, now, asks)
    }

    #[test]
    fn per_peer_limit_is_six_then_one_a_second() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        let begun = 100 * SECOND;
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun, 20), 6);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + SECOND / 2, 20), 0);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + SECOND, 20), 1);
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 2], begun + SECOND, 20), 6, "another peer has its own limit");
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + 60 * SECOND, 20), 6);
    }

    #[test]
    fn global_limit_is_fifty_then_a_thousand_a_second() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        let begun = 100 * SECOND;
        let everybody = |limiter: &mut IcmpRateLimiter, now| -> usize {
            (0..200_u8).map(|last| count_allowed(limiter, [10, 0, 1, last], now, 1)).sum()
        };
        assert_eq!(everybody(&mut limiter, begun), 50);
        assert_eq!(everybody(&mut limiter, begun + 10_000_000), 10);
    }

    #[test]
    fn limits_are_those_that_are_set() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        let begun = 100 * SECOND;
        limiter.set_limits(IcmpLimits {
            interval_v4: Duration::ZERO,
            per_second: 10,
            burst: 30,
            ..IcmpLimits::default()
        });
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun, 100), 30, "no limit of a peer");
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 1], begun + SECOND, 100), 10);
        limiter.set_limits(IcmpLimits { per_second: 0, ..IcmpLimits::default() });
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 9], begun + 2 * SECOND, 100), 0);
        limiter.set_limits(IcmpLimits { types_v4: 1 << 3, per_second: 0, ..IcmpLimits::default() });
        assert_eq!(count_allowed(&mut limiter, [10, 0, 0, 9], begun + 2 * SECOND, 100), 100, "this type has no limit");
        let too_big = IcmpAnswer { to: [10, 0, 0, 9].into(), kind: 3, code: 4 };
        assert_eq!(count(&mut limiter, too_big, begun + 2 * SECOND, 100), 100, "path MTU discovery");
    }

    #[test]
    fn ipv6_has_limits_of_its_own() {
        let mut limiter = IcmpRateLimiter::new(SipKey::new(1, 2));
        limiter.set_limits(IcmpLimits { interval_v6: Duration::from_secs(40), ..IcmpLimits::default() });
        let answer = |kind| IcmpAnswer { to: IpAddr::from(1_u128.to_be_bytes()), kind, code: 0 };
        for (at, allowed) in [(100, 1), (120, 1), (140, 0), (161, 1)] {
            assert_eq!(count(&mut limiter, answer(3), at * SECOND, 20), allowed, "{at}");
        }
        assert_eq!(count(&mut limiter, answer(2), 162 * SECOND, 20), 20, "packet too big");
    }
}
