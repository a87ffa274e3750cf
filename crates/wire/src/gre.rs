//! GRE (RFC 2784, 2890) and the enhanced GRE of PPTP (RFC 2637).
//!
//! [`GreHeader`] is the header on the wire. [`key`] is the key that Linux's connection tracking takes from it, which is more lenient.
use crate::ParseError;

/// A GRE header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GreHeader {
    /// Version: 0 plain, 1 enhanced.
    pub version: u8,
    /// EtherType of the payload.
    pub protocol: u16,
    /// The call id of enhanced GRE (version 1).
    pub call_id: Option<u16>,
}

impl GreHeader {
    /// Parses the header at the start of `transport`.
    ///
    /// # Errors
    /// [`ParseError::GreTruncated`] or [`ParseError::GreVersion`].
    pub fn parse(transport: &[u8]) -> Result<Self, ParseError> {
        let Some(&[_, flags, a, b]) = transport.first_chunk::<4>() else {
            return Err(ParseError::GreTruncated);
        };
        let version = flags & 7;
        let protocol = u16::from_be_bytes([a, b]);
        match version {
            0 => Ok(GreHeader { version, protocol, call_id: None }),
            1 => match transport.first_chunk::<8>() {
                Some(&[.., a, b]) => Ok(GreHeader { version, protocol, call_id: Some(u16::from_be_bytes([a, b])) }),
                None => Err(ParseError::GreTruncated),
            },
            _ => Err(ParseError::GreVersion),
        }
    }
}

/// The key by which Linux distinguishes GRE connections between two hosts: the call id of enhanced GRE. Plain GRE has none, and
/// neither has a truncated header or one of another version.
///
/// # Errors
/// [`ParseError::GreProtocol`] for enhanced GRE that does not carry PPP.
#[inline]
pub fn key(transport: &[u8]) -> Result<Option<u16>, ParseError> {
    match GreHeader::parse(transport) {
        Ok(GreHeader { version: 1, protocol, .. }) if protocol != PPP => Err(ParseError::GreProtocol),
        Ok(header) => Ok(header.call_id),
        Err(_) => Ok(None),
    }
}

/// The EtherType that RFC 2637 gives to PPP.
const PPP: u16 = 0x880b;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line was observed on Linux 6.18.
    #[test]
    fn only_enhanced_gre_with_ppp_has_a_key() {
        assert_eq!(key(&[0x20, 1, 0x88, 0x0b, 0, 4, 0x12, 0x34, 9]), Ok(Some(0x1234)));
        assert_eq!(key(&[0x20, 1, 8, 0, 0, 4, 0, 9]), Err(ParseError::GreProtocol));
        for keyless in [&[][..], &[0, 0, 8], &[0, 0, 8, 0, 1], &[0x20, 1, 0x88, 0x0b, 0, 4], &[0, 2, 8, 0, 1, 1, 1, 1]]
        {
            assert_eq!(key(keyless), Ok(None), "{keyless:?}");
        }
    }

    #[test]
    fn parses_plain_and_enhanced_headers() {
        let plain = GreHeader { version: 0, protocol: 0x0800, call_id: None };
        assert_eq!(GreHeader::parse(&[0, 0, 8, 0]), Ok(plain));
        assert_eq!(GreHeader::parse(&[0, 0, 8]), Err(ParseError::GreTruncated));
        assert_eq!(GreHeader::parse(&[0x20, 1, 0x88, 0x0b, 0, 4, 0]), Err(ParseError::GreTruncated));
        assert_eq!(GreHeader::parse(&[0, 2, 8, 0]), Err(ParseError::GreVersion));
    }
}
