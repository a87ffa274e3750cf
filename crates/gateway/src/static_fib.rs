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
    /// What does not fit together, all of it: two interfaces of one name, routes to an interface that is not there.
    pub fn faults(&self) -> Vec<StaticFibFault> {
        let mut faults = Vec::new();
        for (at, InterfaceConfig { name, .. }) in self.interfaces.iter().enumerate() {
            let same = |interfaces: &[InterfaceConfig]| interfaces.iter().filter(|one| one.name == *name).count();
            // Once for each name.
            if same(self.interfaces.get(..at).unwrap_or_default()) == 1 {
                let message = format!("--device {name}: given {} times", same(&self.interfaces));
                faults.push(StaticFibFault { is_route: false, message });
            }
        }
        for RouteConfig { prefix, length, interface } in &self.routes {
            if !self.interfaces.iter().any(|known| known.name == *interface) {
                let message = format!("--route {prefix}/{length}={interface}: there is no --device {interface}");
                faults.push(StaticFibFault { is_route: true, message });
            }
        }
        faults
    }

    /// The FIB of these interfaces and routes.
    ///
    /// # Errors
    /// A line for the user about each of [`StaticFib::faults`].
    pub fn build(&self) -> Result<FibTable, String> {
        let faults: Vec<String> = self.faults().into_iter().map(|fault| fault.message).collect();
        if !faults.is_empty() {
            return Err(faults.join("\n"));
        }
        let interface = |(index, InterfaceConfig { name, addresses }): (u32, &InterfaceConfig)| Interface {
            index,
            name: name.clone(),
            mtu: self.mtu,
            group: 0,
            link_type: LINK_TYPE_NONE,
            kind: String::new(),
            addresses: addresses.clone(),
        };
        let interfaces: Vec<Interface> = (1..).zip(&self.interfaces).map(interface).collect();
        let route = |RouteConfig { prefix, length, interface }: &RouteConfig| {
            let known = interfaces.iter().find(|known| known.name == *interface)?;
            Some(Route::new(*prefix, *length, known.index))
        };
        let routes = self.routes.iter().filter_map(route).collect();
        Ok(FibTable::new(interfaces, routes))
    }
}

/// One thing that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticFibFault {
    /// It is about a route, otherwise about an interface.
    pub is_route: bool,
    /// A sentence for the user.
    pub message: String,
}

/// An address of an interface and the length of its prefix; from text as `10.1.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress(pub IpAddr, pub u8);

impl FromStr for InterfaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<InterfaceAddress, String> {
        parse_prefix(text).map(|(address, length)| InterfaceAddress(address, length))
    }
}

impl FromStr for InterfaceConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<InterfaceConfig, String> {
        let (name, addresses) = text.split_once('=').ok_or("write NAME=ADDRESS/LENGTH, like lan0=10.1.0.1/24")?;
        let name = check_name(name);
        let (good, bad): (Vec<_>, Vec<_>) = addresses.split(',').map(parse_prefix).partition(Result::is_ok);
        let mut faults: Vec<String> = name.as_ref().err().cloned().into_iter().collect();
        faults.extend(bad.into_iter().filter_map(Result::err));
        match name {
            Ok(name) if faults.is_empty() => {
                Ok(InterfaceConfig { name: name.to_owned(), addresses: good.into_iter().flatten().collect() })
            }
            _ => Err(faults.join("; ")),
        }
    }
}

/// The name of an interface.
///
/// # Errors
/// A sentence for the user: the kernel has no such names.
pub(crate) fn check_name(name: &str) -> Result<&str, String> {
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
        return Err(format!("{name:?}: an interface name has 1 to 15 characters, no slash, no space"));
    }
    Ok(name)
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
            ("lan0=10.0.0.1/33,10.0.0.1/8,x/8,fd00::1/129", "0 to 32; x is not an IP address; fd00::1/129"),
            ("a/b=10.0.0.1/33", "no space; 10.0.0.1/33: the prefix length is 0 to 32"),
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
        assert!(
            fib(&["a=10.0.0.1/8", "a=10.1.0.1/8"], &[]).build().is_err_and(|error| error.contains("given 2 times"))
        );
        assert!(fib(&["a=10.0.0.1/8"], &["0.0.0.0/0=b"]).build().is_err_and(|error| error.contains("no --device b")));
    }
}
