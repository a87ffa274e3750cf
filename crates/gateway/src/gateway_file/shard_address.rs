//! An address, or a prefix of them, that moves with a shard: `192.0.2.1`, `198.51.100.0/26`; and one that the gateway itself moves: `192.0.2.1/24 dev eth0`.
use super::values::TextValue;
use keepstate_engine::AddressPrefix;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `192.0.2.1`, `198.51.100.0/26`.
pub type ShardAddressText = TextValue<ShardAddressSetting>;

/// `192.0.2.1/24 dev eth0`.
pub type TakeoverText = TextValue<TakeoverSetting>;

/// An address that an interface has while this gateway decides its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeoverSetting {
    pub(super) address: IpAddr,
    pub(super) length: u8,
    pub(super) interface: String,
}

/// The addresses, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardAddressSetting(pub(super) RangeInclusive<IpAddr>);

impl FromStr for ShardAddressSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<ShardAddressSetting, String> {
        let usage = || format!("{text:?}: write an address or a prefix, like \"192.0.2.1\" or \"198.51.100.0/26\"");
        let Some((address, length)) = text.split_once('/') else {
            let address: IpAddr = text.parse().map_err(|_| usage())?;
            return Ok(ShardAddressSetting(address..=address));
        };
        let (address, length): (IpAddr, u8) = address.parse().ok().zip(length.parse().ok()).ok_or_else(usage)?;
        let prefix = AddressPrefix::new(address, length).ok_or_else(usage)?;
        if prefix.address != address {
            return Err(format!("{text:?} has bits behind its length: write \"{}/{length}\"", prefix.address));
        }
        Ok(ShardAddressSetting(address..=last_of(prefix)))
    }
}

/// The longest name of an interface, in bytes.
const MAX_INTERFACE_LEN: usize = 15;

impl FromStr for TakeoverSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<TakeoverSetting, String> {
        let usage = || {
            format!(
                "{text:?}: write an address with the length of its prefix, and an interface, like \"192.0.2.1/24 dev eth0\""
            )
        };
        let mut words = text.split_ascii_whitespace();
        let (Some(prefix), Some("dev"), Some(interface), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(usage());
        };
        let (address, length) = prefix.split_once('/').ok_or_else(usage)?;
        let (address, length): (IpAddr, u8) = address.parse().ok().zip(length.parse().ok()).ok_or_else(usage)?;
        AddressPrefix::new(address, length).ok_or_else(usage)?;
        if interface.len() > MAX_INTERFACE_LEN || interface.contains('/') {
            return Err(format!("{interface:?} is no name of an interface"));
        }
        Ok(TakeoverSetting { address, length, interface: interface.to_owned() })
    }
}

impl ShardAddressSetting {
    /// Is it one of them?
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Why no gateway can have them for others, if it cannot.
    pub(super) fn is_unusable(&self) -> bool {
        let ends = [self.0.start(), self.0.end()];
        ends.into_iter().any(|end| end.is_unspecified() || end.is_loopback() || end.is_multicast())
    }

    /// Is an address in both?
    pub(super) fn overlaps(&self, other: &ShardAddressSetting) -> bool {
        self.0.start() <= other.0.end() && other.0.start() <= self.0.end()
    }
}

/// All bits behind the length are 1.
fn last_of(prefix: AddressPrefix) -> IpAddr {
    let length = u32::from(prefix.length);
    match prefix.address {
        IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | u32::MAX.checked_shr(length).unwrap_or(0)).into(),
        IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | u128::MAX.checked_shr(length).unwrap_or(0)).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn an_address_is_one_and_a_prefix_all_behind_it() {
        let ends = |text: &str| {
            let ShardAddressSetting(range) = text.parse().unwrap();
            (range.start().to_string(), range.end().to_string())
        };
        let pair = |first: &str, last: &str| (first.to_owned(), last.to_owned());
        assert_eq!(ends("192.0.2.1"), pair("192.0.2.1", "192.0.2.1"));
        assert_eq!(ends("192.0.2.1/32"), pair("192.0.2.1", "192.0.2.1"));
        assert_eq!(ends("198.51.100.64/26"), pair("198.51.100.64", "198.51.100.127"));
        assert_eq!(ends("2001:db8::/64"), pair("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff"));
        assert_eq!(ends("0.0.0.0/0"), pair("0.0.0.0", "255.255.255.255"));
        let error = |text: &str| text.parse::<ShardAddressSetting>().unwrap_err();
        assert!(error("198.51.100.65/26").contains("write \"198.51.100.64/26\""));
        for text in ["", "gw1", "192.0.2.1/33", "192.0.2.1/", "/24", "192.0.2.1-192.0.2.9", "192.0.2.1:80"] {
            assert!(error(text).contains("write an address or a prefix"), "{text}");
        }
    }

    #[test]
    fn an_address_to_be_taken_over_is_written_as_for_ip() {
        let one: TakeoverSetting = "192.0.2.1/24 dev eth0".parse().unwrap();
        assert_eq!((one.address.to_string(), one.length, one.interface.as_str()), ("192.0.2.1".into(), 24, "eth0"));
        assert_eq!("2001:db8::1/64  dev  wan.7".parse::<TakeoverSetting>().unwrap().length, 64);
        for text in [
            "192.0.2.1 dev eth0",
            "192.0.2.1/33 dev eth0",
            "192.0.2.1/24",
            "192.0.2.1/24 eth0",
            "x/24 dev eth0",
            "192.0.2.1/24 dev eth0 label x",
        ] {
            let error = text.parse::<TakeoverSetting>().unwrap_err();
            assert!(error.contains("like \"192.0.2.1/24 dev eth0\""), "{error}");
        }
        assert!("192.0.2.1/24 dev an-interface-too-long".parse::<TakeoverSetting>().is_err());
    }

    #[test]
    fn what_nobody_can_have_for_others_and_what_stands_twice_is_found() {
        let one = |text: &str| text.parse::<ShardAddressSetting>().unwrap();
        for text in ["0.0.0.0", "127.0.0.1", "::1", "224.0.0.0/4", "0.0.0.0/0", "::/0"] {
            assert!(one(text).is_unusable(), "{text}");
        }
        assert!(!one("192.0.2.0/24").is_unusable());
        assert!(one("192.0.2.0/24").overlaps(&one("192.0.2.255")) && one("192.0.2.7").overlaps(&one("192.0.2.7")));
        assert!(!one("192.0.2.0/25").overlaps(&one("192.0.2.128/25")) && !one("::/64").overlaps(&one("192.0.2.1")));
    }
}
