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
    pub fn parse(_transport: &[u8], _transport_len: usize) -> Result<Self, Refusal> { unimplemented!() }
    /// Reads a UDP-Lite header; the coverage must be 0, or at least 8 and at most `transport_len`.
    pub fn parse_lite(_transport: &[u8], _transport_len: usize) -> Result<Self, Refusal> { unimplemented!() }
}
