//! Values that conntrack's options and the filter options of other commands have in common.
//!
//! Each function only reads a value; the caller words the error, since the two command lines word theirs differently.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A number as C writes it: `0x` and hexadecimal, `0` and octal, else decimal. No sign.
pub(crate) fn c_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => match text.strip_prefix('0') {
            Some(digits) if !digits.is_empty() => (digits, 8),
            _ => (text, 10),
        },
    };
    // `from_str_radix` would take a sign.
    if digits.starts_with(['+', '-']) { None } else { u32::from_str_radix(digits, radix).ok() }
}

/// The mask of a prefix length, or `None` if addresses of this family have fewer bits.
pub(crate) fn prefix_mask(length: u32, address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => {
            let zeros = Ipv4Addr::BITS.checked_sub(length)?;
            Some(IpAddr::V4(u32::MAX.checked_shl(zeros).unwrap_or(0).into()))
        }
        IpAddr::V6(_) => {
            let zeros = Ipv6Addr::BITS.checked_sub(length)?;
            Some(IpAddr::V6(u128::MAX.checked_shl(zeros).unwrap_or(0).into()))
        }
    }
}

/// The number of a protocol that conntrack knows by name without `/etc/protocols`, in any case.
pub(crate) fn builtin_protocol(name: &str) -> Option<u8> {
    number_of(BUILTIN_PROTOCOLS, name)
}

/// The number of a name in a table of names, in any case.
pub(crate) fn number_of(table: &[(&str, u8)], name: &str) -> Option<u8> {
    table.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

const BUILTIN_PROTOCOLS: &[(&str, u8)] = &[
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("sctp", 132),
    ("dccp", 33),
    ("icmp", 1),
    ("icmpv6", 58),
    ("ipv6-icmp", 58),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("igmp", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_in_c() {
        assert_eq!(["5", "0x1f", "0XFF", "010", "0", "00"].map(c_number), [5, 31, 255, 8, 0, 0].map(Some));
        for bad in ["", "x", "4294967296", "+5", "-1", "0x", "0x+1", "08"] {
            assert_eq!(c_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefix_lengths_become_masks() {
        let mask = |length, address: &str| prefix_mask(length, address.parse().unwrap()).map(|mask| mask.to_string());
        assert_eq!(mask(8, "10.0.0.0").as_deref(), Some("255.0.0.0"));
        assert_eq!(mask(0, "10.0.0.0").as_deref(), Some("0.0.0.0"));
        assert_eq!(mask(32, "10.0.0.0").as_deref(), Some("255.255.255.255"));
        assert_eq!(mask(33, "10.0.0.0"), None);
        assert_eq!(mask(33, "::").as_deref(), Some("ffff:ffff:8000::"));
        assert_eq!(mask(128, "::"), Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".into()));
        assert_eq!(mask(129, "::"), None);
    }
}
