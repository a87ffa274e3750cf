//! A network: an address, of which some leading bits count.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    mask: IpAddr,
}

impl Network {
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// The same under another mask, if one is given.
    pub(super) fn masked(self, mask: Option<IpAddr>) -> Network {
        Network { mask: mask.unwrap_or(self.mask), ..self }
    }

    /// Is `address` in it? One of the other family never is.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, self.mask, address) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(other)) => own & mask == other & mask,
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(other)) => own & mask == other & mask,
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("invalid IP address '{}'", address.escape_debug()))?;
        let bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let length = match length {
            None => bits,
            Some(length) => length.parse().ok().filter(|length| *length <= bits).ok_or_else(|| {
                format!("invalid netmask '{}': give the number of leading bits, 0 to {bits}", length.escape_debug())
            })?,
        };
        Ok(Network { address, mask: prefix_mask(length, &address) })
    }
}

/// So many ones, then zeros.
fn prefix_mask(length: u32, address: &IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::MAX.checked_shl(Ipv4Addr::BITS - length).unwrap_or(0))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(u128::MAX.checked_shl(Ipv6Addr::BITS - length).unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn network_contains_its_addresses() {
        assert!(contains("10.0.0.1", "10.0.0.1") && !contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("10.0.0.1/8", "10.255.0.1") && !contains("10.0.0.1/8", "11.0.0.1"));
        assert!(contains("10.0.0.1/0", "255.0.0.1") && contains("10.0.0.1/32", "10.0.0.1"));
        assert!(contains("10.0.0.0/31", "10.0.0.1") && !contains("10.0.0.0/31", "10.0.0.2"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::"));
        assert!(contains("::/0", "ff00::") && contains("::1/128", "::1") && !contains("::1/128", "::2"));
        assert!(!contains("0.0.0.0/0", "::1"), "families stay apart");
    }

    #[test]
    fn invalid_networks_are_rejected() {
        for bad in
            ["", "foo", "1.2.3.4/33", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/-1", "10.0.0.1/255.0.0.0", "::1/129", "1.2.3"]
        {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        assert!("1.2.3.4/33".parse::<Network>().unwrap_err().contains("netmask"));
        assert!("foo".parse::<Network>().unwrap_err().contains("IP address"));
    }
}
