//! The chunks of one SCTP packet, walked as Linux walks them.
//!
//! A [`ChunkBundle`] is made once a packet, after a look over all chunks: it knows that they may stand together. It must never be stricter than
//! Linux, which reads chunk headers only: a length under four bytes, or beyond the packet, stops nobody; a length of zero does.
use super::error::SctpError;
use super::transitions::ChunkType;

/// One chunk: what it is, its flags, and every byte of the packet behind its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk<'a> {
    pub(super) chunk_type: ChunkType,
    flags: u8,
    payload: &'a [u8],
}

/// Bytes of the fixed part of INIT and INIT ACK behind the chunk header (RFC 9260, section 3.3.2).
const INIT_FIXED_LEN: usize = 16;

impl Chunk<'_> {
    /// The T bit of ABORT and SHUTDOWN COMPLETE: the sender had no association and reflects our tag (RFC 9260, section 8.5.1).
    pub(super) const fn has_t_bit(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The initiate tag of INIT and INIT ACK. Their whole fixed part must be there.
    pub(super) fn initiate_tag(&self) -> Result<u32, SctpError> {
        match self.payload.first_chunk::<INIT_FIXED_LEN>() {
            Some(&[a, b, c, d, ..]) => Ok(u32::from_be_bytes([a, b, c, d])),
            None => Err(SctpError::MalformedChunks),
        }
    }
}

/// Chunks that may stand together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChunkBundle<'a> {
    bytes: &'a [u8],
    /// One bit a [`RecordKind`].
    types: u16,
}

impl<'a> ChunkBundle<'a> {
    /// Looks over the chunks: INIT, INIT ACK and SHUTDOWN COMPLETE stand alone (RFC 9260, section 6.10); COOKIE ECHO and COOKIE ACK
    /// stand first; and there is at least one.
    pub(super) fn check(bytes: &'a [u8]) -> Result<Self, SctpError> {
        let mut bundle = ChunkBundle { bytes: bytes, types: 0 };
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

    /// Is any of `kinds` among them?
    pub(super) fn has_any(&self, kinds: &[ChunkType]) -> bool {
        kinds.iter().any(|kind| self.types & (1 << *kind as u16) != 0)
    }

    /// One after the other. Lengths were checked before.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut walk = ChunkIter { rest: self.bytes };
        core::iter::from_fn(move || walk.next_chunk().ok().flatten())
    }
}

struct ChunkIter<'a> {
    rest: &'a [u8],
}

impl<'a> ChunkIter<'a> {
    /// The next chunk; nothing when fewer bytes are left than a chunk header takes.
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
