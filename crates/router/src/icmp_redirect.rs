//! ICMP redirects: a sender is told of the router, or the host, of its own network that it should send to itself (RFC 792; RFC 4861, 8.2), and how often, as in Linux.
//!
//! Who is told is remembered in a table of fixed size; hosts whose hashes collide share a place. It must never grow.
use keepstate_engine::Instant;
use keepstate_wire::checksum::Sum;
use keepstate_wire::keyed_hash::SipKey;
use keepstate_wire::{Addresses, Packet};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

/// Places for hosts that were told.
const HOSTS: usize = 1024;
/// Who has not listened to so many is told no more, until it has been silent for a while: `ip_rt_redirect_number`, `ip_rt_redirect_silence`.
const MAX_IGNORED: u32 = 9;
const SILENCE: u64 = 20_480_000_000;
/// The pause behind the first one, doubled with each: `ip_rt_redirect_load`.
const FIRST_PAUSE: u64 = 20_000_000;
/// The longest ICMPv6 message: the minimum MTU (RFC 4861, 8.2).
const MAX_ICMPV6_LEN: usize = 1280;
const REDIRECT_V6: u8 = 137;

/// How often each host was told.
pub(crate) struct RedirectLimiter {
    key: SipKey,
    told: Vec<Told>,
}

#[derive(Clone, Copy, Default)]
struct Told {
    last: u64,
    count: u32,
}

impl RedirectLimiter {
    pub(crate) fn new(key: SipKey) -> RedirectLimiter {
        RedirectLimiter { key, told: vec![Told::default(); HOSTS] }
    }

    /// May this host be told now? Called once for each redirect. As `ip_rt_send_redirect`; for IPv6 Linux has a limit of one a second, with some at once, which this one keeps within.
    pub(crate) fn allows(&mut self, host: IpAddr, now: Instant) -> bool {
        // It is less than the length of the table, which fits.
        let at = (self.key.hash_one(host) % HOSTS as u64) as usize;
        let Some(told) = self.told.get_mut(at) else { return false };
        if now.0 > told.last.saturating_add(SILENCE) {
            told.count = 0;
        }
        if told.count >= MAX_IGNORED {
            told.last = now.0;
            return false;
        }
        let may = told.count == 0 || now.0 > told.last.saturating_add(FIRST_PAUSE << told.count);
        if may {
            *told = Told { last: now.0, count: told.count + 1 };
        }
        may
    }
}

/// A redirect of IPv6 from `us`, a link-local address: packets like this one are to be sent to `target`, another link-local address or the destination itself. `None` where none may be sent.
pub(crate) fn build_redirect_v6(packet: &Packet<'_>, us: Ipv6Addr, target: Ipv6Addr) -> Option<Vec<u8>> {
    let Addresses::V6 { source, destination } = packet.addresses() else { return None };
    let (to, at) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
    if to.is_unspecified() || to.is_multicast() || !target.is_unicast_link_local() && target != at {
        return None;
    }
    const HEADERS: usize = 40 + 40 + 8;
    let quoted = packet.bytes();
    // Options are counted in eights.
    let quoted = quoted.get(..quoted.len().min(MAX_ICMPV6_LEN - HEADERS) & !7)?;
    let mut message = vec![REDIRECT_V6, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend(at.octets());
    // The redirected header (RFC 4861, 4.6.3).
    message.extend([4, u8::try_from(quoted.len() / 8 + 1).ok()?, 0, 0, 0, 0, 0, 0]);
    message.extend(quoted);
    let length = u16::try_from(message.len()).ok()?;
    let mut sent = vec![0x60, 0, 0, 0];
    sent.extend(length.to_be_bytes());
    // From a router on the link (RFC 4861, 8.1).
    sent.extend([58, 255]);
    sent.extend(us.octets());
    sent.extend(to.octets());
    let sum = Sum::new().add_bytes(sent.get(8..40)?).add_bytes(&[0, 58]).add_bytes(&length.to_be_bytes());
    let check = sum.add_bytes(&message).finish();
    message.get_mut(2..4)?.copy_from_slice(&check.to_be_bytes());
    sent.extend(message);
    Some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_less_and_less_often_and_anew_after_a_silence() {
        let mut limiter = RedirectLimiter::new(SipKey::new(1, 2));
        let host = IpAddr::from([10, 0, 0, 9]);
        // A packet each hundredth of a second.
        let told = |limiter: &mut RedirectLimiter, from: u64, packets: u64| {
            (0..packets).filter(|packet| limiter.allows(host, Instant(from + packet * 10_000_000))).count()
        };
        let begun = 100_000_000_000;
        assert_eq!(told(&mut limiter, begun, 1), 1);
        assert_eq!(told(&mut limiter, begun + 10_000_000, 3), 0);
        assert_eq!(told(&mut limiter, begun + 40_000_000, 10_000), 8, "nine in all");
        assert_eq!(told(&mut limiter, begun + 101_000_000_000, 100), 0, "it goes on to send");
        assert_eq!(told(&mut limiter, begun + 130_000_000_000, 1), 1);
    }
}
