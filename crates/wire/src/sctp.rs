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
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, Refusal> {
        let Some((&[a, b, c, d, e, f, g, h, ..], chunks)) = transport.split_first_chunk::<12>() else {
            return Err(Refusal::SctpTruncated);
        };
        Ok(Header {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
            tag: u32::from_be_bytes([e, f, g, h]),
            chunks,
        })
    }

    /// The chunks one after the other.
    #[inline]
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { rest: self.chunks }
    }
}

/// Iterator over chunks. It ends after the first refusal.
#[derive(Clone, Copy, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, Refusal>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((chunk, rest)) = Chunk::split(self.rest) else {
            self.rest = &[];
            return Some(Err(Refusal::SctpChunk));
        };
        self.rest = rest;
        Some(Ok(chunk))
    }
}

impl<'a> Chunk<'a> {
    /// The first chunk in `octets` and what follows its padding; nothing when it is shorter than its header or does not fit.
    #[inline]
    fn split(octets: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind, flags, a, b], after) = octets.split_first_chunk::<4>()?;
        let length = u16::from_be_bytes([a, b]);
        let value_len = usize::from(length).checked_sub(4)?;
        let value = after.get(..value_len)?;
        // The padding of the last chunk may be left out.
        let rest = after.get(value_len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((Chunk { kind, flags, length, value }, rest))
    }
}
