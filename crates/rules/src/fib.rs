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
    /// Type of an address; with `device`, by the routes of that interface only.
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType;
    /// The interface by which a packet to this address leaves; with `device`, by the routes of that interface only.
    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo>;
    /// The source address that an interface uses towards this destination, of the same family.
    fn source_address(&self, device: u32, to: IpAddr) -> Option<IpAddr>;
    /// MTU of an interface, in bytes.
    fn mtu(&self, device: u32) -> u32;
}

impl InterfaceInfo {
    /// Name as text.
    pub fn display_name(&self) -> String {
        let bytes = self.name.to_be_bytes();
        let letters = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(letters).into_owned()
    }
}
