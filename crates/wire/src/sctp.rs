//! SCTP (RFC 9260): common header and chunks.
use crate::ParseError;

/// The common header and the chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SctpHeader<'a> {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Verification tag.
    pub tag: u32,
    /// The bytes after the common header.
    pub chunks: &'a [u8],
}

/// One chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SctpChunk<'a> {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// The length field, which includes the chunk header of four bytes.
    pub length: u16,
    /// The chunk value, without padding.
    pub value: &'a [u8],
}

impl<'a> SctpHeader<'a> {
    /// Parses the common header of twelve bytes.
    ///
    /// # Errors
    /// [`ParseError::SctpTruncated`].
    #[inline]
    pub fn parse(transport: &'a [u8]) -> Result<Self, ParseError> {
        let Some((&[a, b, c, d, e, f, g, h, ..], chunks)) = transport.split_first_chunk::<12>() else {
            return Err(ParseError::SctpTruncated);
        };
        Ok(SctpHeader {
            source: u16::from_be_bytes([a, b]),
            destination: u16::from_be_bytes([c, d]),
            tag: u32::from_be_bytes([e, f, g, h]),
            chunks,
        })
    }

    /// Iterates over the chunks.
    #[inline]
    pub fn chunks(&self) -> SctpChunks<'a> {
        SctpChunks { rest: self.chunks }
    }
}

/// Iterator over chunks. It ends after the first malformed one.
#[derive(Clone, Copy, Debug)]
pub struct SctpChunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for SctpChunks<'a> {
    type Item = Result<SctpChunk<'a>, ParseError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((chunk, rest)) = SctpChunk::split_first(self.rest) else {
            self.rest = &[];
            return Some(Err(ParseError::SctpChunk));
        };
        self.rest = rest;
        Some(Ok(chunk))
    }
}

impl<'a> SctpChunk<'a> {
    /// The first chunk in `bytes` and what follows its padding; `None` when it is shorter than its header or does not fit.
    #[inline]
    fn split_first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind, flags, a, b], after) = bytes.split_first_chunk::<4>()?;
        let length = u16::from_be_bytes([a, b]);
        let value_len = usize::from(length).checked_sub(4)?;
        let value = after.get(..value_len)?;
        // The padding of the last chunk may be missing.
        let rest = after.get(value_len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((SctpChunk { kind, flags, length, value }, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn packet(chunks: &[u8]) -> Vec<u8> {
        [&[0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0], chunks].concat()
    }

    fn kinds(chunks: &[u8]) -> Vec<Result<(u8, u16, usize), ParseError>> {
        let bytes = packet(chunks);
        let header = SctpHeader::parse(&bytes).unwrap();
        assert_eq!((header.source, header.destination, header.tag), (1, 2, 9));
        header.chunks().map(|chunk| chunk.map(|chunk| (chunk.kind, chunk.length, chunk.value.len()))).collect()
    }

    #[test]
    fn iterates_padded_chunks() {
        let cookie_echo_and_data = [10, 0, 0, 5, 0xaa, 0, 0, 0, 0, 3, 0, 6, 1, 2, 0, 0];
        assert_eq!(kinds(&cookie_echo_and_data), [Ok((10, 5, 1)), Ok((0, 6, 2))]);
        assert_eq!(kinds(&[10, 0, 0, 5, 0xaa]), [Ok((10, 5, 1))], "the last padding may be missing");
        assert_eq!(kinds(&[]), []);
    }

    #[test]
    fn malformed_chunk_ends_iteration_with_an_error() {
        for broken in [&[6, 0, 0, 3, 9][..], &[6, 0, 0, 0], &[6, 0, 0, 9, 0, 0, 0, 0], &[6, 0, 0]] {
            assert_eq!(kinds(&[&[1, 0, 0, 4][..], broken].concat()), [Ok((1, 4, 0)), Err(ParseError::SctpChunk)]);
        }
        assert_eq!(SctpHeader::parse(&[0; 11]).err(), Some(ParseError::SctpTruncated));
    }
}
