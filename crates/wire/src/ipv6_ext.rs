//! The walk over IPv6 extension headers (RFC 8200, section 4) to the transport header.
//!
//! Hop-by-hop options, routing, destination options, fragment and authentication headers are stepped over, in any order
//! and number, as Linux's connection tracking does. ESP ends the walk and is the protocol. "No next header" is a refusal:
//! Linux finds such a datagram invalid.
use crate::ParseError;

/// How far to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipMode {
    /// As `Through`, in a quoted packet: its end is not where the octets end.
    IcmpInner,
    /// To the first fragment header, even one that says "all of it" (RFC 6946): Linux gives those to reassembly too, and
    /// there they share identifications with true fragments.
    ToFragment,
    /// Through fragment headers, up to one that is not its datagram's first: in quotes, and in what reassembly has made.
    ThroughFragments,
}

/// Where the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SkipResult {
    /// The first header that is not an extension; behind a fragment's header, the kind of what the fragments hold.
    pub protocol: u8,
    /// Where it begins.
    pub transport_at: usize,
    /// Where the fragment header begins, when the walk ended at one.
    pub fragment_at: Option<usize>,
}

/// Walks from the header of kind `next` that begins at `at` in `bytes`.
pub(crate) fn skip_exthdrs(
    bytes: &[u8],
    mut at: usize,
    mut next: u8,
    walk: SkipMode,
) -> Result<SkipResult, ParseError> {
    while is_extension(next) {
        if next == NO_NEXT_HEADER {
            return Err(ParseError::NoNextHeader);
        }
        let Some([following, length, c, d]) = read_header(bytes.get(at..).unwrap_or_default(), walk) else {
            return Err(ParseError::ExtensionTruncated);
        };
        let is_first = u16::from_be_bytes([c, d]) & 0xfff8 == 0;
        if next == FRAGMENT && (walk == SkipMode::ToFragment || !is_first) {
            return Ok(SkipResult { protocol: following, transport_at: at + 8, fragment_at: Some(at) });
        }
        at += header_len(next, length);
        next = following;
    }
    if at > bytes.len() && walk != SkipMode::IcmpInner {
        return Err(ParseError::ExtensionTruncated);
    }
    Ok(SkipResult { protocol: next, transport_at: at, fragment_at: None })
}

/// The first four octets of an extension header that is all there; in a quote the first two must do.
#[inline]
fn read_header(bytes: &[u8], walk: SkipMode) -> Option<[u8; 4]> {
    if let Some(&[a, b, c, d, _, _, _, _]) = bytes.first_chunk::<8>() {
        return Some([a, b, c, d]);
    }
    let octet = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let quoted = walk == SkipMode::IcmpInner && bytes.len() >= 2;
    quoted.then(|| [octet(0), octet(1), octet(2), octet(3)])
}

/// Where the next-header octet stands that announces the header at `target`.
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

/// Where the first header of kind `target` begins, extension or not.
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

/// Whether headers of this kind are not the end of the chain, or end it with nothing.
#[inline]
pub(crate) const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | NO_NEXT_HEADER)
}

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;
const NO_NEXT_HEADER: u8 = 59;
