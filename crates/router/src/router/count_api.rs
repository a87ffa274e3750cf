//! What a router has counted beside packets: interfaces, drops by reason, lost log lines.
use super::{InterfaceCounts, Router};

impl Router {
    /// Packets of the interface of this index so far.
    pub fn interface_counts(&self, index: u32) -> InterfaceCounts {
        self.interface_counts.get(index)
    }

    /// Lines of rules' `log` that found no room, since the start.
    pub fn log_lines_lost(&self) -> u64 {
        self.log_lines_lost
    }

    /// Dropped packets by reason: every reason there is.
    pub fn drop_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.drops.values()
    }
}
