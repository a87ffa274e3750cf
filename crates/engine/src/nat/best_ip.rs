//! Which of a range's addresses a connection gets: a hash of its client and peer, as Linux selects it (`find_best_ips_proto`), without a secret. A client keeps its address over a restart.
use super::range::{Manip, NatRange, end_address};
use crate::Tuple;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use keepstate_wire::jhash::{jhash, scale};

/// The address of `range` for a connection of this tuple and zone; `None` if the range names no addresses.
pub(super) fn best_address(tuple: &Tuple, manip: Manip, range: &NatRange, zone: u16) -> Option<IpAddr> {
    let addresses = range.addresses.as_ref()?;
    let (first, last) = (*addresses.start(), *addresses.end());
    let present = end_address(tuple, manip);
    Some(if first == last {
        first
    } else if range.prefix {
        netmap_address(present, first, last)
    } else {
        hashed_address(tuple, manip, range.persistent, zone, first, last)
    })
}

/// A number below `count` for a connection of this tuple and zone, by the hash that selects addresses.
pub(super) fn hashed_index(tuple: &Tuple, manip: Manip, persistent: bool, zone: u16, count: u32) -> u32 {
    let last = count.saturating_sub(1);
    let (first, last): (IpAddr, IpAddr) = match tuple.source {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::from_bits(last).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from_bits(last.into()).into()),
    };
    match hashed_address(tuple, manip, persistent, zone, first, last) {
        IpAddr::V4(chosen) => chosen.to_bits(),
        // The other bits are 0, as in both ends of the range.
        IpAddr::V6(chosen) => chosen.to_bits() as u32,
    }
}

fn hashed_address(tuple: &Tuple, manip: Manip, persistent: bool, zone: u16, first: IpAddr, last: IpAddr) -> IpAddr {
    let mut source = [0; 16];
    let mut peer = [0; 4];
    for (to, from) in source.chunks_exact_mut(4).zip(words(tuple.source)) {
        to.copy_from_slice(&from.to_be_bytes());
    }
    // In memory order, as the kernel's registers of a little-endian machine have it.
    for (to, from) in peer.iter_mut().zip(words(tuple.destination)) {
        *to = from.swap_bytes();
    }
    let used = if first.is_ipv4() { 1 } else { 4 };
    let seed = peer.get(used - 1).map_or(0, |last| last ^ u32::from(zone));
    let mut hash = jhash(&source, if persistent { 0 } else { seed });
    let mut chosen = [0; 4];
    // Behind a word that is not the range's last one any value is in the range.
    let mut any = false;
    let bounds = words(first).into_iter().zip(words(last)).take(used);
    for ((word, peer), (low, high)) in chosen.iter_mut().zip(peer).zip(bounds) {
        let (base, count) = if any { (0, u32::MAX) } else { (low, high.wrapping_sub(low).wrapping_add(1)) };
        *word = base.wrapping_add(scale(hash, count));
        any |= *word != high;
        if !persistent {
            // The kernel has replaced the destination by then, if that is what is translated.
            hash ^= if manip == Manip::Destination { word.swap_bytes() } else { peer };
        }
    }
    let [a, b, c, d] = chosen;
    match first {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(a)),
        IpAddr::V6(_) => {
            let bits = [a, b, c, d].into_iter().fold(0, |bits, word| bits << 32 | u128::from(word));
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

/// The address in words of 32 bits; of IPv4 only the first.
fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [address.to_bits(), 0, 0, 0],
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h] = address.segments().map(u32::from);
            [a << 16 | b, c << 16 | d, e << 16 | f, g << 16 | h]
        }
    }
}

/// Replaces the bits that `first` and `last` have in common, as a prefix does; the other bits stay.
fn netmap_address(present: IpAddr, first: IpAddr, last: IpAddr) -> IpAddr {
    match (present, first, last) {
        (IpAddr::V4(present), IpAddr::V4(first), IpAddr::V4(last)) => {
            let free = first.to_bits() ^ last.to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(present.to_bits() & free | first.to_bits() & !free))
        }
        (IpAddr::V6(present), IpAddr::V6(first), IpAddr::V6(last)) => {
            let free = first.to_bits() ^ last.to_bits();
            IpAddr::V6(Ipv6Addr::from_bits(present.to_bits() & free | first.to_bits() & !free))
        }
        _ => present,
    }
}
