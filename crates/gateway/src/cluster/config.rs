//! What a gateway of a cluster is started with, as plain values. Who carries its frames is the embedder's choice.
use anyhow::Result;
use keepstate_cluster::{Decider, NodeName, ShardName, StateTransport};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One gateway of a cluster, and its shard.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's name, the same on all its gateways.
    pub cluster: NodeName,
    /// This gateway's name, its own.
    pub node: NodeName,
    /// The shard.
    pub shard: ShardName,
    /// Who says which gateway is active.
    pub decider: Decider,
    /// Addresses that belong to whoever is active: a standby drops packets to them in silence, even if its machine has them already.
    pub shared_addresses: Vec<IpAddr>,
    /// The directory that the epoch is kept in.
    pub directory: PathBuf,
    /// How the servers are reached.
    pub servers: ClusterServers,
    /// Starts what carries the frames.
    pub transport: Option<TransportStarter>,
}

/// How the servers that carry a cluster's frames are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterServers {
    /// Their addresses.
    pub addresses: Vec<String>,
    /// A credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file with user and password.
    pub user_file: Option<PathBuf>,
    /// Certificates of the authority that signs the servers' ones.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl ClusterServers {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.credentials, &self.user_file, &self.ca_file, &self.certificate, &self.key].into_iter().flatten()
    }
}

/// How long a lease holds, if nothing else is said.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(1);

/// Starts what carries a gateway's frames. It does its work on threads of its own.
#[derive(Clone)]
pub struct TransportStarter(pub Arc<StartTransport>);

/// What a [`TransportStarter`] calls.
pub type StartTransport = dyn Fn(&ClusterConfig) -> Result<Box<dyn StateTransport>> + Send + Sync;

impl fmt::Debug for TransportStarter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TransportStarter")
    }
}
