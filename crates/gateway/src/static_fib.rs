//! Interfaces, addresses and routes that the configuration names, where no kernel is asked for them (TUN, captures).
use keepstate_router::{FibTable, Interface, LINK_TYPE_NONE, Route};
use std::net::IpAddr;
use std::str::FromStr;

/// The interfaces and routes of a gateway that does not follow the kernel's.
#[derive(Clone, Debug)]
pub struct StaticFib {
    /// The interfaces, numbered from 1 on in this order.
    pub interfaces: Vec<InterfaceConfig>,
    /// Routes beside those of the interfaces' own prefixes.
    pub routes: Vec<RouteConfig>,
    /// The MTU of each interface, in bytes.
    pub mtu: u32,
}

/// An interface with its addresses; from text as `lan0=10.1.0.1/24,fd00:1::1/64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Its name.
    pub name: String,
    /// Its addresses, each with the length of its prefix.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// A prefix and the interface that leads to it; from text as `0.0.0.0/0=wan0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The prefix's address.
    pub prefix: IpAddr,
    /// The prefix's length.
    pub length: u8,
    /// The interface's name.
    pub interface: String,
}

impl StaticFib {
    /// The FIB of these interfaces and routes.
    ///
    /// # Errors
    /// A sentence for the user: two interfaces of one name, a route to an interface that is not there.
    pub fn build(&self) -> Result<FibTable, String> {
        let mut interfaces: Vec<Interface> = Vec::new();
        for (index, InterfaceConfig { name, addresses }) in (1..).zip(&self.interfaces) {
            if interfaces.iter().any(|known| known.name == *name) {
                return Err(format!("--device {name}: given twice"));
            }
            let (name, addresses) = (name.clone(), addresses.clone());
            interfaces.push(Interface {
                index,
                name,
                mtu: self.mtu,
                group: 0,
                link_type: LINK_TYPE_NONE,
                kind: String::new(),
                addresses,
            });
        }
        let mut routes = Vec::new();
        for RouteConfig { prefix, length, interface } in &self.routes {
            let Some(known) = interfaces.iter().find(|known| known.name == *interface) else {
                return Err(format!("--route {prefix}/{length}={interface}: there is no --device {interface}"));
            };
            routes.push(Route::new(*prefix, *length, known.index));
        }
        Ok(FibTable::new(interfaces, routes))
    }
}

impl FromStr for InterfaceConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<InterfaceConfig, String> {
        let (name, addresses) = text.split_once('=').ok_or("write NAME=ADDRESS/LENGTH, like lan0=10.1.0.1/24")?;
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            return Err(format!("{name:?}: an interface name has 1 to 15 characters, no slash, no space"));
        }
        let addresses = addresses.split(',').map(parse_prefix).collect::<Result<Vec<_>, _>>()?;
        Ok(InterfaceConfig { name: name.to_owned(), addresses })
    }
}

impl FromStr for RouteConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<RouteConfig, String> {
        let (to, interface) = text.split_once('=').ok_or("write PREFIX=INTERFACE, like 0.0.0.0/0=wan0")?;
        let (prefix, length) = parse_prefix(to)?;
        Ok(RouteConfig { prefix, length, interface: interface.to_owned() })
    }
}

fn parse_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) =
        text.split_once('/').ok_or_else(|| format!("{text}: write ADDRESS/LENGTH, like 10.1.0.1/24"))?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address} is not an IP address"))?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length| *length <= max);
    length.map(|length| (address, length)).ok_or_else(|| format!("{text}: the prefix length is 0 to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(text: &str) -> InterfaceConfig {
        text.parse().unwrap()
    }

    #[test]
    fn interfaces_and_routes_are_parsed() {
        let lan = interface("lan0=10.1.0.1/24,fd00:1::1/64");
        assert_eq!(lan.addresses, [("10.1.0.1".parse().unwrap(), 24), ("fd00:1::1".parse().unwrap(), 64)]);
        let route: RouteConfig = "0.0.0.0/0=wan0".parse().unwrap();
        assert_eq!((route.length, route.interface.as_str()), (0, "wan0"));
        for (bad, expected) in [
            ("lan0", "NAME=ADDRESS/LENGTH"),
            ("=10.0.0.1/8", "interface name"),
            ("an-interface-name=10.0.0.1/8", "interface name"),
            ("lan0=10.0.0.1", "ADDRESS/LENGTH"),
            ("lan0=10.0.0.1/33", "0 to 32"),
            ("lan0=x/8", "not an IP address"),
        ] {
            assert!(bad.parse::<InterfaceConfig>().is_err_and(|error| error.contains(expected)), "{bad}");
        }
    }

    #[test]
    fn duplicate_interfaces_and_unknown_routes_are_refused() {
        let fib = |interfaces: &[&str], routes: &[&str]| StaticFib {
            interfaces: interfaces.iter().map(|text| interface(text)).collect(),
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            mtu: 1500,
        };
        assert!(fib(&["a=10.0.0.1/8", "b=10.1.0.1/8"], &["0.0.0.0/0=b"]).build().is_ok());
        assert!(fib(&["a=10.0.0.1/8", "a=10.1.0.1/8"], &[]).build().is_err_and(|error| error.contains("given twice")));
        assert!(fib(&["a=10.0.0.1/8"], &["0.0.0.0/0=b"]).build().is_err_and(|error| error.contains("no --device b")));
    }
}
