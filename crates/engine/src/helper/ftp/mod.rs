//! The FTP helper: finds announcements of data connections in a control connection (RFC 959, RFC 2428), as Linux 6.18 does.
//!
//! An [`Ftp`] belongs to one control connection. It records where lines begin, because a command counts only at the start of a segment
//! that starts a line. It must never reassemble: a command split by the end of a segment makes the segment [`FtpParseResult::Partial`], which Linux
//! drops, so that the sender retransmits it whole. It must never trust one side's statement about the other's address.
mod format_cmd;
mod line_starts;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use format_cmd::format_cmd;

use crate::Direction;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::ops::Range;
use line_starts::LineStarts;
use parse::{parse_delimited_port, parse_numbers};

/// The helper's state for a control connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ftp {
    /// By direction.
    line_starts: [LineStarts; 2],
}

/// One segment of the control connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FtpSegment<'a> {
    pub(crate) direction: Direction,
    /// Sequence number of the first byte.
    pub(crate) seq: u32,
    /// The sender's address, from the connection's tuple of this direction.
    pub(crate) sender: IpAddr,
    pub(crate) payload: &'a [u8],
}

/// The commands and replies that announce a data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FtpType {
    /// `PORT h1,h2,h3,h4,p1,p2`, from the client.
    Port,
    /// `EPRT |1|address|port|`, from the client.
    Eprt,
    /// `227 … h1,h2,h3,h4,p1,p2`, from the server.
    Pasv,
    /// `229 … (|||port|)`, from the server.
    Epsv,
}

/// Destination of an announced data connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataEndpoint {
    pub(crate) ftp_type: FtpType,
    pub(crate) address: IpAddr,
    /// Zero is possible: `PORT` and `227` may announce it.
    pub(crate) port: u16,
    /// The bytes of the payload that NAT would replace: the numbers; for EPRT and EPSV also the delimiters around them.
    pub(crate) match_range: Range<usize>,
}

/// The result of parsing a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FtpParseResult {
    /// No announcement.
    NoMatch,
    /// A data connection to the sender itself: create an expectation.
    Expect(DataEndpoint),
    /// A data connection to another host: create no expectation; the segment passes.
    ThirdParty(DataEndpoint),
    /// A command that is incomplete or cannot be parsed: drop the segment.
    Partial,
}

impl Ftp {
    /// The state encoded for storage outside the table.
    pub(crate) fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes.as_chunks_mut::<9>().0.iter_mut().zip(&self.line_starts).for_each(|(to, lines)| *to = lines.to_bytes());
        bytes
    }

    /// `None` if the bytes are not a valid state.
    pub(crate) fn from_bytes(bytes: &[u8; 18]) -> Option<Ftp> {
        let [original, reply] = *bytes.as_chunks::<9>().0 else { return None };
        Some(Ftp { line_starts: [LineStarts::from_bytes(&original)?, LineStarts::from_bytes(&reply)?] })
    }

    /// Parses one segment of the established control connection.
    pub(crate) fn parse_segment(&mut self, segment: &FtpSegment<'_>) -> FtpParseResult {
        let lines = &mut self.line_starts[segment.direction as usize];
        let result = if lines.is_line_start(segment.seq) { find_pattern(segment) } else { FtpParseResult::NoMatch };
        // A dropped segment will be retransmitted, so its line has not ended yet.
        if result != FtpParseResult::Partial && segment.payload.last() == Some(&b'\n') {
            // A payload is shorter than 2³² bytes, and sequence numbers wrap.
            lines.record_line_end(segment.seq.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0)));
        }
        result
    }
}

/// Parses a segment that starts a line.
fn find_pattern(segment: &FtpSegment<'_>) -> FtpParseResult {
    let kinds = match segment.direction {
        Direction::Original => [(&b"PORT"[..], FtpType::Port), (b"EPRT", FtpType::Eprt)],
        Direction::Reply => [(&b"227 "[..], FtpType::Pasv), (b"229 ", FtpType::Epsv)],
    };
    for (word, kind) in kinds {
        match match_pattern(segment.payload, word) {
            PatternMatch::NoMatch => {}
            PatternMatch::Partial => return FtpParseResult::Partial,
            PatternMatch::Found => return parse_endpoint(kind, word.len(), segment),
        }
    }
    FtpParseResult::NoMatch
}

enum PatternMatch {
    NoMatch,
    /// The payload ends before or with the word.
    Partial,
    Found,
}

fn match_pattern(payload: &[u8], word: &[u8]) -> PatternMatch {
    let shared = payload.len().min(word.len());
    match (payload.get(..shared), word.get(..shared)) {
        (Some(start), Some(expected)) if start.eq_ignore_ascii_case(expected) => match shared {
            0 => PatternMatch::NoMatch,
            _ if payload.len() <= word.len() => PatternMatch::Partial,
            _ => PatternMatch::Found,
        },
        _ => PatternMatch::NoMatch,
    }
}

fn parse_endpoint(kind: FtpType, word: usize, segment: &FtpSegment<'_>) -> FtpParseResult {
    let read = match kind {
        FtpType::Port => skip_past(segment.payload, word, b' ').and_then(|at| parse_port(segment.payload, at)),
        FtpType::Pasv => parse_pasv(segment.payload, word),
        FtpType::Eprt => {
            skip_past(segment.payload, word, b' ').and_then(|at| parse_eprt(segment.payload, at, segment.sender))
        }
        FtpType::Epsv => {
            skip_past(segment.payload, word, b'(').and_then(|at| parse_epsv(segment.payload, at, segment.sender))
        }
    };
    match read {
        None => FtpParseResult::Partial,
        Some((address, port, at)) => {
            let announcement = DataEndpoint { ftp_type: kind, address, port, match_range: at };
            if address == segment.sender {
                FtpParseResult::Expect(announcement)
            } else {
                FtpParseResult::ThirdParty(announcement)
            }
        }
    }
}

type ParsedEndpoint = Option<(IpAddr, u16, Range<usize>)>;

/// The position after the first `wanted` byte from `from` on, even if that is lines away, as in Linux.
fn skip_past(payload: &[u8], from: usize, wanted: u8) -> Option<usize> {
    payload.get(from..)?.iter().position(|byte| *byte == wanted).map(|at| from + at + 1)
}

/// `h1,h2,h3,h4,p1,p2` and a carriage return.
fn parse_port(payload: &[u8], from: usize) -> ParsedEndpoint {
    parse_six_numbers(payload, from, |terminator| terminator == b'\r')
}

/// The same, from the first digit on and followed by any byte other than a digit or comma: servers differ in all else (RFC 1123, 4.1.2.6).
fn parse_pasv(payload: &[u8], word: usize) -> ParsedEndpoint {
    let digit = payload.get(word..)?.iter().position(u8::is_ascii_digit)?;
    parse_six_numbers(payload, word + digit, |_| true)
}

fn parse_six_numbers(payload: &[u8], from: usize, ends: impl Fn(u8) -> bool) -> ParsedEndpoint {
    let ([a, b, c, d, high, low], length) = parse_numbers(payload.get(from..)?, b',', ends)?;
    // The port is computed as in Linux, so that numbers over 255 give the same result.
    let port = (high << 8 | low) & 0xffff;
    Some((parse::ipv4_from_numbers([a, b, c, d]), u16::try_from(port).ok()?, from..from + length))
}

/// `|1|h1.h2.h3.h4|port|` or `|2|address|port|`, with any printable delimiter other than a digit.
fn parse_eprt(payload: &[u8], from: usize, sender: IpAddr) -> ParsedEndpoint {
    let text = payload.get(from..)?;
    let (&[delimiter, family, again], address) = text.split_first_chunk::<3>()?;
    if !is_delimiter(delimiter) || again != delimiter || family != if sender.is_ipv4() { b'1' } else { b'2' } {
        return None;
    }
    let (address, length) = if sender.is_ipv4() {
        let (parts, length) = parse_numbers::<4>(address, b'.', |terminator| terminator == delimiter)?;
        (parse::ipv4_from_numbers(parts), length)
    } else {
        let length = address.iter().position(|byte| *byte == delimiter)?;
        let text = core::str::from_utf8(address.get(..length)?).ok()?;
        (IpAddr::V6(parse_ipv6(text)?), length)
    };
    let before_port = 3 + length + 1;
    let (port, length) = parse_delimited_port(text.get(before_port..)?, delimiter)?;
    Some((address, port, from..from + before_port + length + 1))
}

/// An IPv6 address; as in Linux a group may have any number of leading zeros.
fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    let group = |group: &str| match group.trim_start_matches('0') {
        "" if !group.is_empty() => String::from("0"),
        digits if digits.contains('.') => String::from(group),
        digits => String::from(digits),
    };
    let groups: Vec<String> = text.split(':').map(group).collect();
    groups.join(":").parse().ok()
}

/// `|||port|`: the address is that of the sender.
fn parse_epsv(payload: &[u8], from: usize, sender: IpAddr) -> ParsedEndpoint {
    let (&[delimiter, second, third], port) = payload.get(from..)?.split_first_chunk::<3>()?;
    if !is_delimiter(delimiter) || second != delimiter || third != delimiter {
        return None;
    }
    let (port, length) = parse_delimited_port(port, delimiter)?;
    Some((sender, port, from..from + 3 + length + 1))
}

/// RFC 2428, section 2: a byte from 33 to 126; a digit would be ambiguous.
const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 33..=126) && !byte.is_ascii_digit()
}
