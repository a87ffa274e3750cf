//! The machine as the router sees it: interfaces, their addresses, routes.
#![allow(clippy::disallowed_types, reason = "the keys are this host's own configuration, which no packet changes")]
mod listing;
mod rule_lookup;

pub use listing::RoutePage;

use crate::route_table::{DeviceInstance, Route, RoutePlacement, RouteTable, StoredRoute, prefix_bits};
use crate::source_address::SourceAddress;
use keepstate_rules::datatype::encode_name;
use keepstate_rules::{AddressType, InterfaceInfo, is_link_scoped};
// The keys come from the machine's own configuration, never from a packet: a hash without a secret is enough.
use hashbrown::{HashMap, HashSet};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index: 1 or more, and unique.
    pub index: u32,
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// The longest packet it sends, in bytes.
    pub mtu: u32,
    /// Its group (`ip link set … group`); 0 is the default.
    pub group: u32,
    /// Kind of its link layer, by the ARPHRD numbers: 1 is Ethernet, [`LINK_TYPE_NONE`] none at all.
    pub link_type: u16,
    /// Its kind (`wireguard`, `vlan`, …); empty for hardware.
    pub kind: String,
    /// Its addresses, each with its prefix length. The first of a family is the source of packets the router itself sends, unless another shares the destination's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Link type of an interface without link layer headers, as a TUN interface has it.
pub const LINK_TYPE_NONE: u16 = 0xfffe;
/// Link type of the loopback interface, and its index in every network namespace.
const LINK_TYPE_LOOPBACK: u16 = 772;
pub(crate) const LOOPBACK_INDEX: u32 = 1;

impl Interface {
    /// An interface without addresses, in the default group.
    pub fn new(index: u32, name: &str, mtu: u32) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            mtu,
            group: 0,
            link_type: LINK_TYPE_NONE,
            kind: String::new(),
            addresses: Vec::new(),
        }
    }

    /// Adds an address with its prefix length.
    #[must_use]
    pub fn with_address(mut self, address: IpAddr, prefix_length: u8) -> Interface {
        self.addresses.push((address, prefix_length));
        self
    }
}

/// Interfaces, their addresses, and routes: what a router forwards by. It is changed piece by piece as the machine is: the cost of a change does not grow with the table.
#[derive(Clone, Debug, Default)]
pub struct FibTable {
    /// By index.
    interfaces: BTreeMap<u32, Interface>,
    /// The addresses that may be sources, by interface.
    sources: BTreeMap<u32, Vec<SourceAddress>>,
    /// By index, what is asked for every packet.
    devices: HashMap<u32, Device>,
    /// The number that the newest interface has.
    last_instance: DeviceInstance,
    /// Own addresses, and broadcast addresses of their prefixes, each with its interfaces, the oldest first.
    local_addresses: HashMap<IpAddr, Vec<u32>>,
    broadcasts: HashMap<IpAddr, Vec<u32>>,
    /// The subnet-router anycast address of each IPv6 prefix (RFC 4291, 2.6.1).
    anycasts: HashMap<IpAddr, Vec<u32>>,
    routes_v4: RouteTable,
    routes_v6: RouteTable,
}

/// An interface as packets need it.
#[derive(Clone, Debug)]
struct Device {
    /// As rules see it; none if its name is too long for them.
    info: Option<InterfaceInfo>,
    mtu: u32,
    /// Routes of IPv4 and of IPv6 that were added for another than this one are gone.
    instances: [DeviceInstance; 2],
}

/// A change of the machine's interfaces and routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibChange {
    /// A new interface, or one that has changed: all that is known of it, with its addresses in the kernel's order. If routes may have come back with it, [`FibChange::Routing`] says so.
    Interface(Interface, Vec<SourceAddress>),
    /// An interface that is gone, or down: its routes lead nowhere any more.
    InterfaceGone(u32),
    /// As [`FibChange::InterfaceGone`], of an interface that no routes led to.
    UnroutedInterfaceGone(u32),
    /// An address is gone from an interface, perhaps to come again: connections masqueraded with it end. A change of the interface follows.
    AddressGone(u32, IpAddr),
    /// The routes of an interface and of IPv4 are gone, except those of its own addresses.
    Ipv4RoutesGone(u32),
    /// A new route: its ways, all to one prefix with one metric.
    Route(Vec<Route>, RoutePlacement),
    /// A route, or some of its ways, is gone.
    RouteGone(Vec<Route>),
    /// A route to this prefix has come or gone in a table that is not this one.
    OtherRoute(IpAddr, u8),
    /// The choice of routes has changed: policy rules, other tables.
    Routing,
}

impl FibTable {
    /// A table of these interfaces and routes. Each address of an interface adds a route to its prefix.
    ///
    /// ```
    /// use keepstate_router::{FibTable, Interface, Route};
    /// use keepstate_rules::{AddressType, Fib};
    /// let lan = Interface::new(1, "lan0", 1500).with_address([10, 1, 0, 1].into(), 24);
    /// let wan = Interface::new(2, "wan0", 1500).with_address([192, 0, 2, 1].into(), 24);
    /// let default = Route::new([0; 4].into(), 0, 2).via([192, 0, 2, 254].into());
    /// let fib = FibTable::new(vec![lan, wan], vec![default]);
    /// assert_eq!(fib.route_lookup([10, 1, 0, 7].into(), None).unwrap().index, 1);
    /// assert_eq!(fib.route_lookup([198, 51, 100, 9].into(), None).unwrap().index, 2);
    /// assert_eq!(fib.address_type([192, 0, 2, 1].into(), None), AddressType::Local);
    /// ```
    pub fn new(interfaces: Vec<Interface>, routes: Vec<Route>) -> FibTable {
        let mut fib = FibTable::default();
        for interface in interfaces {
            let own = interface.addresses.iter();
            let sources = own.map(|(address, length)| SourceAddress::new(interface.index, *address, *length)).collect();
            fib.set_interface(interface, sources);
        }
        routes.into_iter().for_each(|route| fib.add_route(&[route], RoutePlacement::Last));
        fib
    }

    /// Whether both have the same own addresses.
    pub(crate) fn has_same_addresses(&self, other: &FibTable) -> bool {
        let has = |address| other.local_addresses.contains_key(address);
        self.local_addresses.len() == other.local_addresses.len() && self.local_addresses.keys().all(has)
    }

    /// Applies a change. Returns the own addresses that are gone.
    pub fn apply(&mut self, change: FibChange) -> Vec<IpAddr> {
        match change {
            FibChange::Interface(interface, sources) => return self.set_interface(interface, sources),
            FibChange::InterfaceGone(index) | FibChange::UnroutedInterfaceGone(index) => {
                return self.remove_interface(index);
            }
            FibChange::AddressGone(index, address) => {
                let owners = self.local_addresses.get(&address);
                return owners.filter(|all| all.iter().all(|own| *own == index)).map(|_| address).into_iter().collect();
            }
            FibChange::Ipv4RoutesGone(index) => {
                let instance = self.next_instance();
                if let Some(Device { instances: [of_v4, _], .. }) = self.devices.get_mut(&index) {
                    *of_v4 = instance;
                    self.routes_v4.begin_sweep();
                }
            }
            FibChange::Route(ways, placement) => self.add_route(&ways, placement),
            FibChange::RouteGone(ways) => {
                if let Some(first) = ways.first() {
                    self.routes_of_family(first.prefix).remove(&ways, false);
                }
            }
            FibChange::OtherRoute(..) | FibChange::Routing => (),
        }
        Vec::new()
    }

    fn add_route(&mut self, ways: &[Route], placement: RoutePlacement) {
        let Some(first) = ways.first() else { return };
        let (devices, table) = self.devices_and_routes(first.prefix);
        table.insert(ways, false, placement, |device| instance_of(devices, device, first.prefix));
    }

    fn next_instance(&mut self) -> DeviceInstance {
        self.last_instance.0 = self.last_instance.0.wrapping_add(1);
        self.last_instance
    }

    fn set_interface(&mut self, interface: Interface, sources: Vec<SourceAddress>) -> Vec<IpAddr> {
        let index = interface.index;
        let known = self.devices.get(&index).map(|device| device.instances);
        let instances = known.unwrap_or_else(|| [self.next_instance(); 2]);
        let info = encode_name(&interface.name).map(|name| InterfaceInfo {
            index,
            name,
            group: interface.group,
            link_type: interface.link_type,
            kind: encode_name(&interface.kind).unwrap_or(0),
        });
        self.devices.insert(index, Device { info, mtu: interface.mtu, instances });
        self.sources.insert(index, sources);
        let before = self.interfaces.insert(index, interface).map(|known| known.addresses).unwrap_or_default();
        let now = self.interfaces.get(&index).map(|known| known.addresses.clone()).unwrap_or_default();
        if before == now {
            return Vec::new();
        }
        let (old, new): (HashSet<_>, HashSet<_>) = (before.iter().collect(), now.iter().collect());
        let mut gone = Vec::new();
        for own in before.iter().filter(|own| !new.contains(own)) {
            gone.extend(self.remove_address(index, *own).then_some(own.0));
        }
        for (address, length) in now.iter().filter(|own| !old.contains(own)) {
            self.add_address(index, (*address, *length));
        }
        gone
    }

    fn remove_interface(&mut self, index: u32) -> Vec<IpAddr> {
        self.sources.remove(&index);
        let Some(interface) = self.interfaces.remove(&index) else { return Vec::new() };
        let mut gone = Vec::new();
        for own in interface.addresses {
            gone.extend(self.remove_address(index, own).then_some(own.0));
        }
        self.devices.remove(&index);
        self.routes_v4.begin_sweep();
        self.routes_v6.begin_sweep();
        gone
    }

    fn add_address(&mut self, index: u32, (address, length): (IpAddr, u8)) {
        self.local_addresses.entry(address).or_default().push(index);
        if let Some(broadcast) = broadcast_address(address, length) {
            self.broadcasts.entry(broadcast).or_default().push(index);
        }
        if let Some(anycast) = anycast_address(address, length) {
            self.anycasts.entry(anycast).or_default().push(index);
        }
        let route = Route::new(address, length, index);
        let (devices, table) = self.devices_and_routes(address);
        table.insert(&[route], true, RoutePlacement::Last, |device| instance_of(devices, device, address));
    }

    /// True if this machine does not have the address any more.
    fn remove_address(&mut self, index: u32, (address, length): (IpAddr, u8)) -> bool {
        let others = self.interfaces.get(&index).map(|interface| interface.addresses.as_slice()).unwrap_or_default();
        let same_prefix = others.iter().any(|(other, prefix)| {
            *prefix == length
                && other.is_ipv4() == address.is_ipv4()
                && prefix_bits(*other, length) == prefix_bits(address, length)
        });
        // Several addresses of one prefix share their route.
        if !same_prefix {
            self.routes_of_family(address).remove(&[Route::new(address, length, index)], true);
        }
        if let Some(broadcast) = broadcast_address(address, length) {
            remove_owner(&mut self.broadcasts, broadcast, index);
        }
        if let Some(anycast) = anycast_address(address, length) {
            remove_owner(&mut self.anycasts, anycast, index);
        }
        remove_owner(&mut self.local_addresses, address, index)
    }

    /// Takes out some of the routes of interfaces that are gone: a bounded piece of work. Until then they are there, but not found.
    pub(crate) fn sweep_routes(&mut self) {
        let devices = &self.devices;
        let alive = |known: &StoredRoute| is_usable(devices, known);
        let looked = self.routes_v4.sweep(ROUTES_PER_SWEEP, alive);
        self.routes_v6.sweep(ROUTES_PER_SWEEP - looked, alive);
    }

    /// Sets what the kernel knows of the addresses beside their values, in its order: which of them are sources. Without it all are permanent and primary.
    #[must_use]
    pub fn with_source_addresses(mut self, sources: Vec<SourceAddress>) -> FibTable {
        self.sources.clear();
        for source in sources {
            self.sources.entry(source.ifindex).or_default().push(source);
        }
        self
    }

    fn routes_of_family(&mut self, family: IpAddr) -> &mut RouteTable {
        self.devices_and_routes(family).1
    }

    fn devices_and_routes(&mut self, family: IpAddr) -> (&HashMap<u32, Device>, &mut RouteTable) {
        (&self.devices, if family.is_ipv4() { &mut self.routes_v4 } else { &mut self.routes_v6 })
    }

    /// An interface by its index.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.get(&index)
    }

    /// An interface as rules see it.
    pub fn device(&self, index: u32) -> Option<InterfaceInfo> {
        self.devices.get(&index)?.info
    }

    /// Is it the loopback interface of a network namespace of Linux?
    pub(crate) fn is_loopback(&self, index: u32) -> bool {
        index == LOOPBACK_INDEX && self.device(index).is_some_and(|device| device.link_type == LINK_TYPE_LOOPBACK)
    }

    /// The interface of a name, encoded as rules have it.
    pub(crate) fn device_by_name(&self, name: u128) -> Option<InterfaceInfo> {
        self.devices.values().filter_map(|device| device.info).find(|info| info.name == name)
    }

    /// Is it an address of this machine?
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local_addresses.contains_key(&address)
    }

    /// The interface a packet to this address leaves by, and the neighbour it is sent to.
    pub fn next_hop(&self, to: IpAddr) -> Option<(InterfaceInfo, IpAddr)> {
        self.next_hop_lookup(to, None)
    }

    /// As [`FibTable::next_hop`], among routes through this interface only.
    pub(crate) fn next_hop_lookup(&self, to: IpAddr, device: Option<u32>) -> Option<(InterfaceInfo, IpAddr)> {
        let route = self.find(to, device)?;
        Some((self.device(route.device)?, route.gateway.unwrap_or(to)))
    }

    fn find(&self, address: IpAddr, device: Option<u32>) -> Option<&Route> {
        let table = if address.is_ipv4() { &self.routes_v4 } else { &self.routes_v6 };
        table.find(address, |known| {
            device.is_none_or(|device| known.route.device == device) && is_usable(&self.devices, known)
        })
    }

    /// As Linux (`inet_dev_addr_type`): whoever is neither local, broadcast nor multicast is unicast, with or without a route.
    fn address_type_v4(&self, address: Ipv4Addr, device: Option<u32>) -> AddressType {
        if address.is_unspecified() || address.is_broadcast() {
            AddressType::Broadcast
        } else if address.is_multicast() {
            AddressType::Multicast
        } else if self.is_local_v4(address, device) {
            AddressType::Local
        } else if is_through(self.broadcasts.get(&IpAddr::V4(address)), device) {
            AddressType::Broadcast
        } else {
            AddressType::Unicast
        }
    }

    fn is_local_v4(&self, address: Ipv4Addr, device: Option<u32>) -> bool {
        is_through(self.local_addresses.get(&IpAddr::V4(address)), device) || device.is_none() && address.is_loopback()
    }

    fn is_local_v6(&self, address: Ipv6Addr, device: Option<u32>) -> bool {
        let Some(device) = device else { return self.is_local(address.into()) };
        let interface = self.interface(device);
        interface.is_some_and(|interface| interface.addresses.iter().any(|(own, _)| *own == address))
    }

    /// As Linux (`nft_fib6_eval_type`): an address of our own on another interface than `device` is unicast; only a link-local address is looked up on `device`.
    fn address_type_v6(&self, address: Ipv6Addr, device: Option<u32>) -> AddressType {
        if self.is_local_v6(address, device) {
            AddressType::Local
        } else if address.is_multicast() {
            AddressType::Multicast
        } else if self.is_local(address.into()) && !is_link_scoped(address.into()) {
            AddressType::Unicast
        } else {
            match self.find(address.into(), device.filter(|_| is_link_scoped(address.into()))) {
                None => AddressType::Unreachable,
                Some(route) if route.device == 0 => AddressType::Unreachable,
                // The address of a prefix itself is that of its routers (RFC 4291, 2.6.1).
                Some(Route { prefix, length: length @ 0..127, gateway: None, .. })
                    if prefix_bits(*prefix, *length) == address.to_bits() =>
                {
                    AddressType::Anycast
                }
                Some(_) if address.is_unspecified() => AddressType::Unspecified,
                Some(_) => AddressType::Unicast,
            }
        }
    }

    /// Is it the broadcast address of one of our prefixes?
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(four) if four.is_broadcast()) || self.broadcasts.contains_key(&address)
    }
}

/// Is it the address of an interface, and of `device` if one is given? Of several with one address the oldest has it.
fn is_through(own: Option<&Vec<u32>>, device: Option<u32>) -> bool {
    own.and_then(|own| own.first()).is_some_and(|own| device.is_none_or(|device| device == *own))
}

/// What is there under an index, for routes of the family that `family` is of.
fn instance_of(devices: &HashMap<u32, Device>, index: u32, family: IpAddr) -> DeviceInstance {
    let Some(Device { instances: [of_v4, of_v6], .. }) = devices.get(&index) else { return DeviceInstance::default() };
    if family.is_ipv4() { *of_v4 } else { *of_v6 }
}

/// Does a route lead to an interface that is there, or to none by intention?
fn is_usable(devices: &HashMap<u32, Device>, known: &StoredRoute) -> bool {
    let Route { device, prefix, .. } = known.route;
    device == 0
        || devices.contains_key(&device) && (known.is_own || instance_of(devices, device, prefix) == known.instance)
}

/// Takes an interface off an address's list. True if that was the last.
fn remove_owner(owners: &mut HashMap<IpAddr, Vec<u32>>, address: IpAddr, index: u32) -> bool {
    let Some(list) = owners.get_mut(&address) else { return false };
    if let Some(at) = list.iter().position(|owner| *owner == index) {
        list.remove(at);
    }
    let last = list.is_empty();
    if last {
        owners.remove(&address);
    }
    last
}

/// Prefixes that one step looks at for routes of interfaces that are gone.
const ROUTES_PER_SWEEP: usize = 2048;

/// The broadcast address of a prefix, if it has one.
fn broadcast_address(address: IpAddr, length: u8) -> Option<IpAddr> {
    let IpAddr::V4(address) = address else { return None };
    let mask = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    (length < 31).then(|| Ipv4Addr::from_bits(address.to_bits() | mask).into())
}

/// The subnet-router anycast address of a prefix, if it has one: routers with the prefix answer to it.
fn anycast_address(address: IpAddr, length: u8) -> Option<IpAddr> {
    let IpAddr::V6(_) = address else { return None };
    // Of longer prefixes (RFC 6164) there is none.
    (length < 127).then(|| Ipv6Addr::from_bits(prefix_bits(address, length)).into())
}
