//! A log line's part of the transport header.
use super::log_packet::{LogDump, Rest};
use std::fmt::{self, Write};
use std::net::Ipv4Addr;

/// ICMP types, by RFC 792 and 950.
const ICMP_UNREACHABLE: u8 = 3;
const ICMP_FRAGMENTATION_NEEDED: u8 = 4;
const ICMP_REDIRECT: u8 = 5;
/// ICMPv6 types, by RFC 4443.
const ICMPV6_PACKET_TOO_BIG: u8 = 2;
const ICMPV6_PARAMETER_PROBLEM: u8 = 4;

const TCP_FLAGS: [(u8, &str); 8] = [
    (0x80, "CWR "),
    (0x40, "ECE "),
    (0x20, "URG "),
    (0x10, "ACK "),
    (0x08, "PSH "),
    (0x04, "RST "),
    (0x02, "SYN "),
    (0x01, "FIN "),
];

impl LogDump<'_> {
    /// `later` fragments have no transport header.
    pub(super) fn tcp(&mut self, segment: Rest<'_>, later: bool) -> Result<bool, fmt::Error> {
        self.line.write_str("PROTO=TCP ")?;
        if later {
            return Ok(true);
        }
        let Some(h) = segment.bytes.first_chunk::<20>() else {
            self.incomplete(segment)?;
            return Ok(false);
        };
        let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let number = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        write!(self.line, "SPT={} DPT={} ", word(0), word(2))?;
        if self.flags.tcp_sequence {
            write!(self.line, "SEQ={} ACK={} ", number(4), number(8))?;
        }
        // The reserved bits stand where the kernel shifts them; the lowest of the four is a flag (RFC 9768).
        write!(self.line, "WINDOW={} RES=0x{:02x} ", word(14), (h[12] & 0x0e) << 2)?;
        if h[12] & 1 != 0 {
            self.line.write_str("AE ")?;
        }
        for (bit, name) in TCP_FLAGS {
            if h[13] & bit != 0 {
                self.line.write_str(name)?;
            }
        }
        write!(self.line, "URGP={} ", word(18))?;
        let header_len = usize::from(h[12] >> 4) * 4;
        if self.flags.tcp_options && header_len > h.len() {
            let Some(options) = segment.bytes.get(h.len()..header_len) else {
                self.line.write_str("OPT (TRUNCATED)")?;
                return Ok(false);
            };
            self.hex_options(options)?;
        }
        Ok(true)
    }

    pub(super) fn udp(&mut self, name: &str, datagram: Rest<'_>, later: bool) -> Result<bool, fmt::Error> {
        write!(self.line, "PROTO={name} ")?;
        if later {
            return Ok(true);
        }
        let Some(h) = datagram.bytes.first_chunk::<8>() else {
            self.incomplete(datagram)?;
            return Ok(false);
        };
        let word = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        write!(self.line, "SPT={} DPT={} LEN={} ", word(0), word(2), word(4))?;
        Ok(true)
    }

    /// The SPI of an AH or ESP header of IPv4.
    pub(super) fn spi(
        &mut self,
        name: &str,
        rest: Rest<'_>,
        header_len: usize,
        spi_at: usize,
        later: bool,
    ) -> Result<bool, fmt::Error> {
        write!(self.line, "PROTO={name} ")?;
        if later {
            return Ok(true);
        }
        match rest.bytes.get(..header_len).and_then(|header| header.get(spi_at..)?.first_chunk()) {
            Some(spi) => write!(self.line, "SPI={:#x} ", u32::from_be_bytes(*spi))?,
            None => self.incomplete(rest)?,
        }
        Ok(true)
    }

    pub(super) fn icmp(&mut self, message: Rest<'_>, later: bool, outer: bool) -> Result<bool, fmt::Error> {
        self.line.write_str("PROTO=ICMP ")?;
        if later {
            return Ok(true);
        }
        let Some(&[kind, code, _, _, b4, b5, b6, b7]) = message.bytes.first_chunk() else {
            self.incomplete(message)?;
            return Ok(true);
        };
        write!(self.line, "TYPE={kind} CODE={code} ")?;
        if message.bytes.len() < min_icmp_len(kind) {
            self.incomplete(message)?;
            return Ok(true);
        }
        match kind {
            0 | 8 => write!(self.line, "ID={} SEQ={} ", u16::from_be_bytes([b4, b5]), u16::from_be_bytes([b6, b7]))?,
            12 => write!(self.line, "PARAMETER={b4} ")?,
            ICMP_UNREACHABLE | 4 | ICMP_REDIRECT | 11 => {
                if kind == ICMP_REDIRECT {
                    write!(self.line, "GATEWAY={} ", Ipv4Addr::new(b4, b5, b6, b7))?;
                }
                if outer {
                    self.line.write_char('[')?;
                    self.ipv4(message.bytes.get(8..).unwrap_or_default(), false)?;
                    self.line.write_str("] ")?;
                }
                if (kind, code) == (ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED) {
                    write!(self.line, "MTU={} ", u16::from_be_bytes([b6, b7]))?;
                }
            }
            _ => (),
        }
        Ok(true)
    }

    pub(super) fn icmpv6(&mut self, message: Rest<'_>, later: bool, outer: bool) -> Result<bool, fmt::Error> {
        self.line.write_str("PROTO=ICMPv6 ")?;
        if later {
            return Ok(true);
        }
        let Some(&[kind, code, _, _, b4, b5, b6, b7]) = message.bytes.first_chunk() else {
            self.incomplete(message)?;
            return Ok(false);
        };
        write!(self.line, "TYPE={kind} CODE={code} ")?;
        let word = u32::from_be_bytes([b4, b5, b6, b7]);
        match kind {
            128 | 129 => write!(self.line, "ID={} SEQ={} ", word >> 16, word & 0xffff)?,
            1..=ICMPV6_PARAMETER_PROBLEM => {
                if kind == ICMPV6_PARAMETER_PROBLEM {
                    write!(self.line, "POINTER={word:08x} ")?;
                }
                if outer {
                    self.line.write_char('[')?;
                    self.ipv6(message.bytes.get(8..).unwrap_or_default(), false)?;
                    self.line.write_str("] ")?;
                }
                if kind == ICMPV6_PACKET_TOO_BIG {
                    write!(self.line, "MTU={word} ")?;
                }
            }
            _ => (),
        }
        Ok(true)
    }
}

/// The length below which an ICMP message of this type has a part missing.
fn min_icmp_len(kind: u8) -> usize {
    match kind {
        3 | 4 | 5 | 11 | 12 => 28,
        13 | 14 => 20,
        17 | 18 => 12,
        _ => 8,
    }
}
