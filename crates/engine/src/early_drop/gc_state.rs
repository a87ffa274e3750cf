//! The state of `Engine::gc_full` between calls.
use crate::Instant;

/// A requested or running scan of a full table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GcState {
    /// The next slot to scan; 0 for a requested scan, `None` if there is none.
    pub(crate) cursor: Option<u32>,
    /// The next scan does not begin earlier. This bounds the work that packets arriving at a full table can cause.
    pub(crate) next_round: Instant,
}
