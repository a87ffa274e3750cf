//! Which destinations a change of routes may concern.
use crate::fib::FibChange;
use crate::route_table::prefix_bits;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The destinations that changes may concern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteScope {
    /// All of them.
    All,
    /// Those of these prefixes, each from its first address to its last.
    Ranges(Vec<(IpAddr, IpAddr)>),
}

impl Default for RouteScope {
    fn default() -> RouteScope {
        RouteScope::Ranges(Vec::new())
    }
}

impl RouteScope {
    /// Adds what a change concerns.
    pub(crate) fn add(&mut self, change: &FibChange) {
        let prefix = match change {
            FibChange::Route(ways, _) | FibChange::RouteGone(ways) => ways.first().map(|way| (way.prefix, way.length)),
            FibChange::OtherRoute(prefix, length) => Some((*prefix, *length)),
            _ => None,
        };
        match (prefix, &mut *self) {
            (Some((prefix, length)), RouteScope::Ranges(ranges)) if length > 0 => {
                ranges.push(addresses_of(prefix, length));
            }
            _ => *self = RouteScope::All,
        }
    }

    /// Does it concern this destination?
    pub(crate) fn concerns(&self, to: IpAddr) -> bool {
        match self {
            RouteScope::All => true,
            RouteScope::Ranges(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&to)),
        }
    }
}

/// The first and the last address of a prefix.
fn addresses_of(prefix: IpAddr, length: u8) -> (IpAddr, IpAddr) {
    let bits = prefix_bits(prefix, length);
    match prefix {
        IpAddr::V4(_) => {
            let first = u32::try_from(bits).unwrap_or(u32::MAX);
            let rest = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            (Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(first | rest).into())
        }
        IpAddr::V6(_) => {
            let rest = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            (Ipv6Addr::from_bits(bits).into(), Ipv6Addr::from_bits(bits | rest).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route_table::Route;

    #[test]
    fn a_change_concerns_the_addresses_of_its_prefix() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let gone = |prefix: &str, length| FibChange::RouteGone(vec![Route::new(address(prefix), length, 1)]);
        let mut scope = RouteScope::default();
        assert!(!scope.concerns(address("10.1.2.3")));
        scope.add(&gone("10.1.2.0", 24));
        scope.add(&gone("192.0.2.9", 32));
        scope.add(&FibChange::OtherRoute(address("2001:db8::"), 33));
        for (to, concerned) in [
            ("10.1.2.0", true),
            ("10.1.2.255", true),
            ("10.1.3.0", false),
            ("10.1.1.255", false),
            ("192.0.2.9", true),
            ("192.0.2.10", false),
            ("2001:db8:7fff::1", true),
            ("2001:db8:8000::", false),
            ("::a01:203", false),
        ] {
            assert_eq!(scope.concerns(address(to)), concerned, "{to}");
        }
        for wide in [gone("0.0.0.0", 0), FibChange::Routing, FibChange::InterfaceGone(3)] {
            let mut scope = scope.clone();
            scope.add(&wide);
            assert_eq!(scope, RouteScope::All);
            scope.add(&gone("10.1.2.0", 24));
            assert_eq!(scope, RouteScope::All);
        }
    }
}
