//! A namespace's routes, as `/proc/net` lists them: the main table's, without local addresses.
use crate::sysroot::SysRoot;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route with an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcRoute {
    /// Its destination.
    pub destination: IpAddr,
    /// The length of the destination's prefix.
    pub prefix_length: u8,
    /// The interface by which it leaves.
    pub interface: String,
}

/// Most bytes of a list of routes that are read: some 8,000 routes.
const MAX_BYTES: u64 = 1 << 20;

/// The routes; none if they cannot be read, or are too many to be read for a hint.
pub fn read(root: &SysRoot) -> Vec<ProcRoute> {
    let text = |path| root.read_up_to(path, MAX_BYTES).ok().filter(|text| (text.len() as u64) < MAX_BYTES);
    let (Some(four), six) = (text("/proc/net/route"), text("/proc/net/ipv6_route")) else { return Vec::new() };
    let four = four.lines().filter_map(parse_ipv4);
    four.chain(six.unwrap_or_default().lines().filter_map(parse_ipv6)).collect()
}

/// `eth0 000A0A0A 00000000 0001 0 0 0 00FFFFFF …`: interface, destination, gateway, flags, three numbers, mask, in the machine's byte order.
fn parse_ipv4(line: &str) -> Option<ProcRoute> {
    let mut words = line.split_whitespace();
    let interface = words.next()?.to_owned();
    let hex = |word: &str| u32::from_str_radix(word, 16).ok().map(u32::from_be);
    let destination = hex(words.next()?)?;
    let mask = hex(words.nth(5)?)?;
    let prefix_length = u8::try_from(mask.count_ones()).ok()?;
    Some(ProcRoute { destination: IpAddr::V4(Ipv4Addr::from(destination)), prefix_length, interface })
}

/// Destination and its length, source and its length, gateway, metric, two counters, flags, interface.
fn parse_ipv6(line: &str) -> Option<ProcRoute> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [destination, length, .., interface] = words.as_slice() else { return None };
    // Local addresses and what is unreachable are on loopback.
    if words.len() != 10 || *interface == "lo" {
        return None;
    }
    let destination = u128::from_str_radix(destination, 16).ok()?;
    let prefix_length = u8::from_str_radix(length, 16).ok()?;
    Some(ProcRoute {
        destination: IpAddr::V6(Ipv6Addr::from(destination)),
        prefix_length,
        interface: (*interface).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn routes_of_both_families() {
        let line = format!(
            "eth0\t{:08X}\t00000000\t0001\t0\t0\t0\t{:08X}\t0\t0\t0",
            u32::from_ne_bytes([10, 9, 0, 0]),
            u32::from_ne_bytes([255, 255, 0, 0])
        );
        let route = parse_ipv4(&line).unwrap();
        assert_eq!(
            (route.destination.to_string(), route.prefix_length, route.interface.as_str()),
            ("10.9.0.0".into(), 16, "eth0")
        );
        let line = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1";
        let route = parse_ipv6(line).unwrap();
        assert_eq!(
            (route.destination.to_string(), route.prefix_length, route.interface.as_str()),
            ("fd00::".into(), 64, "eth1")
        );
        assert_eq!((parse_ipv4("Iface Destination Gateway"), parse_ipv6(""), parse_ipv6("x y")), (None, None, None));
    }
}
