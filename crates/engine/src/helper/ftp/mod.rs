//! The FTP helper: what a control channel (RFC 959, RFC 2428) says about data connections to come, heard as Linux 6.18 hears it.
//!
//! An [`Ftp`] belongs to one control connection. It remembers where lines begin, because a command counts only at the start of a segment
//! that starts a line. It never reassembles: a command cut in two by a segment's end makes the segment [`FtpParseResult::Partial`], which Linux
//! drops, so that the sender sends it again whole. It must never take the word of one side about the other's address.
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

/// What is kept for a control connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ftp {
    /// By direction.
    line_starts: [LineStarts; 2],
}

/// One segment of the control connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FtpSegment<'a> {
    pub(crate) direction: Direction,
    /// The sequence number of the first byte.
    pub(crate) seq: u32,
    /// The sender's address, as the connection's tuple of this direction has it.
    pub(crate) sender: IpAddr,
    pub(crate) payload: &'a [u8],
}

/// The commands and answers that announce.
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

/// Where a data connection is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DataEndpoint {
    pub(crate) ftp_type: FtpType,
    pub(crate) address: IpAddr,
    /// Zero is possible: `PORT` and `227` may say so.
    pub(crate) port: u16,
    /// The bytes of the payload that NAT would write anew: the numbers; with EPRT and EPSV the delimiters around them too.
    pub(crate) match_range: Range<usize>,
}

/// What a segment said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FtpParseResult {
    /// Nothing of interest.
    NoMatch,
    /// A data connection to the sender itself: to be expected.
    Expect(DataEndpoint),
    /// A data connection to somebody else: not to be expected, though the segment passes.
    ThirdParty(DataEndpoint),
    /// A command that is not whole or not understood: the segment is to be dropped.
    Partial,
}

impl Ftp {
    /// As it is kept outside a table.
    pub(crate) fn to_bytes(&self) -> [u8; 18] {
        let mut bytes = [0; 18];
        bytes.as_chunks_mut::<9>().0.iter_mut().zip(&self.line_starts).for_each(|(to, lines)| *to = lines.to_bytes());
        bytes
    }

    /// `None` if they are none of its.
    pub(crate) fn from_bytes(bytes: &[u8; 18]) -> Option<Ftp> {
        let [original, reply] = *bytes.as_chunks::<9>().0 else { return None };
        Some(Ftp { line_starts: [LineStarts::from_bytes(&original)?, LineStarts::from_bytes(&reply)?] })
    }

    /// Listens to one segment of the established control connection.
    pub(crate) fn parse_segment(&mut self, segment: &FtpSegment<'_>) -> FtpParseResult {
        let lines = &mut self.line_starts[segment.direction as usize];
        let heard = if lines.is_line_start(segment.seq) { find_pattern(segment) } else { FtpParseResult::NoMatch };
        // What is dropped will be sent again: the line has not ended yet.
        if heard != FtpParseResult::Partial && segment.payload.last() == Some(&b'\n') {
            // A payload has fewer than 2³² bytes, and sequence numbers wrap.
            lines.record_line_end(segment.seq.wrapping_add(u32::try_from(segment.payload.len()).unwrap_or(0)));
        }
        heard
    }
}

/// A segment that starts a line.
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
    /// The payload ends before, or with, the word.
    Partial,
    Found,
}

fn match_pattern(payload: &[u8], word: &[u8]) -> PatternMatch {
    let shared = payload.len().min(word.len());
    match (payload.get(..shared), word.get(..shared)) {
        (Some(said), Some(wanted)) if said.eq_ignore_ascii_case(wanted) => match shared {
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

/// The position behind the first `wanted` byte from `from` on, be it lines away: Linux looks no closer.
fn skip_past(payload: &[u8], from: usize, wanted: u8) -> Option<usize> {
    payload.get(from..)?.iter().position(|byte| *byte == wanted).map(|at| from + at + 1)
}

/// `h1,h2,h3,h4,p1,p2` and a carriage return.
fn parse_port(payload: &[u8], from: usize) -> ParsedEndpoint {
    parse_six_numbers(payload, from, |terminator| terminator == b'\r')
}

/// The same from the first digit on, with anything behind that is no digit and no comma: servers agree on no more (RFC 1123, 4.1.2.6).
fn parse_pasv(payload: &[u8], word: usize) -> ParsedEndpoint {
    let digit = payload.get(word..)?.iter().position(u8::is_ascii_digit)?;
    parse_six_numbers(payload, word + digit, |_| true)
}

fn parse_six_numbers(payload: &[u8], from: usize, ends: impl Fn(u8) -> bool) -> ParsedEndpoint {
    let ([a, b, c, d, high, low], length) = parse_numbers(payload.get(from..)?, b',', ends)?;
    // The port is put together as Linux does it, so that numbers over 255 come to the same.
    let port = (high << 8 | low) & 0xffff;
    Some((parse::ipv4_from_numbers([a, b, c, d]), u16::try_from(port).ok()?, from..from + length))
}

/// `|1|h1.h2.h3.h4|port|` or `|2|address|port|`, with any delimiter that can be seen and is no digit.
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

/// An IPv6 address; Linux takes any number of zeros before a group's digits.
fn parse_ipv6(text: &str) -> Option<Ipv6Addr> {
    let group = |group: &str| match group.trim_start_matches('0') {
        "" if !group.is_empty() => String::from("0"),
        digits if digits.contains('.') => String::from(group),
        digits => String::from(digits),
    };
    let groups: Vec<String> = text.split(':').map(group).collect();
    groups.join(":").parse().ok()
}

/// `|||port|`: the address is the sender's.
fn parse_epsv(payload: &[u8], from: usize, sender: IpAddr) -> ParsedEndpoint {
    let (&[delimiter, second, third], port) = payload.get(from..)?.split_first_chunk::<3>()?;
    if !is_delimiter(delimiter) || second != delimiter || third != delimiter {
        return None;
    }
    let (port, length) = parse_delimited_port(port, delimiter)?;
    Some((sender, port, from..from + 3 + length + 1))
}

/// RFC 2428, section 2: from 33 to 126; a digit could not be told from the numbers.
const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 33..=126) && !byte.is_ascii_digit()
}
