//! Numbers as Linux reads them in FTP: decimal, modulo 2³² (2¹⁶ for a port of its own), and none at all is zero.
use core::net::{IpAddr, Ipv4Addr};

/// `N` numbers with `separator` between them and behind them a byte that `ends` accepts; and how many bytes the numbers take.
/// Nothing if the text ends first, or is something else.
pub(super) fn parse_numbers<const N: usize>(
    text: &[u8],
    separator: u8,
    ends: impl Fn(u8) -> bool,
) -> Option<([u32; N], usize)> {
    let mut read = [0u32; N];
    let mut index = 0;
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_digit() {
            let number = read.get_mut(index)?;
            *number = number.wrapping_mul(10).wrapping_add(u32::from(byte - b'0'));
        } else if *byte == separator && index + 1 < N {
            index += 1;
        } else {
            return (*byte != separator && index + 1 == N && ends(*byte)).then_some((read, at));
        }
    }
    None
}

/// The address of four numbers, put together as Linux does it: one over 255 spills into the number before it.
pub(super) fn ipv4_from_numbers([a, b, c, d]: [u32; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(a << 24 | b << 16 | c << 8 | d))
}

/// A port other than zero and its delimiter; and how many bytes the port takes.
pub(super) fn parse_delimited_port(text: &[u8], delimiter: u8) -> Option<(u16, usize)> {
    let length = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if text.get(length) != Some(&delimiter) {
        return None;
    }
    let port =
        text.get(..length)?.iter().fold(0u16, |port, byte| port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')));
    (port != 0).then_some((port, length))
}
