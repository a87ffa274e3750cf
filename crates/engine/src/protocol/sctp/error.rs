//! Why a packet is not part of its association.

/// Why a packet is no part of an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SctpError {
    /// Chunks that may not stand together, none at all, one of length zero, or an INIT cut short.
    MalformedChunks,
    /// An association does not begin with such a chunk.
    UnexpectedFirstChunk,
    /// The verification tag is not the association's.
    BadVtag,
    /// The chunk has no place in this state.
    InvalidTransition,
    /// An INIT ACK whose tag is neither the one known nor asked for by an INIT.
    UnexpectedInitAck,
}
