//! Deterministic NAT (RFC 7422): the outside address and ports of a subscriber are computed, so that no translation log is needed.
//!
//! Subscribers are numbered by their position in their prefix, and outside addresses by theirs. Each outside address serves the same number of consecutive subscribers, and
//! each subscriber has the same number of consecutive ports, starting at 1024.
use core::net::{IpAddr, Ipv4Addr};
use core::ops::RangeInclusive;

/// A prefix of subscribers, and the outside prefix they share.
///
/// ```
/// use keepstate_engine::DeterministicNat;
/// // 65,536 subscribers on 16 addresses: 4,096 each, with 15 ports per subscriber.
/// let mapping = DeterministicNat::new(([100, 64, 0, 0].into(), 16), ([192, 0, 2, 0].into(), 28)).unwrap();
/// let (address, ports) = mapping.outside([100, 64, 16, 1].into()).unwrap();
/// assert_eq!((address, ports.clone()), ([192, 0, 2, 1].into(), 1039..=1053));
/// // The reverse: which subscriber used this port?
/// assert_eq!(mapping.inside(address, *ports.end()), Some([100, 64, 16, 1].into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeterministicNat {
    inside: u32,
    inside_length: u8,
    outside: u32,
    outside_length: u8,
    /// Number of subscribers per outside address.
    sharing_ratio: u32,
    /// Number of ports per subscriber.
    ports_per_subscriber: u32,
}

/// The first port assigned; the ports below it are reserved for well-known services.
const FIRST_PORT: u32 = 1024;
/// Number of ports from there on.
const USABLE_PORTS: u32 = 65_536 - FIRST_PORT;

impl DeterministicNat {
    /// Each prefix is an address and a prefix length. `None` if a length is over 32, or if there are so few outside addresses that a subscriber would get
    /// no port.
    pub const fn new(inside: (Ipv4Addr, u8), outside: (Ipv4Addr, u8)) -> Option<DeterministicNat> {
        let ((inside, inside_length), (outside, outside_length)) = (inside, outside);
        if inside_length > 32 || outside_length > 32 {
            return None;
        }
        // More outside addresses than subscribers: one each, and the remaining addresses are not used.
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

    /// Number of ports per subscriber.
    pub const fn ports_per_subscriber(&self) -> u32 {
        self.ports_per_subscriber
    }

    /// The outside address and ports of a subscriber; `None` for an address outside the subscriber prefix.
    pub fn outside(&self, subscriber: Ipv4Addr) -> Option<(Ipv4Addr, RangeInclusive<u16>)> {
        let number = subscriber.to_bits() ^ self.inside;
        if number & prefix_mask(self.inside_length) != 0 {
            return None;
        }
        let first = FIRST_PORT + number % self.sharing_ratio * self.ports_per_subscriber;
        // The last port of the last subscriber is at most 65535.
        let ports = first as u16..=(first + self.ports_per_subscriber - 1) as u16;
        Some((Ipv4Addr::from_bits(self.outside + number / self.sharing_ratio), ports))
    }

    /// The subscriber with this port of this outside address; `None` if it is not assigned.
    pub fn inside(&self, address: Ipv4Addr, port: u16) -> Option<Ipv4Addr> {
        let number = address.to_bits() ^ self.outside;
        let place = u32::from(port).checked_sub(FIRST_PORT)? / self.ports_per_subscriber;
        if number & prefix_mask(self.outside_length) != 0 || place >= self.sharing_ratio {
            return None;
        }
        let subscriber = number.checked_mul(self.sharing_ratio)?.checked_add(place)?;
        (subscriber & prefix_mask(self.inside_length) == 0).then(|| Ipv4Addr::from_bits(self.inside + subscriber))
    }

    /// Like [`DeterministicNat::outside`], for an address of either family.
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
                // Not assigned to another subscriber.
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
