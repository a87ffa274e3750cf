//! Why a packet does not belong to its association.

/// Why a packet does not belong to an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SctpError {
    /// Chunks that must not be bundled, no chunk at all, a chunk of length zero, or a truncated INIT.
    MalformedChunks,
    /// A chunk that cannot begin an association.
    UnexpectedFirstChunk,
    /// The verification tag is not that of the association.
    BadVtag,
    /// The chunk is not valid in this state.
    InvalidTransition,
    /// An INIT ACK whose tag is neither the known one nor requested by an INIT.
    UnexpectedInitAck,
}
