//! The chunks of one SCTP packet, iterated as Linux does.
//!
//! A [`ChunkBundle`] is created once per packet, after a check that its chunks may be bundled. It must never be stricter than
//! Linux, which reads chunk headers only: a length under four bytes or beyond the packet is accepted; a length of zero is not.
use super::error::SctpError;
use super::transitions::ChunkType;

/// One chunk: its kind, its flags, and all bytes of the packet after its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) chunk_type: ChunkType,
    flags: u8,
    payload: &'a [u8],
}

/// Length in bytes of the fixed part of INIT and INIT ACK after the chunk header (RFC 9260, section 3.3.2).
const INIT_FIXED_LEN: usize = 16;

impl Chunk<'_> {
    /// The T bit of ABORT and SHUTDOWN COMPLETE: the sender had no association and reflects the receiver's tag (RFC 9260, section 8.5.1).
    pub(super) const fn has_t_bit(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The initiate tag of INIT and INIT ACK. `None` if their fixed part is truncated.
    pub(super) fn initiate_tag(&self) -> Result<u32, SctpError> {
        match self.payload.first_chunk::<INIT_FIXED_LEN>() {
            Some(&[a, b, c, d, ..]) => Ok(u32::from_be_bytes([a, b, c, d])),
            None => Err(SctpError::MalformedChunks),
        }
    }
}

/// Chunks that may be bundled.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkBundle<'a> {
    bytes: &'a [u8],
    /// One bit for each [`ChunkType`].
    types: u16,
}

impl<'a> ChunkBundle<'a> {
    /// Checks the chunks: INIT, INIT ACK and SHUTDOWN COMPLETE must not be bundled (RFC 9260, section 6.10); COOKIE ECHO and COOKIE ACK
    /// must be the first chunk; and there must be at least one chunk.
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, SctpError> {
        let mut bundle = ChunkBundle { bytes, types: 0 };
        let mut alone = false;
        let mut walk = ChunkIter { rest: bytes };
        while let Some(chunk) = walk.next_chunk()? {
            let first = bundle.types == 0;
            alone |= matches!(chunk.chunk_type, ChunkType::Init | ChunkType::InitAck | ChunkType::ShutdownComplete);
            if !first && (alone || matches!(chunk.chunk_type, ChunkType::CookieEcho | ChunkType::CookieAck)) {
                return Err(SctpError::MalformedChunks);
            }
            bundle.types |= 1 << chunk.chunk_type as u16;
        }
        if bundle.types == 0 { Err(SctpError::MalformedChunks) } else { Ok(bundle) }
    }

    /// Is there a chunk of any of `kinds`?
    pub(super) fn has_any(&self, kinds: &[ChunkType]) -> bool {
        kinds.iter().any(|kind| self.types & (1 << *kind as u16) != 0)
    }

    /// The chunks in order. Their lengths were checked before.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut walk = ChunkIter { rest: self.bytes };
        core::iter::from_fn(move || walk.next_chunk().ok().flatten())
    }
}

struct ChunkIter<'a> {
    rest: &'a [u8],
}

impl<'a> ChunkIter<'a> {
    /// The next chunk; `None` if fewer bytes are left than a chunk header has.
    fn next_chunk(&mut self) -> Result<Option<Chunk<'a>>, SctpError> {
        let Some((&[kind, flags, a, b], behind)) = self.rest.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([a, b]));
        if length == 0 {
            return Err(SctpError::MalformedChunks);
        }
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Ok(Some(Chunk { chunk_type: ChunkType::from_type(kind), flags, payload: behind }))
    }
}
