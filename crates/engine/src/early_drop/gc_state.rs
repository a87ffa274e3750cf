//! What collecting in a full table keeps from one step to the next.
use crate::Instant;

/// A packet found no room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GcState {
    /// The slot from where on weak connections are still to be ended.
    pub(crate) cursor: Option<u32>,
    /// The next round does not begin before: whoever sends packets that find no room shall not make us look through the whole table for each.
    pub(crate) next_round: Instant,
}
