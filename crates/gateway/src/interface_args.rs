//! Devices and routes, as the command line tells them.
use keepstate_router::{FibTable, Interface, Route};
use std::net::IpAddr;

/// A device with its addresses.
#[derive(Clone, Debug)]
pub struct InterfaceArg {
    /// Its name.
    pub name: String,
    addresses: Vec<(IpAddr, u8)>,
}

/// A prefix, and the device that leads to it.
#[derive(Clone, Debug)]
pub struct RouteArg {
    prefix: IpAddr,
    length: u8,
    device: String,
}

/// `lan0=10.1.0.1/24,fd00:1::1/64`
pub fn parse_interface(text: &str) -> Result<InterfaceArg, String> {
    let (name, addresses) = text.split_once('=').ok_or("write NAME=ADDRESS/LENGTH, like lan0=10.1.0.1/24")?;
    if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
        return Err(format!("{name:?} is no name of a device: 1 to 15 letters, no slash, no space"));
    }
    let addresses = addresses.split(',').map(parse_prefix).collect::<Result<Vec<_>, _>>()?;
    Ok(InterfaceArg { name: name.to_owned(), addresses })
}

/// `0.0.0.0/0=wan0`
pub fn parse_route(text: &str) -> Result<RouteArg, String> {
    let (to, device) = text.split_once('=').ok_or("write PREFIX=DEVICE, like 0.0.0.0/0=wan0")?;
    let (prefix, length) = parse_prefix(to)?;
    Ok(RouteArg { prefix, length, device: device.to_owned() })
}

fn parse_prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) =
        text.split_once('/').ok_or_else(|| format!("{text}: write ADDRESS/LENGTH, like 10.1.0.1/24"))?;
    let address: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.parse().ok().filter(|length| *length <= most);
    length.map(|length| (address, length)).ok_or_else(|| format!("{text}: the length of its prefix is 0 to {most}"))
}

/// All of them together; devices are numbered from 1 on.
pub fn build_fib(devices: &[InterfaceArg], routes: &[RouteArg], mtu: u32) -> Result<FibTable, String> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for (number, device) in (1..).zip(devices) {
        if interfaces.iter().any(|known| known.name == device.name) {
            return Err(format!("--device {} is there twice", device.name));
        }
        let (name, addresses) = (device.name.clone(), device.addresses.clone());
        interfaces.push(Interface { index: number, name, mtu, group: 0, addresses });
    }
    let mut found = Vec::new();
    for route in routes {
        let device = interfaces.iter().find(|interface| interface.name == route.device);
        let Some(device) = device else {
            return Err(format!("--route …={}: there is no --device of that name", route.device));
        };
        found.push(Route { prefix: route.prefix, length: route.length, device: device.index, gateway: None });
    }
    Ok(FibTable::new(interfaces, found))
}
