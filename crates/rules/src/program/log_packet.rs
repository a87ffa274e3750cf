//! A log line's part of the IP header, its options and extension headers; and of the packet within an ICMP error.
//!
//! Nothing in the packet is taken to be well-formed: the one within an ICMP error comes from anywhere. Each function is true if the packet could be read to its end.
use super::log_buf::LogBuf;
use crate::ast::LogFlags;
use keepstate_wire::protocol;
use std::fmt::{self, Write};

const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;

/// A packet from one of its headers on.
#[derive(Clone, Copy)]
pub(super) struct Rest<'p> {
    pub(super) bytes: &'p [u8],
    /// Its length as the kernel calculates it: below zero it wraps, for a header that begins behind the end.
    len: u32,
}

impl<'p> Rest<'p> {
    fn new(packet: &'p [u8], at: usize) -> Rest<'p> {
        let number = |length| u32::try_from(length).unwrap_or_default();
        Rest { bytes: packet.get(at..).unwrap_or_default(), len: number(packet.len()).wrapping_sub(number(at)) }
    }
}

/// Writes one packet into a line.
pub(super) struct LogDump<'a> {
    pub(super) line: &'a mut LogBuf,
    pub(super) flags: LogFlags,
}

impl LogDump<'_> {
    /// An IPv4 packet. `outer` is false within an ICMP error.
    pub(super) fn ipv4(&mut self, packet: &[u8], outer: bool) -> Result<bool, fmt::Error> {
        let Some(h) = packet.first_chunk::<V4_HEADER_LEN>() else { return self.truncated() };
        let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let address = |at: usize| std::net::Ipv4Addr::new(h[at], h[at + 1], h[at + 2], h[at + 3]);
        write!(
            self.line,
            "SRC={} DST={} LEN={} TOS=0x{:02X} PREC=0x{:02X} TTL={} ID={} ",
            address(12),
            address(16),
            word(2),
            h[1] & 0x1e,
            h[1] & 0xe0,
            h[8],
            word(4)
        )?;
        let fragment = word(6);
        for (bit, name) in [(0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")] {
            if fragment & bit != 0 {
                self.line.write_str(name)?;
            }
        }
        let offset = fragment & 0x1fff;
        if offset != 0 {
            write!(self.line, "FRAG:{offset} ")?;
        }
        let header_len = usize::from(h[0] & 15) * 4;
        if self.flags.ip_options && header_len > V4_HEADER_LEN {
            let Some(options) = packet.get(V4_HEADER_LEN..header_len) else { return self.truncated() };
            self.hex_options(options)?;
        }
        let rest = Rest::new(packet, header_len);
        match h[9] {
            protocol::TCP => self.tcp(rest, offset != 0),
            protocol::UDP => self.udp("UDP", rest, offset != 0),
            protocol::UDPLITE => self.udp("UDPLITE", rest, offset != 0),
            protocol::ICMP => self.icmp(rest, offset != 0, outer),
            // The kernel does not name this protocol in later fragments.
            protocol::AH if offset != 0 => Ok(true),
            protocol::AH => self.spi("AH", rest, 12, 4, false),
            protocol::ESP => self.spi("ESP", rest, 8, 0, offset != 0),
            other => self.other_protocol(other),
        }
    }

    /// An IPv6 packet. `outer` is false within an ICMPv6 error.
    pub(super) fn ipv6(&mut self, packet: &[u8], outer: bool) -> Result<bool, fmt::Error> {
        let Some(h) = packet.first_chunk::<V6_HEADER_LEN>() else { return self.truncated() };
        for (name, at) in [("SRC", 8), ("DST", 24)] {
            write!(self.line, "{name}=")?;
            for (number, at) in (at..at + 16).step_by(2).enumerate() {
                let before = if number == 0 { "" } else { ":" };
                write!(self.line, "{before}{:02x}{:02x}", h[at], h[at + 1])?;
            }
            self.line.write_char(' ')?;
        }
        let first = u32::from_be_bytes([h[0], h[1], h[2], h[3]]);
        write!(
            self.line,
            "LEN={} TC={} HOPLIMIT={} FLOWLBL={} ",
            usize::from(u16::from_be_bytes([h[4], h[5]])) + V6_HEADER_LEN,
            first >> 20 & 0xff,
            h[7],
            first & 0xf_ffff
        )?;
        let (mut next, mut at, mut later) = (h[6], V6_HEADER_LEN, false);
        while is_extension(next) {
            let rest = Rest::new(packet, at);
            let Some(&[following, length]) = rest.bytes.first_chunk() else { return self.truncated() };
            if self.flags.ip_options {
                self.line.write_str("OPT ( ")?;
            }
            let header_len = match next {
                protocol::IPV6_FRAG => {
                    self.line.write_str("FRAG:")?;
                    let Some(f) = rest.bytes.first_chunk::<8>() else {
                        self.line.write_str("TRUNCATED ")?;
                        return Ok(false);
                    };
                    let word = u16::from_be_bytes([f[2], f[3]]);
                    write!(self.line, "{} ", word & 0xfff8)?;
                    if word & 1 != 0 {
                        self.line.write_str("INCOMPLETE ")?;
                    }
                    write!(self.line, "ID:{:02x}{:02x}{:02x}{:02x} ", f[4], f[5], f[6], f[7])?;
                    later |= word & 0xfff8 != 0;
                    8
                }
                protocol::AH => {
                    if self.flags.ip_options && !self.extension_spi("AH ", rest, 12, 4, later)? {
                        return Ok(false);
                    }
                    (usize::from(length) + 2) * 4
                }
                protocol::ESP => {
                    if self.flags.ip_options && self.extension_spi("ESP ", rest, 8, 0, later)? {
                        self.line.write_char(')')?;
                    }
                    return Ok(false);
                }
                _ => {
                    if later {
                        if self.flags.ip_options {
                            self.line.write_char(')')?;
                        }
                        return Ok(false);
                    }
                    (usize::from(length) + 1) * 8
                }
            };
            if self.flags.ip_options {
                self.line.write_str(") ")?;
            }
            next = following;
            at += header_len;
        }
        let rest = Rest::new(packet, at);
        match next {
            protocol::TCP => self.tcp(rest, later),
            protocol::UDP => self.udp("UDP", rest, later),
            protocol::UDPLITE => self.udp("UDPLITE", rest, later),
            protocol::ICMPV6 => self.icmpv6(rest, later, outer),
            other => self.other_protocol(other),
        }
    }

    /// The index of an IPsec header among IPv6 extension headers; true if the headers behind it may be read.
    fn extension_spi(
        &mut self,
        name: &str,
        header: Rest<'_>,
        header_len: usize,
        spi_at: usize,
        later: bool,
    ) -> Result<bool, fmt::Error> {
        self.line.write_str(name)?;
        if later {
            self.line.write_char(')')?;
            return Ok(false);
        }
        match header.bytes.get(..header_len).and_then(|header| header.get(spi_at..)?.first_chunk()) {
            Some(spi) => write!(self.line, "SPI={:#x} ", u32::from_be_bytes(*spi))?,
            None => {
                write!(self.line, "INCOMPLETE [{} bytes] )", header.len)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn other_protocol(&mut self, protocol: u8) -> Result<bool, fmt::Error> {
        write!(self.line, "PROTO={protocol} ")?;
        Ok(true)
    }

    /// `OPT (0204…) `
    pub(super) fn hex_options(&mut self, options: &[u8]) -> fmt::Result {
        self.line.write_str("OPT (")?;
        for byte in options {
            write!(self.line, "{byte:02X}")?;
        }
        self.line.write_str(") ")
    }

    pub(super) fn truncated(&mut self) -> Result<bool, fmt::Error> {
        self.line.write_str("TRUNCATED")?;
        Ok(false)
    }

    /// A header that is not there in full.
    pub(super) fn incomplete(&mut self, rest: Rest<'_>) -> fmt::Result {
        write!(self.line, "INCOMPLETE [{} bytes] ", rest.len)
    }
}

fn is_extension(next: u8) -> bool {
    use protocol::{AH, DSTOPTS, ESP, HOPOPTS, IPV6_FRAG, IPV6_ROUTE};
    matches!(next, HOPOPTS | IPV6_ROUTE | IPV6_FRAG | ESP | AH | DSTOPTS)
}
