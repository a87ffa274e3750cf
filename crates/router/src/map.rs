//! The machine as the router sees it: devices, their addresses, routes.
use keepstate_rules::kind::letters;
use keepstate_rules::{AddressType, Device, Ground};
// Keys come from the machine's own configuration, never from a packet: a hash without a secret does.
use hashbrown::{HashMap, HashSet};
use std::net::IpAddr;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index: 1 or more, and its own.
    pub index: u32,
    /// Its name, of at most 15 letters.
    pub name: String,
    /// The largest datagram it takes.
    pub mtu: u32,
    /// The group it belongs to (`ip link set … group`); 0 is the default.
    pub group: u32,
    /// Its addresses, each with the length of its prefix. The first of a family is the one packets are sent from.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// To whom …
    pub prefix: IpAddr,
    /// … and how many bits of it count.
    pub length: u8,
    /// The index of the device it leaves by; 0: it leads nowhere, and whoever is sent there is told so.
    pub device: u32,
    /// The router it is handed to, if the device's peers are not the destination themselves.
    pub gateway: Option<IpAddr>,
}

/// Devices and routes.
#[derive(Clone, Debug, Default)]
pub struct Map {
    interfaces: Vec<Interface>,
    /// By index; the names as rules have them.
    devices: HashMap<u32, Device>,
    local: HashSet<IpAddr>,
    broadcasts: HashSet<IpAddr>,
    four: Table,
    six: Table,
}

/// The routes of one family, for each length of prefix one table: a lookup costs as many steps as there are lengths, however many routes there are.
#[derive(Clone, Debug, Default)]
struct Table {
    /// The longest prefixes first; of routes to one prefix the first given is the one taken.
    lengths: Vec<(u8, HashMap<u128, Vec<Route>>)>,
}

impl Table {
    fn add(&mut self, route: Route) {
        let place = self.lengths.partition_point(|(length, _)| *length > route.length);
        if self.lengths.get(place).is_none_or(|(length, _)| *length != route.length) {
            self.lengths.insert(place, (route.length, HashMap::new()));
        }
        if let Some((_, routes)) = self.lengths.get_mut(place) {
            routes.entry(first_bits(route.prefix, route.length)).or_default().push(route);
        }
    }

    fn find(&self, address: IpAddr, through: impl Fn(&Route) -> bool) -> Option<&Route> {
        self.lengths
            .iter()
            .find_map(|(length, routes)| routes.get(&first_bits(address, *length))?.iter().find(|route| through(route)))
    }
}

/// An address with all but its first `length` bits zero.
fn first_bits(address: IpAddr, length: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    };
    let free = u32::from(width - length.min(width));
    bits.checked_shr(free).and_then(|bits| bits.checked_shl(free)).unwrap_or(0)
}

impl Map {
    /// A map of these devices and routes; every prefix that a device has an address in is a route too.
    ///
    /// ```
    /// use keepstate_router::{Interface, Map, Route};
    /// use keepstate_rules::{AddressType, Ground};
    /// let lan = Interface { index: 1, name: "lan0".into(), mtu: 1500, group: 0, addresses: vec![([10, 1, 0, 1].into(), 24)] };
    /// let wan = Interface { index: 2, name: "wan0".into(), mtu: 1500, group: 0, addresses: vec![([192, 0, 2, 1].into(), 24)] };
    /// let default = Route { prefix: [0; 4].into(), length: 0, device: 2, gateway: Some([192, 0, 2, 254].into()) };
    /// let map = Map::new(vec![lan, wan], vec![default]);
    /// assert_eq!(map.route([10, 1, 0, 7].into(), None).unwrap().index, 1);
    /// assert_eq!(map.route([198, 51, 100, 9].into(), None).unwrap().index, 2);
    /// assert_eq!(map.address_type([192, 0, 2, 1].into(), None), AddressType::Local);
    /// ```
    pub fn new(interfaces: Vec<Interface>, routes: Vec<Route>) -> Map {
        let mut map = Map::default();
        routes.into_iter().for_each(|route| map.table(route.prefix).add(route));
        for interface in &interfaces {
            let index = interface.index;
            if let Some(name) = letters(&interface.name) {
                map.devices.insert(index, Device { index, name, group: interface.group });
            }
            for (address, length) in &interface.addresses {
                map.local.insert(*address);
                map.broadcasts.extend(broadcast(*address, *length));
                let own = Route { prefix: *address, length: *length, device: index, gateway: None };
                map.table(*address).add(own);
            }
        }
        map.interfaces = interfaces;
        map
    }

    fn table(&mut self, family: IpAddr) -> &mut Table {
        if family.is_ipv4() { &mut self.four } else { &mut self.six }
    }

    /// A device by its index.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// A device as rules know it.
    pub fn device(&self, index: u32) -> Option<Device> {
        self.devices.get(&index).copied()
    }

    /// Is it one of our own?
    pub fn is_local(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.local.contains(&address)
    }

    /// The device a packet to this address leaves by, and the neighbour it is handed to.
    pub fn way(&self, to: IpAddr) -> Option<(Device, IpAddr)> {
        self.way_by(to, None)
    }

    /// As [`Map::way`], among routes through this device only.
    pub(crate) fn way_by(&self, to: IpAddr, device: Option<u32>) -> Option<(Device, IpAddr)> {
        let route = self.find(to, device)?;
        Some((self.device(route.device)?, route.gateway.unwrap_or(to)))
    }

    fn find(&self, address: IpAddr, device: Option<u32>) -> Option<&Route> {
        let table = if address.is_ipv4() { &self.four } else { &self.six };
        table.find(address, |route| device.is_none_or(|device| route.device == device))
    }

    /// Is it the address to everybody of one of our prefixes?
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(four) if four.is_broadcast()) || self.broadcasts.contains(&address)
    }
}

/// The address to everybody of a prefix, if it has one.
fn broadcast(address: IpAddr, length: u8) -> Option<IpAddr> {
    let IpAddr::V4(address) = address else { return None };
    let mask = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    (length < 31).then(|| std::net::Ipv4Addr::from_bits(address.to_bits() | mask).into())
}

/// Do the first `length` bits agree?
fn is_in(address: IpAddr, prefix: IpAddr, length: u8) -> bool {
    let (difference, bits) = match (address, prefix) {
        (IpAddr::V4(address), IpAddr::V4(prefix)) => (u128::from(address.to_bits() ^ prefix.to_bits()), 32),
        (IpAddr::V6(address), IpAddr::V6(prefix)) => (address.to_bits() ^ prefix.to_bits(), 128),
        _ => return false,
    };
    let free = 128 - u32::from(length.min(bits)) - (128 - u32::from(bits));
    difference.checked_shr(free).unwrap_or(0) == 0
}

impl Ground for Map {
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType {
        let local = match device {
            None => self.is_local(address),
            Some(device) => {
                let own = self.interface(device).map(|interface| interface.addresses.as_slice()).unwrap_or_default();
                own.iter().any(|(own, _)| *own == address)
            }
        };
        if local {
            AddressType::Local
        } else if address.is_multicast() {
            AddressType::Multicast
        } else if self.is_broadcast(address) {
            AddressType::Broadcast
        } else if self.find(address, device).is_some() {
            AddressType::Unicast
        } else {
            AddressType::Unreachable
        }
    }

    fn route(&self, address: IpAddr, device: Option<u32>) -> Option<Device> {
        self.find(address, device).and_then(|route| self.device(route.device))
    }

    fn address(&self, device: u32, to: IpAddr) -> Option<IpAddr> {
        let own = &self.interface(device)?.addresses;
        let family = own.iter().filter(|(own, _)| own.is_ipv4() == to.is_ipv4());
        // An address in the destination's own prefix, else the first.
        let near = family.clone().find(|(own, length)| is_in(to, *own, *length));
        near.or_else(|| family.clone().next()).map(|(own, _)| *own)
    }

    fn mtu(&self, device: u32) -> u32 {
        self.interface(device).map_or(u32::MAX, |interface| interface.mtu)
    }
}
