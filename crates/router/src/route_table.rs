//! The routes of one address family: found by longest prefix, added and removed one by one.
//!
//! A route holds as long as its interface is the one that it was added for: when an interface goes, its routes are not searched for, but no longer found, and taken out in bounded steps
//! ([`RouteTable::sweep`]). An interface that comes back under the same index is another one ([`DeviceInstance`]).
#![allow(clippy::disallowed_types, reason = "the keys are this host's own configuration, which no packet changes")]
use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use std::net::IpAddr;

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination prefix.
    pub prefix: IpAddr,
    /// The prefix length.
    pub length: u8,
    /// The index of the interface it leaves by; 0 for an unreachable route: its packets are answered with an ICMP error.
    pub device: u32,
    /// The next router; without one, destinations are neighbours on the interface.
    pub gateway: Option<IpAddr>,
    /// Of several routes to one prefix the one with the smallest is used.
    pub metric: u32,
}

impl Route {
    /// A route to a prefix on the interface of this index.
    pub fn new(prefix: IpAddr, length: u8, device: u32) -> Route {
        Route { prefix, length, device, gateway: None, metric: 0 }
    }

    /// The same by way of a router.
    #[must_use]
    pub fn via(mut self, gateway: IpAddr) -> Route {
        self.gateway = Some(gateway);
        self
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Route { prefix, length, device, gateway, .. } = self;
        write!(f, "{prefix}/{length}")?;
        gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        if *device == 0 { f.write_str(" unreachable") } else { write!(f, " dev {device}") }
    }
}

/// One table a prefix length. A lookup takes as many steps as there are lengths, however many routes there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    /// The longest prefixes first.
    by_length: Vec<(u8, Prefixes)>,
    /// Where the next step of a sweep goes on: tables of this length and shorter ones, and the prefixes below this index.
    sweep: Option<(u8, usize)>,
    last_group: u32,
}

/// By prefix, the routes to it: the smallest metric first.
type Prefixes = IndexMap<u128, Vec<StoredRoute>, DefaultHashBuilder>;

/// Distinguishes an interface from an earlier one of the same index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeviceInstance(pub(crate) u32);

/// One way of a route, and the interface that it was added for.
#[derive(Clone, Debug)]
pub(crate) struct StoredRoute {
    pub(crate) route: Route,
    pub(crate) instance: DeviceInstance,
    /// It belongs to an address of this machine: any other route to the same prefix comes first.
    pub(crate) is_own: bool,
    /// The ways of one route have the same number.
    group: u32,
}

/// How a new route stands to those with its prefix and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePlacement {
    /// Behind them.
    Last,
    /// In front of them.
    First,
    /// Instead of one of them: of IPv4's the first; of IPv6's all by way of routers, or the first without.
    Replace,
}

impl StoredRoute {
    fn rank(&self) -> (bool, u32) {
        (self.is_own, self.route.metric)
    }

    fn is_way(&self, other: &Route, is_own: bool) -> bool {
        let same_way = (self.route.device, self.route.gateway) == (other.device, other.gateway);
        same_way && self.is_own == is_own && (is_own || self.route.metric == other.metric)
    }
}

impl RouteTable {
    /// Adds a route of one or more ways, which all have its prefix and metric. Once, if it is there. `instance_of` gives the interface that is there under an index.
    pub(crate) fn insert(
        &mut self,
        ways: &[Route],
        is_own: bool,
        placement: RoutePlacement,
        instance_of: impl Fn(u32) -> DeviceInstance,
    ) {
        let Some(first) = ways.first() else { return };
        let (prefix, length) = (first.prefix, first.length);
        let place = self.by_length.partition_point(|(shorter, _)| *shorter > length);
        if self.by_length.get(place).is_none_or(|(found, _)| *found != length) {
            self.by_length.insert(place, (length, Prefixes::default()));
        }
        self.last_group = self.last_group.wrapping_add(1);
        let group = self.last_group;
        let Some((_, prefixes)) = self.by_length.get_mut(place) else { return };
        let routes = prefixes.entry(prefix_bits(prefix, length)).or_default();
        // Ways by interfaces that are gone may stand here still.
        routes.retain(|known| {
            known.is_own || known.route.device == 0 || known.instance == instance_of(known.route.device)
        });
        let rank = (is_own, first.metric);
        let mut at = routes.partition_point(|known| match placement {
            RoutePlacement::Last => known.rank() <= rank,
            RoutePlacement::First | RoutePlacement::Replace => known.rank() < rank,
        });
        if placement == RoutePlacement::Replace {
            at = remove_replaced(routes, first, at);
        } else if find_whole(routes, ways, is_own).is_some() {
            return;
        }
        let is_new = |way: &&Route| !prefix.is_ipv6() || !routes.iter().any(|known| known.is_way(way, is_own));
        let new: Vec<StoredRoute> = ways
            .iter()
            .filter(is_new)
            .map(|way| StoredRoute { instance: instance_of(way.device), route: way.clone(), is_own, group })
            .collect();
        routes.splice(at..at, new);
    }

    /// Removes a route, or some ways of one; false if there was nothing of it.
    pub(crate) fn remove(&mut self, ways: &[Route], is_own: bool) -> bool {
        let Some(Route { prefix, length, .. }) = ways.first() else { return false };
        let Some(place) = self.by_length.iter().position(|(found, _)| found == length) else { return false };
        let Some((_, prefixes)) = self.by_length.get_mut(place) else { return false };
        let key = prefix_bits(*prefix, *length);
        let Some(routes) = prefixes.get_mut(&key) else { return false };
        let before = routes.len();
        match find_whole(routes, ways, is_own) {
            Some(group) => routes.retain(|known| known.group != group),
            None => routes.retain(|known| !ways.iter().any(|way| known.is_way(way, is_own))),
        }
        let removed = routes.len() < before;
        if routes.is_empty() {
            prefixes.swap_remove(&key);
        }
        if prefixes.is_empty() {
            self.by_length.remove(place);
        }
        removed
    }

    /// The route of the longest prefix that `usable` takes.
    pub(crate) fn find(&self, address: IpAddr, usable: impl Fn(&StoredRoute) -> bool) -> Option<&Route> {
        self.by_length.iter().find_map(|(length, prefixes)| {
            let routes = prefixes.get(&prefix_bits(address, *length))?;
            routes.iter().find(|known| usable(known)).map(|known| &known.route)
        })
    }

    /// From now on [`RouteTable::sweep`] looks at all routes once more.
    pub(crate) fn begin_sweep(&mut self) {
        self.sweep = Some((u8::MAX, usize::MAX));
    }

    /// Takes out routes that are not `alive`, after a look at so many prefixes at most. Returns how many it looked at; fewer than `most`: the sweep has ended.
    pub(crate) fn sweep(&mut self, most: usize, alive: impl Fn(&StoredRoute) -> bool) -> usize {
        let mut looked = 0;
        while let Some((length, below)) = self.sweep {
            let Some(place) = self.by_length.iter().position(|(found, _)| *found <= length) else {
                self.sweep = None;
                break;
            };
            let Some((found, prefixes)) = self.by_length.get_mut(place) else { break };
            let (found, mut at) = (*found, if *found == length { below } else { usize::MAX }.min(prefixes.len()));
            // Downwards: what `swap_remove` moves has been looked at.
            while at > 0 && looked < most {
                at -= 1;
                looked += 1;
                if let Some((_, routes)) = prefixes.get_index_mut(at) {
                    routes.retain(&alive);
                    if routes.is_empty() {
                        prefixes.swap_remove_index(at);
                    }
                }
            }
            if at > 0 {
                self.sweep = Some((found, at));
                break;
            }
            if prefixes.is_empty() {
                self.by_length.remove(place);
            }
            self.sweep = found.checked_sub(1).map(|next| (next, usize::MAX));
        }
        looked
    }

    /// Usable routes from a place on, after a look at so many prefixes; and the next place.
    pub(crate) fn page(
        &self,
        (longest, first): (u8, usize),
        most: usize,
        usable: impl Fn(&StoredRoute) -> bool,
    ) -> (Vec<Route>, Option<(u8, usize)>) {
        let (mut found, mut looked) = (Vec::new(), 0);
        for (length, prefixes) in self.by_length.iter().filter(|(length, _)| *length <= longest) {
            let first = if *length == longest { first } else { 0 };
            for (at, (_, routes)) in prefixes.iter().enumerate().skip(first) {
                if looked >= most {
                    return (found, Some((*length, at)));
                }
                looked += 1;
                found.extend(routes.iter().filter(|known| usable(known)).map(|known| known.route.clone()));
            }
        }
        (found, None)
    }

    /// The routes of each prefix, the first of which is used.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &[StoredRoute]> {
        self.by_length.iter().flat_map(|(_, prefixes)| prefixes.values().map(Vec::as_slice))
    }
}

/// The number of the route that consists of just these ways.
fn find_whole(routes: &[StoredRoute], ways: &[Route], is_own: bool) -> Option<u32> {
    let groups = routes.chunk_by(|one, next| one.group == next.group);
    let same = |group: &&[StoredRoute]| {
        group.len() == ways.len() && group.iter().zip(ways).all(|(known, way)| known.is_way(way, is_own))
    };
    groups.into_iter().find(same).and_then(|group| Some(group.first()?.group))
}

/// Removes the route that `new` takes the place of; returns that place, or `otherwise`.
fn remove_replaced(routes: &mut Vec<StoredRoute>, new: &Route, otherwise: usize) -> usize {
    let candidates =
        || routes.iter().enumerate().filter(|(_, known)| !known.is_own && known.route.metric == new.metric);
    // As IPv6 has it in fib6_add_rt2node: routes by way of a router are one, and take the place of each other.
    let alike = candidates().find(|(_, known)| known.route.gateway.is_some() == new.gateway.is_some());
    let first = candidates().next();
    let Some((at, known)) = (if new.prefix.is_ipv6() { alike.or(first) } else { first }) else { return otherwise };
    let (group, by_router) = (known.group, new.prefix.is_ipv6() && known.route.gateway.is_some());
    routes.retain(|known| {
        let is_one = by_router && known.route.gateway.is_some() && !known.is_own && known.route.metric == new.metric;
        known.group != group && !is_one
    });
    at
}

/// An address with all but its first `length` bits zero.
pub(crate) fn prefix_bits(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let free = u32::from(width - length.min(width));
    bits.checked_shr(free).and_then(|bits| bits.checked_shl(free)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: [u8; 4], length: u8, device: u32, metric: u32) -> Route {
        Route { metric, ..Route::new(prefix.into(), length, device) }
    }

    fn insert(table: &mut RouteTable, ways: &[Route], placement: RoutePlacement) {
        table.insert(ways, false, placement, DeviceInstance);
    }

    fn device_to(table: &RouteTable, to: [u8; 4]) -> Option<u32> {
        table.find(to.into(), |_| true).map(|route| route.device)
    }

    #[test]
    fn the_smallest_metric_wins_and_a_removed_route_uncovers_the_next() {
        let mut table = RouteTable::default();
        let ten = |device, metric| route([10, 0, 0, 0], 8, device, metric);
        insert(&mut table, &[ten(1, 200)], RoutePlacement::Last);
        insert(&mut table, &[ten(2, 100)], RoutePlacement::Last);
        insert(&mut table, &[ten(3, 100), ten(6, 100)], RoutePlacement::Last);
        insert(&mut table, &[ten(4, 100)], RoutePlacement::First);
        insert(&mut table, &[route([10, 1, 0, 0], 16, 5, 0)], RoutePlacement::Last);
        assert_eq!(device_to(&table, [10, 1, 0, 9]), Some(5));
        assert_eq!(device_to(&table, [10, 2, 0, 9]), Some(4));
        insert(&mut table, &[ten(7, 100)], RoutePlacement::Replace);
        assert_eq!(device_to(&table, [10, 2, 0, 9]), Some(7), "the first one is replaced");
        for (gone, next) in [
            (vec![ten(7, 100)], Some(2)),
            (vec![ten(2, 100)], Some(3)),
            (vec![ten(3, 100)], Some(6)),
            (vec![ten(6, 100)], Some(1)),
            (vec![ten(1, 200)], None),
        ] {
            assert!(table.remove(&gone, false), "{gone:?}");
            assert!(!table.remove(&gone, false), "{gone:?}");
            assert_eq!(device_to(&table, [10, 2, 0, 9]), next);
        }
        assert!(table.remove(&[route([10, 1, 0, 0], 16, 5, 0)], false));
        assert_eq!(table.prefixes().count(), 0);
        assert!(table.by_length.is_empty());
    }

    #[test]
    fn a_sweep_takes_out_what_is_dead_in_bounded_steps() {
        let mut table = RouteTable::default();
        for number in 0..1000_u32 {
            let [.., high, low] = number.to_be_bytes();
            let length = if number % 2 == 0 { 32 } else { 30 };
            insert(&mut table, &[route([10, high, low, 0], length, 1 + number % 3, 0)], RoutePlacement::Last);
        }
        table.begin_sweep();
        let mut steps = 0;
        loop {
            let looked = table.sweep(64, |known| known.instance != DeviceInstance(2));
            assert!(looked <= 64);
            steps += 1;
            if looked < 64 {
                break;
            }
        }
        assert!(steps >= 1000 / 64, "{steps}");
        assert_eq!(table.prefixes().flatten().count(), 667);
        assert!(table.prefixes().flatten().all(|known| known.route.device != 2));
        assert_eq!(table.sweep(64, |_| false), 0, "it has ended");
    }
}
