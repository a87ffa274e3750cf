//! Numbers in FTP commands, parsed as in Linux: decimal, modulo 2³² (2¹⁶ for a separate port); no digits at all are zero.
use core::net::{IpAddr, Ipv4Addr};

/// Parses `N` numbers separated by `separator` and followed by a byte that `ends` accepts. Returns them, and their length in bytes.
/// `None` if the text ends early, or is malformed.
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

/// The address of four numbers, computed as in Linux: a number over 255 carries into the one before it.
pub(super) fn ipv4_from_numbers([a, b, c, d]: [u32; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(a << 24 | b << 16 | c << 8 | d))
}

/// Parses a nonzero port and its delimiter. Returns the port, and its length in bytes.
pub(super) fn parse_delimited_port(text: &[u8], delimiter: u8) -> Option<(u16, usize)> {
    let length = text.iter().position(|byte| !byte.is_ascii_digit())?;
    if text.get(length) != Some(&delimiter) {
        return None;
    }
    let port =
        text.get(..length)?.iter().fold(0u16, |port, byte| port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')));
    (port != 0).then_some((port, length))
}
