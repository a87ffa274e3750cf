//! A routing table without routes.
use keepstate_rules::{AddressType, Fib, InterfaceInfo};
use std::net::IpAddr;

pub struct EmptyFib;

impl Fib for EmptyFib {
    fn address_type(&self, _: IpAddr, _: Option<u32>) -> AddressType {
        AddressType::Unicast
    }
    fn route_lookup(&self, _: IpAddr, _: Option<u32>) -> Option<InterfaceInfo> {
        None
    }
    fn source_address(&self, _: u32, _: IpAddr, _: Option<IpAddr>) -> Option<IpAddr> {
        None
    }
    fn redirect_address(&self, _: u32, _: IpAddr) -> Option<IpAddr> {
        None
    }
    fn primary_address(&self, _: u32, _: bool) -> Option<IpAddr> {
        None
    }
    fn next_hop(&self, _: IpAddr, _: u32) -> Option<IpAddr> {
        None
    }
    fn mtu(&self, _: u32) -> u32 {
        1500
    }
}
