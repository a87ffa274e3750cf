//! SCTP (RFC 9260): common header and chunks.
use crate::Refusal;

/// The common header and what follows it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    /// The octets of the chunks.
    pub chunks: &'a [u8],
}

/// One chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Length field, including the four octets of the chunk header.
    pub length: u16,
    /// The value octets present.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the common header: twelve octets.
    pub fn parse(_transport: &'a [u8]) -> Result<Self, Refusal> { unimplemented!() }
}
