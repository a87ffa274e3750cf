//! Values as nft writes them.
use super::DataType;
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

impl DataType {
    /// A value of this type, as nft writes it.
    pub fn format_value(self, value: u128) -> String {
        let symbol = || self.symbols().iter().find(|(_, known)| *known == value).map(|(name, _)| (*name).to_owned());
        match self {
            DataType::Address4 => Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX)).to_string(),
            DataType::Address6 => Ipv6Addr::from(value).to_string(),
            DataType::InterfaceName
            | DataType::InterfaceIndex
            | DataType::InterfaceKind
            | DataType::CtHelper
            | DataType::OsName => {
                let bytes = value.to_be_bytes();
                let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
                format!("\"{}\"", String::from_utf8_lossy(name))
            }
            DataType::Mark => format!("0x{value:08x}"),
            DataType::Port => value.to_string(),
            DataType::CtLabel => value.trailing_zeros().to_string(),
            DataType::EtherAddress => {
                let bytes: Vec<String> =
                    value.to_be_bytes().iter().skip(10).map(|byte| format!("{byte:02x}")).collect();
                bytes.join(":")
            }
            DataType::Duration => format_duration(u64::try_from(value).unwrap_or(u64::MAX).saturating_mul(1000)),
            DataType::ClassId => symbol().unwrap_or_else(|| format!("{:x}:{:x}", value >> 16, value & 0xffff)),
            DataType::CtState | DataType::CtStatus | DataType::TcpFlags => self.format_bits(value),
            DataType::Dscp => symbol().unwrap_or_else(|| format!("0x{value:02x}")),
            DataType::EtherType => symbol().unwrap_or_else(|| format!("0x{value:04x}")),
            DataType::HourOfDay => format!("\"{:02}:{:02}:{:02}\"", value / 3600, value / 60 % 60, value % 60),
            _ => symbol().unwrap_or_else(|| value.to_string()),
        }
    }

    fn format_bits(self, value: u128) -> String {
        let mut out = String::new();
        let mut left = value;
        for (name, bit) in self.symbols() {
            if left & bit != 0 {
                let _ = write!(out, "{}{name}", if out.is_empty() { "" } else { "," });
                left &= !bit;
            }
        }
        if out.is_empty() || left != 0 { format!("0x{value:x}") } else { out }
    }

    /// A range of this type, both ends included: a prefix if it is one.
    pub fn format_range(self, first: u128, last: u128) -> String {
        if first == last {
            return self.format_value(first);
        }
        if let Some(length) = self.prefix_length(first, last) {
            return format!("{}/{length}", self.format_value(first));
        }
        // All names that begin with these letters.
        if self == DataType::InterfaceName {
            let name = self.format_value(first);
            return format!("{}*\"", name.trim_end_matches('"'));
        }
        format!("{}-{}", self.format_value(first), self.format_value(last))
    }

    /// Length of the prefix that a range of addresses is, if it is one.
    pub fn prefix_length(self, first: u128, last: u128) -> Option<u32> {
        if !matches!(self, DataType::Address4 | DataType::Address6) {
            return None;
        }
        let host = first ^ last;
        let is_prefix = host & host.wrapping_add(1) == 0 && first & host == 0;
        is_prefix.then(|| u32::from(self.bit_width()).saturating_sub(128 - host.leading_zeros()))
    }
}

/// Seconds as nft writes them: `1d2h3m4s`, with milliseconds if there are any.
pub(crate) fn format_duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let mut out = String::new();
    for (number, unit) in parts.iter().chain(&[(milliseconds % 1000, "ms")]) {
        if *number > 0 {
            let _ = write!(out, "{number}{unit}");
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}
