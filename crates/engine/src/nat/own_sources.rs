//! The outside addresses that source NAT may take, where other machines take the others of the same rules.
//!
//! A rule's range of addresses is cut by them: among those that are in it, a hash of client and peer chooses, as among all of them in Linux. A range with none of them is left as it is; who has
//! set the addresses then refuses the connection. Linux knows no such thing; without a set ([`Engine::set_own_sources`](crate::Engine::set_own_sources) was never called) nothing here runs.
use super::port_part::PortPart;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

/// Ranges of outside addresses, each with the part of its ports that is taken; `None`: all ports. No address is in two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnSources(Vec<OwnRange>);

/// By its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnRange {
    first: IpAddr,
    last: IpAddr,
    part: Option<PortPart>,
}

impl FromIterator<(RangeInclusive<IpAddr>, Option<PortPart>)> for OwnSources {
    fn from_iter<I: IntoIterator<Item = (RangeInclusive<IpAddr>, Option<PortPart>)>>(ranges: I) -> OwnSources {
        let own =
            |(range, part): (RangeInclusive<IpAddr>, _)| OwnRange { first: *range.start(), last: *range.end(), part };
        // A range from one family to the other is none.
        let fits = |range: &OwnRange| range.first <= range.last && range.first.is_ipv4() == range.last.is_ipv4();
        let mut all: Vec<OwnRange> = ranges.into_iter().map(own).filter(fits).collect();
        all.sort_unstable_by_key(|range| range.first);
        OwnSources(all)
    }
}

impl OwnSources {
    /// What of them is in a range, lowest first, each part with its first and its last address.
    fn cut(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let begin = self.0.partition_point(|range| range.last < first);
        let within = self.0.get(begin..).unwrap_or_default().iter().take_while(move |range| range.first <= last);
        within.map(move |range| (range.first.max(first), range.last.min(last))).filter(|(first, last)| first <= last)
    }

    /// How many are in a range; more than 2³² - 1 count as that.
    pub(super) fn count_within(&self, first: IpAddr, last: IpAddr) -> u32 {
        let counts = self.cut(first, last).map(|(first, last)| distance(first, last).saturating_add(1));
        u32::try_from(counts.fold(0_u128, u128::saturating_add)).unwrap_or(u32::MAX)
    }

    /// The one with this number among those in a range, from 0 on.
    pub(super) fn nth_within(&self, first: IpAddr, last: IpAddr, number: u32) -> Option<IpAddr> {
        let mut left = u128::from(number);
        for (first, last) in self.cut(first, last) {
            let count = distance(first, last).saturating_add(1);
            if left < count {
                return Some(plus(first, left));
            }
            left -= count;
        }
        None
    }

    /// Those in a range, lowest first.
    pub(super) fn within(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> + '_ {
        self.cut(first, last)
            .flat_map(|(first, last)| (0..=distance(first, last)).map(move |number| plus(first, number)))
    }

    /// Is it one of them?
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some()
    }

    /// The part of its ports.
    pub(super) fn part_of(&self, address: IpAddr) -> Option<PortPart> {
        self.range_of(address).and_then(|range| range.part)
    }

    fn range_of(&self, address: IpAddr) -> Option<&OwnRange> {
        let behind = self.0.partition_point(|range| range.first <= address);
        self.0.get(behind.checked_sub(1)?).filter(|range| address <= range.last)
    }
}

/// How far `last` is from `first`, an address of the same family that is not above it.
fn distance(first: IpAddr, last: IpAddr) -> u128 {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(last.to_bits().saturating_sub(first.to_bits())),
        (IpAddr::V6(first), IpAddr::V6(last)) => last.to_bits().saturating_sub(first.to_bits()),
        _ => 0,
    }
}

/// The address so far behind it.
fn plus(address: IpAddr, distance: u128) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let distance = u32::try_from(distance).unwrap_or(u32::MAX);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().saturating_add(distance)))
        }
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().saturating_add(distance))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_s_range_is_cut_to_what_is_own_of_it() {
        let part = PortPart::new(1, 4, crate::PartUse::Only);
        let range = |first: &str, last: &str| address(first)..=address(last);
        let own: OwnSources = [
            (range("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"), None),
            (range("192.0.2.64", "192.0.2.127"), part),
            (range("192.0.2.7", "192.0.2.7"), None),
            (range("192.0.2.9", "192.0.2.8"), part),
        ]
        .into_iter()
        .collect();
        let cut = |first: &str, last: &str| {
            let (first, last) = (address(first), address(last));
            let all: Vec<IpAddr> = own.within(first, last).take(100).collect();
            let count = own.count_within(first, last);
            for (number, address) in (0..).zip(&all) {
                assert_eq!(own.nth_within(first, last, number), Some(*address));
                assert!(own.contains(*address));
            }
            assert!(all.len() == 100 || own.nth_within(first, last, count).is_none());
            (count, all.first().copied(), all.last().copied())
        };
        let all = |first: &str, last: &str| (Some(address(first)), Some(address(last)));
        let (first, last) = all("192.0.2.7", "192.0.2.127");
        assert_eq!(cut("192.0.2.0", "192.0.2.255"), (65, first, last));
        let (first, last) = all("192.0.2.126", "192.0.2.127");
        assert_eq!(cut("192.0.2.126", "198.51.100.1"), (2, first, last));
        assert_eq!(cut("192.0.2.8", "192.0.2.63"), (0, None, None));
        assert_eq!(cut("192.0.2.70", "192.0.2.65"), (0, None, None));
        let (first, last) = all("192.0.2.70", "192.0.2.70");
        assert_eq!(cut("192.0.2.70", "192.0.2.70"), (1, first, last));
        assert_eq!(cut("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff").0, u32::MAX);
        assert_eq!(own.part_of(address("192.0.2.127")), part);
        assert_eq!((own.part_of(address("192.0.2.7")), own.part_of(address("192.0.2.128"))), (None, None));
        for outside in ["192.0.2.8", "192.0.2.63", "192.0.2.128", "2001:db9::", "::"] {
            assert!(!own.contains(address(outside)), "{outside}");
        }
    }
}
