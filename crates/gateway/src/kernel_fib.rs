//! The kernel's interfaces, addresses and routes, as the router's FIB.
use keepstate_linux::rtnetlink::message::ifa_flag;
use keepstate_linux::rtnetlink::{RtAddress, RtLink, RtMessage, RtPlacement, RtRoute};
use keepstate_linux::tc::CARRIER_NAME;
use keepstate_router::{FibChange, FibTable, Interface, Route, RoutePlacement, SourceAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The main routing table.
const RT_TABLE_MAIN: u32 = 254;

/// The links among the messages of a dump.
pub(super) fn links(messages: &[RtMessage]) -> Vec<&RtLink> {
    messages.iter().filter_map(|message| if let RtMessage::Link(link) = message { Some(link) } else { None }).collect()
}

/// What the kernel has told of interfaces and addresses, so that its changes can be told as the router's.
#[derive(Default)]
pub(super) struct KernelLinks {
    links: BTreeMap<u32, KnownLink>,
    /// Interfaces whose addresses have changed since [`KernelLinks::finish`].
    changed: BTreeSet<u32>,
    /// Some route has several ways: the kernel does not tell when one of them comes back with its interface (fib_sync_up).
    has_multipath: bool,
}

/// An interface, up or down.
struct KnownLink {
    link: RtLink,
    /// In the kernel's order.
    addresses: Vec<RtAddress>,
    /// There may be routes through it, other than those of its own link.
    may_have_routes: bool,
    /// Packets may have come in by it.
    has_been_up: bool,
}

/// What a message of the kernel asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowUp {
    /// Nothing more.
    Done,
    /// The kernel is about to change more than it tells: everything is to be read again, soon.
    Resync,
}

/// The FIB of a dump: interfaces that are up, their addresses, the routes of the main table.
pub(super) fn build_fib(messages: Vec<RtMessage>) -> (KernelLinks, FibTable) {
    let (mut links, mut fib, mut routes) = (KernelLinks::default(), FibTable::default(), Vec::new());
    for message in messages {
        match message {
            RtMessage::Link(link) => {
                let may_have_routes = !is_carrier(&link);
                let known = KnownLink { may_have_routes, has_been_up: true, addresses: Vec::new(), link };
                links.links.insert(known.link.index, known);
            }
            RtMessage::Address(address) => {
                if let Some(known) = links.links.get_mut(&address.ifindex) {
                    known.addresses.push(address);
                }
            }
            RtMessage::Route(..) => routes.push(message),
            _ => (),
        }
    }
    let mut changes: Vec<FibChange> = links.links.values().filter_map(KnownLink::as_change).collect();
    // Routes that are there before their interface is known would never be found.
    for route in routes {
        let _ = links.apply(route, &mut changes);
    }
    changes.into_iter().for_each(|change| _ = fib.apply(change));
    (links, fib)
}

impl KernelLinks {
    /// Tells a change of the kernel as changes of the router's FIB. Call [`KernelLinks::finish`] after the last of a batch.
    pub(super) fn apply(&mut self, message: RtMessage, changes: &mut Vec<FibChange>) -> FollowUp {
        self.note_routes(&message);
        match message {
            RtMessage::Link(link) => return self.set_link(link, changes),
            RtMessage::LinkGone(index) => {
                let gone = self.links.remove(&index).map_or(FibChange::InterfaceGone(index), |known| known.as_gone());
                changes.push(gone);
            }
            RtMessage::Address(address) => {
                if let Some(known) = self.links.get_mut(&address.ifindex) {
                    let is_first = address.address.is_ipv4() && !known.has_ipv4();
                    // Router advertisements repeat what is known.
                    if known.set_address(address) {
                        self.changed.insert(address.ifindex);
                    }
                    if is_first && self.has_multipath {
                        return FollowUp::Resync;
                    }
                }
            }
            RtMessage::AddressGone(gone) => {
                if let Some(known) = self.links.get_mut(&gone.ifindex) {
                    known.addresses.retain(|address| !is_same_address(address, &gone));
                    // Even if it comes back before the change of the interface is told.
                    changes.push(FibChange::AddressGone(gone.ifindex, gone.address));
                    self.changed.insert(gone.ifindex);
                    if gone.address.is_ipv4() && !known.has_ipv4() {
                        // As Linux does in fib_disable_ip, and does not tell.
                        changes.push(FibChange::Ipv4RoutesGone(gone.ifindex));
                    }
                }
            }
            RtMessage::Route(route, _) | RtMessage::RouteGone(route) if route.table != RT_TABLE_MAIN => {
                changes.push(FibChange::OtherRoute(route.prefix, route.prefix_length));
            }
            // No flow goes by an interface that is not known yet.
            RtMessage::Forwards(index, _) if !self.links.contains_key(&index) => (),
            RtMessage::RoutingChanged(_) | RtMessage::Forwards(..) | RtMessage::ForwardsV6(_) => {
                changes.push(FibChange::Routing)
            }
            RtMessage::Route(route, placement) => {
                self.has_multipath |= route.nexthops.len() > 1;
                let placement = match placement {
                    RtPlacement::Append => RoutePlacement::Last,
                    RtPlacement::Prepend => RoutePlacement::First,
                    RtPlacement::Replace => RoutePlacement::Replace,
                };
                changes.push(FibChange::Route(ways(&route), placement));
            }
            RtMessage::RouteGone(route) => {
                changes.push(FibChange::RouteGone(ways(&route)));
            }
            _ => (),
        }
        FollowUp::Done
    }

    /// Notes which interfaces routes may lead to.
    fn note_routes(&mut self, message: &RtMessage) {
        let mut note = |index: u32| {
            if let Some(known) = self.links.get_mut(&index) {
                known.may_have_routes = true;
            }
        };
        match message {
            RtMessage::Route(route, _) if !is_of_link(route.prefix) => {
                route.nexthops.iter().for_each(|way| note(way.ifindex));
            }
            RtMessage::Address(address) if !is_of_link(address.address) => note(address.ifindex),
            // Nexthop objects name interfaces too.
            RtMessage::RoutingChanged(_) => {
                self.links.values_mut().for_each(|known| known.may_have_routes = !is_carrier(&known.link));
            }
            _ => (),
        }
    }

    fn set_link(&mut self, link: RtLink, changes: &mut Vec<FibChange>) -> FollowUp {
        let (index, is_up) = (link.index, link.is_up);
        let before = self.links.remove(&index);
        let was_up = before.as_ref().is_some_and(|known| known.link.is_up);
        if let Some(KnownLink { link: before, may_have_routes, has_been_up, .. }) = &before {
            // The kernel does not tell of routes that go by the carrier or come back with it, nor of a VRF that it is a port of.
            let moves_routes = is_up && (!was_up || before.has_carrier != link.has_carrier);
            let looks_different = |one: &RtLink, other: &RtLink| {
                (&one.name, one.mtu, one.group, one.link_type, &one.kind, one.master)
                    != (&other.name, other.mtu, other.group, other.link_type, &other.kind, other.master)
            };
            if *may_have_routes && moves_routes || *has_been_up && looks_different(before, &link) {
                changes.push(FibChange::Routing);
            }
        }
        let has_been_up = is_up || before.as_ref().is_some_and(|known| known.has_been_up);
        let (addresses, may_have_routes) =
            before.map(|known| (known.addresses, known.may_have_routes)).unwrap_or_default();
        let known = KnownLink { link, addresses, may_have_routes, has_been_up };
        match known.as_change() {
            Some(change) => changes.push(change),
            // The kernel tells of no IPv4 route that went with its interface.
            None if was_up => changes.push(known.as_gone()),
            None => (),
        }
        self.links.insert(index, known);
        if self.has_multipath && is_up && !was_up { FollowUp::Resync } else { FollowUp::Done }
    }

    /// The interfaces whose addresses have changed since the last call.
    pub(super) fn finish(&mut self, changes: &mut Vec<FibChange>) {
        let changed = std::mem::take(&mut self.changed);
        changes.extend(changed.iter().filter_map(|index| self.links.get(index)?.as_change()));
    }
}

impl KnownLink {
    /// As the router's interface; none while it is down.
    fn as_change(&self) -> Option<FibChange> {
        let KnownLink { link, addresses, .. } = self;
        let interface = Interface {
            index: link.index,
            name: link.name.clone(),
            mtu: link.mtu,
            group: link.group,
            link_type: link.link_type,
            kind: link.kind.clone(),
            addresses: addresses.iter().map(|address| (address.address, address.prefix_length)).collect(),
        };
        link.is_up.then(|| FibChange::Interface(interface, addresses.iter().map(source_address).collect()))
    }

    /// What becomes of the router's interface when it is gone or down.
    fn as_gone(&self) -> FibChange {
        match self.may_have_routes {
            true => FibChange::InterfaceGone(self.link.index),
            false => FibChange::UnroutedInterfaceGone(self.link.index),
        }
    }

    fn has_ipv4(&self) -> bool {
        self.addresses.iter().any(|address| address.address.is_ipv4())
    }

    /// A new address goes where the kernel puts it: IPv4's primary ones in front of the secondary ones and by scope, the oldest first; IPv6's by scope, the newest first.
    /// False if it was known as it is.
    fn set_address(&mut self, new: RtAddress) -> bool {
        let list = &mut self.addresses;
        if let Some(known) = list.iter_mut().find(|address| is_same_address(address, &new)) {
            return std::mem::replace(known, new) != new;
        }
        let is_primary = |address: &RtAddress| address.flags & ifa_flag::SECONDARY == 0;
        let at = if new.address.is_ipv6() {
            list.iter().position(|address| address.address.is_ipv6() && address.scope >= new.scope)
        } else if is_primary(&new) {
            let comes_before =
                |address: &RtAddress| address.address.is_ipv4() && is_primary(address) && new.scope <= address.scope;
            Some(list.iter().rposition(comes_before).map_or(0, |last| last + 1))
        } else {
            list.iter().rposition(|address| address.address.is_ipv4()).map(|last| last + 1)
        };
        list.insert(at.unwrap_or(list.len()), new);
        true
    }
}

/// Is it the carrier of the programs at tc's hooks? No route leads there. Its carrier comes and goes with the gateway, and the kernel tells so up to a second later.
fn is_carrier(link: &RtLink) -> bool {
    link.name == CARRIER_NAME
}

/// Is it an address that every link has by itself: link-local, or a group?
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local() || address.is_multicast())
}

fn is_same_address(one: &RtAddress, other: &RtAddress) -> bool {
    (one.address, one.prefix_length, one.network) == (other.address, other.prefix_length, other.network)
}

/// The router's routes of one of the kernel's: one a way.
fn ways(route: &RtRoute) -> Vec<Route> {
    let new = |device, gateway| Route {
        prefix: route.prefix,
        length: route.prefix_length,
        device,
        gateway,
        metric: route.metric,
    };
    if route.rejects {
        return vec![new(0, None)];
    }
    route.nexthops.iter().map(|way| new(way.ifindex, way.gateway)).collect()
}

fn source_address(address: &RtAddress) -> SourceAddress {
    let has = |flag| address.flags & flag != 0;
    SourceAddress {
        ifindex: address.ifindex,
        address: address.address,
        network: address.network,
        prefix_length: address.prefix_length,
        scope: address.scope,
        secondary: has(ifa_flag::SECONDARY),
        deprecated: has(ifa_flag::DEPRECATED | ifa_flag::OPTIMISTIC),
        tentative: has(ifa_flag::DADFAILED) || has(ifa_flag::TENTATIVE) && !has(ifa_flag::OPTIMISTIC),
    }
}

#[cfg(test)]
mod tests;
