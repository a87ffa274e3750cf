//! Values that only the command line has as text: protocols by name, networks as ADDRESS/LENGTH.
use crate::flow_filter::MaskedAddr;
use crate::parse_value::{builtin_protocol, number_of, prefix_mask};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A protocol by name, in any case, or by number.
pub(super) fn parse_protocol(text: &str) -> Result<u8, String> {
    builtin_protocol(text).or_else(|| number_of(MORE_PROTOCOLS, text)).or_else(|| text.parse().ok()).ok_or_else(|| {
        format!(
            "'{}' unsupported protocol: give a name such as tcp, udp or icmpv6, or a number up to 255",
            text.escape_debug()
        )
    })
}

/// An address or a network as ADDRESS/LENGTH. Unlike conntrack, `1.2.3` is no address here.
pub(super) fn parse_network(text: &str) -> Result<MaskedAddr, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| format!("invalid IP address '{}'", address.escape_debug()))?;
    let Some(length) = length else { return Ok(MaskedAddr { address, mask: None }) };
    let bits = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    match length.parse().ok().and_then(|length| prefix_mask(length, address)) {
        mask @ Some(_) => Ok(MaskedAddr { address, mask }),
        None => {
            Err(format!("invalid netmask '{}': give the number of leading bits, 0 to {bits}", length.escape_debug()))
        }
    }
}

/// Names registered with IANA that conntrack does not know by itself.
const MORE_PROTOCOLS: &[(&str, u8)] = &[
    ("ipencap", 4),
    ("ipip", 4),
    ("egp", 8),
    ("ipv6", 41),
    ("rsvp", 46),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_protocols_by_name_and_number() {
        assert_eq!(
            ["tcp", "TCP", "6", "icmpv6", "esp", "0", "255"].map(parse_protocol),
            [6, 6, 6, 58, 50, 0, 255].map(Ok)
        );
        assert!(["foo", "256", "", "-1", "6x"].into_iter().all(|bad| parse_protocol(bad).is_err()));
    }

    fn contains(network: &str, address: &str) -> bool {
        parse_network(network).unwrap().contains(Some(address.parse().unwrap()))
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
            assert!(parse_network(bad).is_err(), "{bad}");
        }
        assert!(parse_network("1.2.3.4/33").unwrap_err().contains("netmask"));
        assert!(parse_network("foo").unwrap_err().contains("IP address"));
    }
}
