//! Deterministic mapping (RFC 7422): which address and ports a subscriber has is arithmetic, so that no log of translations need be kept.
//!
//! Subscribers are numbered by their place in their prefix, outside addresses likewise. Each outside address serves equally many subscribers in a row, and each of
//! those has equally many ports in a row, from 1024 on.
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;

/// A prefix of subscribers, and the outside prefix that they share.
///
/// ```
/// use keepstate_engine::DeterministicNat;
/// // 65,536 subscribers on 16 addresses: 4,096 each, with 15 ports for everybody.
/// let mapping = DeterministicNat::new(([100, 64, 0, 0].into(), 16), ([192, 0, 2, 0].into(), 28)).unwrap();
/// let (address, ports) = mapping.outside([100, 64, 16, 1].into()).unwrap();
/// assert_eq!((address, ports.clone()), ([192, 0, 2, 1].into(), 1039..=1053));
/// // Who was it?
/// assert_eq!(mapping.inside(address, *ports.end()), Some([100, 64, 16, 1].into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeterministicNat {
    inside: u32,
    inside_length: u8,
    outside: u32,
    outside_length: u8,
    /// Subscribers of one outside address.
    sharing_ratio: u32,
    /// Ports of one subscriber.
    ports_per_subscriber: u32,
}

/// The first port that is given away: those below are for what is well known.
const FIRST_PORT: u32 = 1024;
/// Ports from there on.
const USABLE_PORTS: u32 = 65_536 - FIRST_PORT;

impl DeterministicNat {
    /// Addresses with the lengths of their prefixes. `None` where a length is over 32, or the outside prefix has so few addresses that a subscriber would have
    /// no port at all.
    pub const fn new(inside: (Ipv4Addr, u8), outside: (Ipv4Addr, u8)) -> Option<DeterministicNat> {
        let ((inside, inside_length), (outside, outside_length)) = (inside, outside);
        if inside_length > 32 || outside_length > 32 {
            return None;
        }
        // More outside addresses than subscribers: one each, and the others are not used.
        let shared = outside_length.saturating_sub(inside_length);
        let ratio = match 1_u32.checked_shl(shared as u32) {
            Some(ratio) if ratio <= USABLE_PORTS => ratio,
            _ => return None,
        };
        Some(DeterministicNat {
            inside: inside.to_bits() & prefix_mask(inside_length),
            inside_length,
            outside: outside.to_bits() & prefix_mask(outside_length),
            outside_length,
            sharing_ratio: ratio,
            ports_per_subscriber: USABLE_PORTS / ratio,
        })
    }

    /// How many ports each subscriber has.
    pub const fn ports_per_subscriber(&self) -> u32 {
        self.ports_per_subscriber
    }

    /// The address and the ports of a subscriber; `None` for who is none.
    pub fn outside(&self, subscriber: Ipv4Addr) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
        let number = subscriber.to_bits() ^ self.inside;
        if number & prefix_mask(self.inside_length) != 0 {
            return None;
        }
        let first = FIRST_PORT + number % self.sharing_ratio * self.ports_per_subscriber;
        // The last port of the last subscriber is 65535 at most.
        let ports = first as u16..=(first + self.ports_per_subscriber - 1) as u16;
        Some((Ipv4Addr::from_bits(self.outside + number / self.sharing_ratio), ports))
    }

    /// The subscriber who has this port of this address; `None` if nobody has.
    pub fn inside(&self, address: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
        let number = address.to_bits() ^ self.outside;
        let place = u32::from(port).checked_sub(FIRST_PORT)? / self.ports_per_subscriber;
        if number & prefix_mask(self.outside_length) != 0 || place >= self.sharing_ratio {
            return None;
        }
        let subscriber = number.checked_mul(self.sharing_ratio)?.checked_add(place)?;
        (subscriber & prefix_mask(self.inside_length) == 0).then(|| Ipv4Addr::from_bits(self.inside + subscriber))
    }

    /// As [`DeterministicNat::outside`], for any address.
    pub(super) fn outside_ip(&self, subscriber: IpAddr) -> Option<(IpAddr, RangeInclusive<u16>)> {
        let IpAddr::V4(subscriber) = subscriber else { return None };
        self.outside(subscriber).map(|(address, ports)| (IpAddr::V4(address), ports))
    }
}

const fn prefix_mask(length: u8) -> u32 {
    match u32::MAX.checked_shl(32 - length as u32) {
        Some(mask) => mask,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn outside_and_inside_are_inverse(inside in any::<u32>(), outside in any::<u32>(), i in 0u8..=32, o in 0u8..=32, who in any::<u32>(), pick in any::<u16>()) {
            if let Some(mapping) = DeterministicNat::new((Ipv4Addr::from_bits(inside), i), (Ipv4Addr::from_bits(outside), o)) {
                let subscriber = Ipv4Addr::from_bits(inside & prefix_mask(i) | who & !prefix_mask(i));
                let (address, ports) = mapping.outside(subscriber).unwrap();
                prop_assert_eq!(address.to_bits() & prefix_mask(o), outside & prefix_mask(o));
                prop_assert_eq!(ports.len() as u32, mapping.ports_per_subscriber());
                let port = ports.start() + pick % ports.len() as u16;
                prop_assert_eq!(mapping.inside(address, port), Some(subscriber));
                // Nobody else's.
                if let Some(other) = mapping.inside(Ipv4Addr::from_bits(outside & prefix_mask(o) | who & !prefix_mask(o)), pick) {
                    let (back, ports) = mapping.outside(other).unwrap();
                    prop_assert_eq!(back.to_bits(), outside & prefix_mask(o) | who & !prefix_mask(o));
                    prop_assert!(ports.contains(&pick));
                }
            }
        }
    }

    #[test]
    fn addresses_outside_the_prefixes_have_no_mapping() {
        let mapping = DeterministicNat::new(([100, 64, 0, 0].into(), 24), ([192, 0, 2, 0].into(), 30)).unwrap();
        assert_eq!(mapping.ports_per_subscriber(), 1008);
        assert_eq!(mapping.outside([100, 64, 1, 0].into()), None);
        assert_eq!(mapping.inside([192, 0, 2, 4].into(), 2000), None);
        assert_eq!(mapping.inside([192, 0, 2, 1].into(), 1023), None);
        assert_eq!(mapping.outside([100, 64, 0, 255].into()).unwrap(), ([192, 0, 2, 3].into(), 64_528..=65_535));
        assert_eq!(
            DeterministicNat::new(([10, 0, 0, 0].into(), 8), ([192, 0, 2, 1].into(), 32)),
            None,
            "256 users a port"
        );
        assert_eq!(DeterministicNat::new(([10, 0, 0, 0].into(), 33), ([192, 0, 2, 1].into(), 32)), None);
    }
}
