//! The machine as the router sees it: interfaces, their addresses, routes.
#![allow(clippy::disallowed_types, reason = "the keys are this host's own configuration, which no packet changes")]
use crate::source_address::{SourceAddress, select_v4, select_v6};
use keepstate_rules::datatype::encode_name;
use keepstate_rules::{AddressType, Fib, InterfaceInfo, is_link_scoped};
// The keys come from the machine's own configuration, never from a packet: a hash without a secret is enough.
use hashbrown::{HashMap, HashSet};
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
}

impl Route {
    /// A route to a prefix on the interface of this index.
    pub fn new(prefix: IpAddr, length: u8, device: u32) -> Route {
        Route { prefix, length, device, gateway: None }
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
        let Route { prefix, length, device, gateway } = self;
        write!(f, "{prefix}/{length}")?;
        gateway.map_or(Ok(()), |gateway| write!(f, " via {gateway}"))?;
        if *device == 0 { f.write_str(" unreachable") } else { write!(f, " dev {device}") }
    }
}

/// Interfaces, their addresses, and routes: what a router forwards by.
#[derive(Clone, Debug, Default)]
pub struct FibTable {
    interfaces: Vec<Interface>,
    /// The addresses that may be sources.
    sources: Vec<SourceAddress>,
    /// By index, as rules see them.
    rule_devices: HashMap<u32, InterfaceInfo>,
    /// Own addresses, and broadcast addresses of their prefixes, with the interface of each.
    local_addresses: HashMap<IpAddr, u32>,
    broadcasts: HashMap<IpAddr, u32>,
    /// The subnet-router anycast address of each IPv6 prefix (RFC 4291, 2.6.1).
    anycasts: HashSet<IpAddr>,
    routes_v4: RoutePrefixes,
    routes_v6: RoutePrefixes,
}

/// The routes of one family: one table a prefix length. A lookup takes as many steps as there are lengths, however many routes there are.
#[derive(Clone, Debug, Default)]
struct RoutePrefixes {
    /// The longest prefixes first; of several routes to one prefix the first is used.
    by_length: Vec<(u8, HashMap<u128, Vec<Route>>)>,
}

impl RoutePrefixes {
    fn insert(&mut self, route: Route) {
        let place = self.by_length.partition_point(|(length, _)| *length > route.length);
        if self.by_length.get(place).is_none_or(|(length, _)| *length != route.length) {
            self.by_length.insert(place, (route.length, HashMap::new()));
        }
        if let Some((_, routes)) = self.by_length.get_mut(place) {
            routes.entry(prefix_bits(route.prefix, route.length)).or_default().push(route);
        }
    }

    fn find(&self, address: IpAddr, through: impl Fn(&Route) -> bool) -> Option<&Route> {
        self.by_length.iter().find_map(|(length, routes)| {
            routes.get(&prefix_bits(address, *length))?.iter().find(|route| through(route))
        })
    }
}

/// An address with all but its first `length` bits zero.
fn prefix_bits(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let free = u32::from(width - length.min(width));
    bits.checked_shr(free).and_then(|bits| bits.checked_shl(free)).unwrap_or(0)
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
        routes.into_iter().for_each(|route| fib.routes_of_family(route.prefix).insert(route));
        for interface in &interfaces {
            let index = interface.index;
            if let Some(name) = encode_name(&interface.name) {
                fib.rule_devices.insert(
                    index,
                    InterfaceInfo {
                        index,
                        name,
                        group: interface.group,
                        link_type: interface.link_type,
                        kind: encode_name(&interface.kind).unwrap_or(0),
                    },
                );
            }
            for (address, length) in &interface.addresses {
                fib.local_addresses.entry(*address).or_insert(index);
                if let Some(broadcast) = broadcast_address(*address, *length) {
                    fib.broadcasts.entry(broadcast).or_insert(index);
                }
                fib.anycasts.extend(anycast_address(*address, *length));
                let own = Route { prefix: *address, length: *length, device: index, gateway: None };
                fib.routes_of_family(*address).insert(own);
            }
        }
        let sources = interfaces.iter().flat_map(|interface| {
            let own = interface.addresses.iter();
            own.map(|(address, length)| SourceAddress::new(interface.index, *address, *length))
        });
        fib.sources = sources.collect();
        fib.interfaces = interfaces;
        fib
    }

    /// Whether both have the same own addresses.
    pub(crate) fn has_same_addresses(&self, other: &FibTable) -> bool {
        let has = |address| other.local_addresses.contains_key(address);
        self.local_addresses.len() == other.local_addresses.len() && self.local_addresses.keys().all(has)
    }

    /// Sets what the kernel knows of the addresses beside their values, in its order: which of them are sources. Without it all are permanent and primary.
    #[must_use]
    pub fn with_source_addresses(mut self, sources: Vec<SourceAddress>) -> FibTable {
        self.sources = sources;
        self
    }

    fn routes_of_family(&mut self, family: IpAddr) -> &mut RoutePrefixes {
        if family.is_ipv4() { &mut self.routes_v4 } else { &mut self.routes_v6 }
    }

    /// An interface by its index.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// An interface as rules see it.
    pub fn device(&self, index: u32) -> Option<InterfaceInfo> {
        self.rule_devices.get(&index).copied()
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
        table.find(address, |route| device.is_none_or(|device| route.device == device))
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

/// Is it the address of an interface, and of `device` if one is given?
fn is_through(own: Option<&u32>, device: Option<u32>) -> bool {
    own.is_some_and(|own| device.is_none_or(|device| device == *own))
}

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

impl Fib for FibTable {
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType {
        match address {
            IpAddr::V4(address) => self.address_type_v4(address, device),
            IpAddr::V6(address) => self.address_type_v6(address, device),
        }
    }

    fn is_own_address(&self, address: IpAddr, device: Option<u32>) -> bool {
        // Asked for every packet: what `address_type` would say, without a look at the routes.
        match address {
            IpAddr::V4(four) if four.is_unspecified() || four.is_broadcast() || four.is_multicast() => false,
            IpAddr::V4(four) => self.is_local_v4(four, None),
            IpAddr::V6(six) => {
                self.anycasts.contains(&address) || self.is_local_v6(six, device.filter(|_| is_link_scoped(address)))
            }
        }
    }

    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo> {
        let on_link = device.filter(|_| is_link_scoped(address));
        let leaves_by = match address {
            // Every interface has a route to ff00::/8; of several the first is used.
            IpAddr::V6(group) if group.is_multicast() => on_link.or_else(|| Some(self.interfaces.first()?.index))?,
            _ => self.find(address, on_link)?.device,
        };
        device.is_none_or(|device| device == leaves_by).then(|| self.device(leaves_by))?
    }

    fn source_address(&self, device: u32, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(to) => {
                let route = self.find(to.into(), Some(device)).and_then(|route| route.gateway);
                let next_hop =
                    route.and_then(|gateway| if let IpAddr::V4(gateway) = gateway { Some(gateway) } else { None });
                select_v4(&self.sources, device, next_hop.unwrap_or(to))
            }
            IpAddr::V6(to) => select_v6(&self.sources, device, to),
        }
    }

    fn mtu(&self, device: u32) -> u32 {
        self.interface(device).map_or(u32::MAX, |interface| interface.mtu)
    }
}
