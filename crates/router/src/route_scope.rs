//! Which destinations a change of routes may concern.
use crate::fib::{FibChange, FibTable, Interface};
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
    /// Adds what a change of this table concerns.
    pub(crate) fn add(&mut self, change: &FibChange, before: &FibTable) {
        let concerns_none = match change {
            FibChange::Interface(new, _) => is_indifferent(before.interface(new.index), new),
            FibChange::InterfaceGone(index) => before.interface(*index).is_none(),
            FibChange::UnroutedInterfaceGone(_) => true,
            FibChange::AddressGone(_, address) => is_link_local(*address),
            _ => false,
        };
        if concerns_none {
            return;
        }
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

    /// Does it concern nobody?
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, RouteScope::Ranges(ranges) if ranges.is_empty())
    }

    /// Does it concern this destination?
    pub(crate) fn concerns(&self, to: IpAddr) -> bool {
        match self {
            RouteScope::All => true,
            RouteScope::Ranges(ranges) => ranges.iter().any(|(first, last)| (*first..=*last).contains(&to)),
        }
    }
}

/// Is an interface, for the flows that are known, the same as before? One that was not there has none, and routes to it are told by themselves. Link-local addresses concern the packets of
/// their own link alone, which are not forwarded: the kernel delivers them, or does not.
fn is_indifferent(before: Option<&Interface>, now: &Interface) -> bool {
    let wide = |interface: &Interface| -> Vec<(IpAddr, u8)> {
        interface.addresses.iter().filter(|(address, _)| !is_link_local(*address)).copied().collect()
    };
    before.map_or(wide(now).is_empty(), |before| {
        wide(before) == wide(now) && Interface { addresses: before.addresses.clone(), ..now.clone() } == *before
    })
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
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
        let fib = FibTable::new(vec![Interface::new(3, "eth3", 1500)], vec![]);
        scope.add(&gone("10.1.2.0", 24), &fib);
        scope.add(&gone("192.0.2.9", 32), &fib);
        scope.add(&FibChange::OtherRoute(address("2001:db8::"), 33), &fib);
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
            scope.add(&wide, &fib);
            assert_eq!(scope, RouteScope::All);
            scope.add(&gone("10.1.2.0", 24), &fib);
            assert_eq!(scope, RouteScope::All);
        }
    }

    #[test]
    fn interfaces_concern_flows_when_something_of_them_changes() {
        let eth3 = || Interface::new(3, "eth3", 1500).with_address([10, 0, 0, 1].into(), 24);
        let link_local: IpAddr = "fe80::7".parse().unwrap();
        let fib = FibTable::new(vec![eth3().with_address(link_local, 64)], vec![]);
        let changed = |interface| FibChange::Interface(interface, vec![]);
        let group = Interface { group: 7, ..eth3() };
        for (change, concerns) in [
            (changed(eth3()), false),
            (changed(eth3().with_address(link_local, 64).with_address("fe80::8".parse().unwrap(), 64)), false),
            (FibChange::AddressGone(3, link_local), false),
            (changed(Interface::new(4, "eth4", 1500)), false),
            (changed(Interface::new(4, "eth4", 1500).with_address(link_local, 64)), false),
            (FibChange::InterfaceGone(4), false),
            (FibChange::UnroutedInterfaceGone(3), false),
            (changed(Interface::new(4, "eth4", 1500).with_address([10, 0, 1, 1].into(), 24)), true),
            (changed(eth3().with_address([10, 0, 0, 2].into(), 24)), true),
            (changed(Interface::new(3, "eth3", 1500)), true),
            (changed(Interface { mtu: 1400, ..eth3() }), true),
            (changed(Interface { name: "wan0".into(), ..eth3() }), true),
            (changed(group), true),
            (FibChange::InterfaceGone(3), true),
            (FibChange::AddressGone(3, [10, 0, 0, 1].into()), true),
        ] {
            let mut scope = RouteScope::default();
            scope.add(&change, &fib);
            assert_eq!(scope == RouteScope::All, concerns, "{change:?}");
        }
    }
}
