//! A backend as a scheduler sees it.

/// A backend that may get connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its index among the service's backends.
    pub(super) index: usize,
    /// Its weight, at least 1.
    pub(super) weight: u16,
    /// Two hashes of its address and port.
    pub(super) hashes: [u64; 2],
}
