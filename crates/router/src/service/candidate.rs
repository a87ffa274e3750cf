//! A backend as a scheduler sees it.

/// One who may get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// His place among the service's members.
    pub(super) index: usize,
    /// His weight, at least 1.
    pub(super) weight: u16,
    /// Two hashes of who he is.
    pub(super) hashes: [u64; 2],
}
