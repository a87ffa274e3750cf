//! Interfaces, addresses and routes: what rules may ask of the machine.
use std::net::IpAddr;

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its index.
    pub index: u32,
    /// Its name, as [`letters`](crate::kind::letters) has it.
    pub name: u128,
    /// The group it belongs to; 0 is the default.
    pub group: u32,
}

/// What an address is here.
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

/// The machine a packet passes: what rules may ask of it.
pub trait Fib {
    /// What an address is, by the routes; of those through `device` only, if one is given.
    fn address_type(&self, address: IpAddr, device: Option<u32>) -> AddressType;
    /// The device a packet to this address would leave by; among routes through `device` only, if one is given.
    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo>;
    /// The address that a device would send from (of the family, to this destination).
    fn source_address(&self, device: u32, to: IpAddr) -> Option<IpAddr>;
    /// The largest datagram a device takes.
    fn mtu(&self, device: u32) -> u32;
}

impl InterfaceInfo {
    /// Its name.
    pub fn display_name(&self) -> String {
        let octets = self.name.to_be_bytes();
        let letters = octets.split(|octet| *octet == 0).next().unwrap_or_default();
        String::from_utf8_lossy(letters).into_owned()
    }
}
