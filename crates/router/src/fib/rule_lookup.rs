//! What rules ask of interfaces and routes: `fib`, the addresses of `redirect` and `masquerade`, next hops.
use super::FibTable;
use crate::source_address::{SourceAddress, select_v4, select_v6};
use keepstate_rules::{AddressType, Fib, InterfaceInfo, is_link_scoped};
use std::net::IpAddr;

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
                self.anycasts.contains_key(&address)
                    || self.is_local_v6(six, device.filter(|_| is_link_scoped(address)))
            }
        }
    }

    fn route_lookup(&self, address: IpAddr, device: Option<u32>) -> Option<InterfaceInfo> {
        let on_link = device.filter(|_| is_link_scoped(address));
        let leaves_by = match address {
            // Every interface has a route to ff00::/8; of several the first is used.
            IpAddr::V6(group) if group.is_multicast() => on_link.or_else(|| Some(*self.interfaces.keys().next()?))?,
            _ => self.find(address, on_link)?.device,
        };
        device.is_none_or(|device| device == leaves_by).then(|| self.device(leaves_by))?
    }

    fn source_address(&self, device: u32, to: IpAddr, next_hop: Option<IpAddr>) -> Option<IpAddr> {
        match to {
            IpAddr::V4(to) => {
                let by_table = || self.find(to.into(), Some(device)).and_then(|route| route.gateway);
                // As Linux (`rt_nexthop`): behind a router of IPv6 the destination counts.
                let next_hop = match next_hop.or_else(by_table) {
                    Some(IpAddr::V4(next_hop)) => Some(next_hop),
                    Some(IpAddr::V6(_)) | None => None,
                };
                select_v4(self.sources.values().flatten(), device, next_hop.unwrap_or(to))
            }
            IpAddr::V6(to) => select_v6(self.sources.values().flatten(), device, to),
        }
    }

    fn redirect_address(&self, device: u32, to: IpAddr) -> Option<IpAddr> {
        let is_usable = |of: &&SourceAddress| match (of.address, to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => true,
            (IpAddr::V6(own), IpAddr::V6(to)) => {
                !of.tentative && (!to.is_unicast_link_local() || own.is_unicast_link_local())
            }
            _ => false,
        };
        self.sources.get(&device)?.iter().find(is_usable).map(|of| of.address)
    }

    fn primary_address(&self, device: u32, v6: bool) -> Option<IpAddr> {
        let is_primary = |of: &&SourceAddress| match of.address {
            IpAddr::V4(_) => !v6 && !of.secondary,
            IpAddr::V6(_) => v6 && !of.tentative && !of.deprecated,
        };
        self.sources.get(&device)?.iter().find(is_primary).map(|of| of.address)
    }

    fn next_hop(&self, to: IpAddr, device: u32) -> Option<IpAddr> {
        self.next_hop_lookup(to, Some(device)).map(|(_, next_hop)| next_hop)
    }

    fn mtu(&self, device: u32) -> u32 {
        self.devices.get(&device).map_or(u32::MAX, |device| device.mtu)
    }
}
