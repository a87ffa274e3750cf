//! Skipping IPv6 extension headers (RFC 8200, section 4) to find the transport header.
//!
//! Hop-by-hop options, routing, destination options, fragment and authentication headers are skipped, in any order and
//! number, as Linux's connection tracking does. ESP and "no next header" end the chain and are
//! the protocol. In the inner packet of an ICMP error "no next header" is an error: it names no connection.
use crate::ParseError;

/// How far to skip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipMode {
    /// As `ThroughFragments`, in the inner packet of an ICMP error, which may end anywhere.
    IcmpInner,
    /// To the first fragment header, even of an atomic fragment (RFC 6946): Linux gives those to reassembly too, where they share
    /// identifications with real fragments.
    ToFragment,
    /// Through fragment headers, up to one of a later fragment: in inner and in reassembled packets.
    ThroughFragments,
}

/// Where skipping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SkipResult {
    /// The type of the first header that is no extension; after a fragment header, the type of the header that it names.
    pub protocol: u8,
    /// Offset of that header.
    pub transport_at: usize,
    /// Offset of the fragment header, if skipping ended at one.
    pub fragment_at: Option<usize>,
}

/// Skips from the header of type `next` at offset `at` of `bytes`.
pub(crate) fn skip_exthdrs(
    bytes: &[u8],
    mut at: usize,
    mut next: u8,
    mode: SkipMode,
) -> Result<SkipResult, ParseError> {
    while is_extension(next) {
        if next == NO_NEXT_HEADER {
            if mode == SkipMode::IcmpInner {
                return Err(ParseError::NoNextHeader);
            }
            break;
        }
        let Some([following, length, c, d]) = read_header(bytes.get(at..).unwrap_or_default(), mode) else {
            return Err(ParseError::ExtensionTruncated);
        };
        let is_first = u16::from_be_bytes([c, d]) & 0xfff8 == 0;
        if next == FRAGMENT && (mode == SkipMode::ToFragment || !is_first) {
            return Ok(SkipResult { protocol: following, transport_at: at + 8, fragment_at: Some(at) });
        }
        at += header_len(next, length);
        next = following;
    }
    if at > bytes.len() && mode != SkipMode::IcmpInner {
        return Err(ParseError::ExtensionTruncated);
    }
    Ok(SkipResult { protocol: next, transport_at: at, fragment_at: None })
}

/// Checks the hop-by-hop options of an IPv6 packet of `total_len` bytes as Linux does before it tracks the packet
/// (`ipv6_parse_hopopts`): at most seven bytes of padding in a row, all zero; at most eight options; unknown ones only of a type
/// that may be skipped (RFC 8200, section 4.2).
///
/// # Errors
/// [`ParseError::HopByHopOptions`], [`ParseError::Jumbogram`], or [`ParseError::NotCaptured`] if a capture has too few of them.
pub(crate) fn check_hop_by_hop(bytes: &[u8], total_len: usize) -> Result<(), ParseError> {
    const MAX_OPTIONS: usize = 8;
    const MAX_PADDING: usize = 7;
    let rest = bytes.get(HOP_BY_HOP_AT..).unwrap_or_default();
    let missing = if bytes.len() < total_len { ParseError::NotCaptured } else { ParseError::HopByHopOptions };
    let Some(&[_, length, ..]) = rest.first_chunk::<8>() else { return Err(missing) };
    let Some(header) = rest.get(..header_len(HOP_BY_HOP, length)) else { return Err(missing) };
    let mut rest = header.get(2..).unwrap_or_default();
    let (mut padding, mut count) = (0, 0);
    while let Some((&kind, after)) = rest.split_first() {
        if kind == PAD1 {
            padding += 1;
            if padding > MAX_PADDING {
                return Err(ParseError::HopByHopOptions);
            }
            rest = after;
            continue;
        }
        let at = HOP_BY_HOP_AT + header.len() - rest.len();
        let split = after.split_first().and_then(|(length, after)| after.split_at_checked(usize::from(*length)));
        let Some((value, after)) = split else { return Err(ParseError::HopByHopOptions) };
        rest = after;
        if kind == PADN {
            padding += value.len() + 2;
            if padding > MAX_PADDING || value.iter().any(|byte| *byte != 0) {
                return Err(ParseError::HopByHopOptions);
            }
            continue;
        }
        (padding, count) = (0, count + 1);
        let well_formed = match kind {
            // A jumbogram is larger than any packet here; with a smaller length the option is malformed.
            JUMBO => return Err(ParseError::Jumbogram),
            ROUTER_ALERT => value.len() == 2,
            IOAM => at.is_multiple_of(4),
            // CALIPSO is dropped unless its domain is configured.
            CALIPSO => false,
            other => other & UNKNOWN_ACTION == 0,
        };
        if !well_formed || count > MAX_OPTIONS {
            return Err(ParseError::HopByHopOptions);
        }
    }
    Ok(())
}

/// The first four bytes of an extension header of which eight are present; in an inner packet two are enough.
#[inline]
fn read_header(bytes: &[u8], mode: SkipMode) -> Option<[u8; 4]> {
    if let Some(&[a, b, c, d, _, _, _, _]) = bytes.first_chunk::<8>() {
        return Some([a, b, c, d]);
    }
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let is_inner = mode == SkipMode::IcmpInner && bytes.len() >= 2;
    is_inner.then(|| [byte(0), byte(1), byte(2), byte(3)])
}

/// Offset of the next-header byte that names the header at offset `target`.
pub(crate) fn find_next_header_field(bytes: &[u8], target: usize) -> Option<usize> {
    let mut link = 6;
    let mut at = 40;
    while at < target {
        let next = *bytes.get(link)?;
        link = at;
        at += header_len(next, *bytes.get(at + 1)?);
    }
    Some(link)
}

/// Offset of the first header of type `target`, extension or not.
pub(crate) fn find_header(bytes: &[u8], target: u8) -> Option<usize> {
    let mut next = *bytes.get(6)?;
    let mut at = 40;
    while next != target {
        if !is_extension(next) || next == NO_NEXT_HEADER {
            return None;
        }
        let length = *bytes.get(at + 1)?;
        let following = *bytes.get(at)?;
        at += header_len(next, length);
        next = following;
    }
    Some(at)
}

#[inline]
fn header_len(kind: u8, length: u8) -> usize {
    match kind {
        FRAGMENT => 8,
        AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    }
}

/// Whether a header of this type is an extension header, or "no next header".
#[inline]
pub(crate) const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | NO_NEXT_HEADER)
}

/// Offset of the hop-by-hop options: only the first header may be one that Linux reads.
const HOP_BY_HOP_AT: usize = 40;
/// Types of hop-by-hop options, and the two bits that say what to do with an unknown one.
const PAD1: u8 = 0;
const PADN: u8 = 1;
const ROUTER_ALERT: u8 = 5;
const CALIPSO: u8 = 7;
const IOAM: u8 = 49;
const JUMBO: u8 = 194;
const UNKNOWN_ACTION: u8 = 0xc0;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
const NO_NEXT_HEADER: u8 = 59;
