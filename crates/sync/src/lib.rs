//! Linux's own connection table on more than one machine: what conntrackd does, with the frames, epochs and leases of a cluster of gateways.
//!
//! ```text
//! active   ctnetlink events ▶ KernelTableSender ▶ Shard ▶ StateTransport ─┐
//! standby  HeldTable        ◀ Shard             ◀ StateTransport ◀────────┘   becomes active ▶ Restoring ▶ the kernel's table
//! ```
//! A record holds the line that `conntrack -o save` prints for the entry, so all that can be saved and restored is carried. A standby holds the lines in memory, and its kernel's table stays as
//! it is, until it becomes active. [`SyncNode`] is the whole of one machine; who carries frames and who stores an epoch is given to it.
mod held_table;
mod kernel_sender;
mod node;
mod restoring;
mod table_reading;

pub use held_table::HeldTable;
pub use kernel_sender::KernelTableSender;
pub use node::{StoreEpoch, SyncCounters, SyncError, SyncNode, SyncOptions};
pub use restoring::{RestoreCounts, Restoring};
