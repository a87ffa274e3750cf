//! The tables of a cluster's shards between gateways: what the active one sends of its engine, what a standby makes of it.
//!
//! The roles and the order of frames are the crate `keepstate-cluster`'s; here is what that crate does not know: the engine.
mod address_takeover;
mod announcement;
mod cluster_time;
mod config;
mod epoch_file;
mod handle;
mod own_connections;
mod report;
mod running_balance;
mod running_shard;
mod shard_thread;
mod standing_clock;
mod table_receiver;
mod table_sender;

pub(crate) use address_takeover::AddressTakeover;
pub use config::{
    AddressTakeoverConfig, ClusterConfig, ClusterServers, DEFAULT_LEASE, ShardConfig, StartTransport, TransportStarter,
};
pub use epoch_file::{read_epoch, write_epoch};
pub(crate) use handle::ClusterHandle;
pub(crate) use report::ClusterReport;
pub(crate) use shard_thread::ClusterNode;
pub use standing_clock::StandingClock;
pub use table_receiver::{ReceiverCounters, TableReceiver};
pub use table_sender::TableSender;

use keepstate_cluster::{Epoch, EpochShare};
use keepstate_engine::{PartUse, PortPart};

/// The ports that the active gateway of an epoch gives: not those that the one before it may just have given, nor another one that was promoted by hand at the same time.
pub fn port_part(epoch: Epoch, share: EpochShare, port_use: PartUse) -> Option<PortPart> {
    let parts = share.parts();
    // A remainder of parts fits.
    PortPart::new((epoch.0 % u64::from(parts)) as u16, parts, port_use)
}
