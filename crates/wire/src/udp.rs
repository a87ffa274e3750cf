//! UDP (RFC 768) and UDP-Lite (RFC 3828).
use crate::ParseError;

/// A UDP or UDP-Lite header whose length field fits the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct UdpHeader {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The length field (UDP), or the checksum coverage (UDP-Lite).
    pub length: u16,
    /// The checksum field; zero means no checksum in UDP.
    pub checksum: u16,
}

impl UdpHeader {
    /// Parses a UDP header at the start of `transport`. Its length field must be at least 8 and at most `transport_len`.
    ///
    /// # Errors
    /// [`ParseError::UdpTruncated`], [`ParseError::UdpLength`] or [`ParseError::NotCaptured`].
    #[inline]
    pub fn parse(transport: &[u8], transport_len: usize) -> Result<Self, ParseError> {
        let header = UdpHeader::read(transport, transport_len)?;
        let length = usize::from(header.length);
        if length < HEADER_LEN || length > transport_len {
            return Err(ParseError::UdpLength);
        }
        Ok(header)
    }

    /// Parses a UDP-Lite header. Its coverage must be 0, or at least 8 and at most `transport_len`, and it must have a
    /// checksum (RFC 3828, section 3.1).
    ///
    /// # Errors
    /// [`ParseError::UdpTruncated`], [`ParseError::UdpLiteCoverage`], [`ParseError::UdpLiteNoChecksum`] or [`ParseError::NotCaptured`].
    #[inline]
    pub fn parse_lite(transport: &[u8], transport_len: usize) -> Result<Self, ParseError> {
        let header = UdpHeader::read(transport, transport_len)?;
        let coverage = usize::from(header.length);
        if coverage != 0 && (coverage < HEADER_LEN || coverage > transport_len) {
            return Err(ParseError::UdpLiteCoverage);
        }
        if header.checksum == 0 {
            return Err(ParseError::UdpLiteNoChecksum);
        }
        Ok(header)
    }

    #[inline]
    fn read(transport: &[u8], transport_len: usize) -> Result<Self, ParseError> {
        let Some(&[a, b, c, d, e, f, g, h]) = transport.first_chunk::<HEADER_LEN>() else {
            return Err(if transport_len < HEADER_LEN { ParseError::UdpTruncated } else { ParseError::NotCaptured });
        };
        Ok(UdpHeader {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
            length: u16::from_be_bytes([e, f]),
            checksum: u16::from_be_bytes([g, h]),
        })
    }
}

const HEADER_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn with_length(length: u8) -> [u8; 12] {
        [0, 1, 0, 2, 0, length, 7, 7, 0, 0, 0, 0]
    }

    #[test]
    fn udp_length_must_be_between_8_and_transport_len() {
        for (length, refused) in [(7, true), (8, false), (12, false), (13, true), (0, true)] {
            let header = UdpHeader::parse(&with_length(length), 12);
            assert_eq!(header.err(), refused.then_some(ParseError::UdpLength), "{length}");
        }
        assert_eq!(UdpHeader::parse(&[0; 7], 7), Err(ParseError::UdpTruncated));
        assert_eq!(UdpHeader::parse(&[0; 7], 8), Err(ParseError::NotCaptured));
    }

    #[test]
    fn udp_lite_coverage_zero_means_whole_packet() {
        for (coverage, refused) in [(7, true), (8, false), (12, false), (13, true), (0, false)] {
            let header = UdpHeader::parse_lite(&with_length(coverage), 12);
            assert_eq!(header.err(), refused.then_some(ParseError::UdpLiteCoverage), "{coverage}");
        }
        let mut unsummed = with_length(0);
        unsummed[6..8].copy_from_slice(&[0, 0]);
        assert_eq!(UdpHeader::parse_lite(&unsummed, 12), Err(ParseError::UdpLiteNoChecksum));
    }
}
