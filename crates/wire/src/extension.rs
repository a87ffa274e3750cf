//! The walk over IPv6 extension headers (RFC 8200, section 4) to the transport header.
//!
//! Hop-by-hop options, routing, destination options, fragment and authentication headers are stepped over, in any order
//! and number, as Linux's connection tracking does. ESP and "no next header" end the walk and become the protocol.
use crate::Refusal;

/// Whose headers are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// A datagram to track: the walk stops behind the fragment header of a fragment, for reassembly to go on.
    Datagram,
    /// A quoted packet: the walk goes on behind a first fragment's header, and there is no reassembly.
    Quote,
}

/// Where the walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The first header that is not an extension; behind a fragment's header, the kind of what the fragments hold.
    pub protocol: u8,
    /// Where it begins.
    pub transport_at: usize,
    /// Where the fragment header begins, when this is a fragment. A fragment header that says "all of it" is no more
    /// than a header to step over (RFC 6946).
    pub fragment_at: Option<usize>,
}

/// Walks from the header of kind `next` that begins at `at` in `bytes`.
pub(crate) fn walk(bytes: &[u8], mut at: usize, mut next: u8, whose: Walk) -> Result<End, Refusal> {
    while is_extension(next) {
        let header = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
        let Some(&[following, length, c, d, ..]) = header else {
            return Err(Refusal::ExtensionTruncated);
        };
        let length = match next {
            FRAGMENT => {
                let word = u16::from_be_bytes([c, d]);
                let is_first = word & 0xfff8 == 0;
                if word & 0xfff9 != 0 && (whose == Walk::Datagram || !is_first) {
                    return Ok(End { protocol: following, transport_at: at + 8, fragment_at: Some(at) });
                }
                8
            }
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        at += length;
        next = following;
    }
    if at > bytes.len() {
        return Err(Refusal::ExtensionTruncated);
    }
    Ok(End { protocol: next, transport_at: at, fragment_at: None })
}

/// Whether the walk steps over headers of this kind.
#[inline]
pub(crate) const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION: u8 = 60;
