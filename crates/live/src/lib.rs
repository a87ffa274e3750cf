//! One model of the live connection table: what is in it, who fills it, how fast, and until when there is room.
//!
//! - [`LiveTable`] is the model: pure, fed with the connections of a dump, with events and with counters, and asked for counts, groups and
//!   pages of connections. Its clock is an argument.
//! - [`LiveFeed`] feeds one from Linux's table or from a running gateway, on threads of its own: events first, then a dump in pieces; events that
//!   were lost lead to another dump.
//! - [`FleetView`] is what several machines tell of their tables and shards.
//!
//! `keepstate top` and `keepstate serve` show the same model. Nothing here judges what it shows, or changes a table.
mod counters;
mod dump_reader;
mod feed;
mod fleet_view;
mod flow_key;
mod flow_record;
mod groups;
mod nat_ports;
mod occupancy;
mod owner;
mod owner_gather;
mod owner_groups;
mod page;
mod rate;
mod source;
mod table;

pub use counters::{CounterSums, NamedCounter};
pub use feed::{FeedOptions, LiveFeed};
pub use fleet_view::{FleetBoard, FleetView, NodeFinding, NodeVerdict, NodeView, ShardDuty, ShardView};
pub use flow_key::FlowKey;
pub use flow_record::{FlowState, NatPath};
pub use groups::{GroupBy, GroupRow};
pub use nat_ports::NatPortUse;
pub use occupancy::{OccupancySample, TimeToFull, duration_text};
pub use owner::OwnerIndex;
pub use owner_groups::OwnerGroups;
pub use page::{FlowRow, FlowSort, PageQuery, TablePage};
pub use source::{SourceSettings, TableSource};
pub use table::{FeedState, LiveTable, TableSample};

#[cfg(test)]
mod tests;
