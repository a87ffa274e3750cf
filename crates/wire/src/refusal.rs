//! Why a packet was refused: one closed list.

/// The reason a packet, or a part of it, was refused before tracking could look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// Placeholder until the list is written.
    Truncated,
}
