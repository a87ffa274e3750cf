//! Interfaces, addresses and routes: what rules may ask of the machine.
use std::net::IpAddr;

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Index.
    pub index: u32,
    /// Name, encoded by [`encode_name`](crate::datatype::encode_name).
    pub name: u128,
    /// Interface group; 0 is the default.
    pub group: u32,
    /// Kind of its link layer, by the ARPHRD numbers: 1 is Ethernet.
    pub link_type: u16,
    /// Its kind (`wireguard`, `vlan`, …), encoded as the name is; 0 has none, as of a network card.
    pub kind: u128,
}

/// Type of an address by the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's (rtnetlink)")]
pub enum AddressType {
    Unspecified = 0,
    Unicast = 1,
    Local = 2,
    Broadcast = 3,
    Anycast = 4,
    Multicast = 5,
    Blackhole = 6,
    Unreachable = 7,
    Prohibit = 8,
}

/// Routing table and interface addresses of the machine.
pub trait Fib {
    /// Type of an address; with `device`, as that interface sees it: an address of another interface is not local to it.
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType;
    /// The interface by which a packet to this address leaves. With `device`: that interface if the best route leaves by it, else `None`. A
    /// [link-scoped](is_link_scoped) address is looked up among the routes of `device` only.
    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo>;
    /// Is a packet to this address, come in by `device`, for the machine itself? Broadcasts and multicasts are not meant.
    fn is_own_address(&self, address: IpAddr, device: Option<u32>) -> bool {
        self.address_type(address, device.filter(|_| is_link_scoped(address))) == AddressType::Local
    }
    /// The source address that an interface uses towards this destination, of the same family. With `next_hop`: as a packet's own route says; else as the table's best route by that interface does.
    fn source_address(&self, device: u32, to: IpAddr, next_hop: Option<IpAddr>) -> Option<IpAddr>;
    /// The address of an interface that a packet to this destination is redirected to when it comes in there: the first one; of IPv6 none that is tentative, and for a link-local destination a
    /// link-local one.
    fn redirect_address(&self, device: u32, to: IpAddr) -> Option<IpAddr>;
    /// The first address of an interface, of IPv6 or IPv4, that is not secondary, tentative or deprecated.
    fn primary_address(&self, device: u32, v6: bool) -> Option<IpAddr>;
    /// Where a packet to this address goes next when it leaves by this interface: the route's gateway, or the address itself.
    fn next_hop(&self, to: IpAddr, device: u32) -> Option<IpAddr>;
    /// MTU of an interface, in bytes.
    fn mtu(&self, device: u32) -> u32;
}

/// Does the address mean another host on each link: a link-local address, or multicast on one link? IPv6 only.
pub fn is_link_scoped(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    // Interface-local and link-local multicast (RFC 4291, 2.7).
    let near =
        address.is_multicast() && matches!(address.segments().first(), Some(first) if matches!(first & 0xf, 1 | 2));
    near || address.is_unicast_link_local()
}

impl InterfaceInfo {
    /// Name as text.
    pub fn display_name(&self) -> String {
        let bytes = self.name.to_be_bytes();
        let letters = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(letters).into_owned()
    }
}
