//! UDP (RFC 768) and UDP-Lite (RFC 3828).
use crate::Refusal;

/// A datagram's header, its length held against the octets present.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// The length field (UDP) or checksum coverage (UDP-Lite).
    pub length: u16,
    /// The checksum field; zero means none in UDP.
    pub checksum: u16,
}

impl Header {
    /// Reads a UDP header; the length field must be at least 8 and at most `transport_len`.
    #[inline]
    pub fn parse(transport: &[u8], transport_len: usize) -> Result<Self, Refusal> {
        let header = Header::read(transport, transport_len)?;
        let length = usize::from(header.length);
        if length < HEADER || length > transport_len {
            return Err(Refusal::UdpLength);
        }
        Ok(header)
    }

    /// Reads a UDP-Lite header; the coverage must be 0, or at least 8 and at most `transport_len`, and a checksum must
    /// be there (RFC 3828, section 3.1).
    #[inline]
    pub fn parse_lite(transport: &[u8], transport_len: usize) -> Result<Self, Refusal> {
        let header = Header::read(transport, transport_len)?;
        let coverage = usize::from(header.length);
        if coverage != 0 && (coverage < HEADER || coverage > transport_len) {
            return Err(Refusal::UdpLiteCoverage);
        }
        if header.checksum == 0 {
            return Err(Refusal::UdpLiteNoChecksum);
        }
        Ok(header)
    }

    #[inline]
    fn read(transport: &[u8], transport_len: usize) -> Result<Self, Refusal> {
        let Some(&[a, b, c, d, e, f, g, h]) = transport.first_chunk::<HEADER>() else {
            return Err(if transport_len < HEADER { Refusal::UdpTruncated } else { Refusal::NotCaptured });
        };
        Ok(Header {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
            length: u16::from_be_bytes([e, f]),
            checksum: u16::from_be_bytes([g, h]),
        })
    }
}

const HEADER: usize = 8;
