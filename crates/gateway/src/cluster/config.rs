//! What a gateway of a cluster is started with, as plain values. Who carries its frames is the embedder's choice.
use anyhow::Result;
use keepstate_cluster::{Decider, EpochShare, NodeName, ShardName, StateTransport};
use keepstate_router::ShardAddresses;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A shard: what one gateway decides at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardConfig {
    /// Its name.
    pub name: ShardName,
    /// Addresses that belong to whoever decides it: other gateways drop packets to them in silence, even if their machines have them already. Of several shards they also say which connections
    /// are its own: those translated to one of them, or to a service on one of them.
    pub addresses: Vec<RangeInclusive<IpAddr>>,
}

/// An address that an interface of this machine has while the gateway decides its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressTakeoverConfig {
    /// The address, one of the shard's.
    pub address: IpAddr,
    /// The length of its prefix.
    pub length: u8,
    /// The name of the interface.
    pub interface: String,
    /// The shard, by its place.
    pub shard: usize,
}

/// One gateway of a cluster, and its shards.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The cluster's name, the same on all its gateways.
    pub cluster: NodeName,
    /// This gateway's name, its own.
    pub node: NodeName,
    /// The shard, or the first of several.
    pub first_shard: ShardConfig,
    /// The others. Without any, all connections are the one shard's.
    pub other_shards: Vec<ShardConfig>,
    /// Who says which gateway is active.
    pub decider: Decider,
    /// Promoted by hand: which epochs are this gateway's, so that no other one has them.
    pub epoch_share: EpochShare,
    /// All gateways that may be promoted by hand, if they are known.
    pub nodes: Vec<NodeName>,
    /// Addresses that this gateway moves by itself; without any, keepalived, BGP or the like do.
    pub takeover: Vec<AddressTakeoverConfig>,
    /// Shards are shared out by themselves, at most one in this time; `None`: by commands alone.
    pub balance: Option<Duration>,
    /// The directory that the epochs are kept in.
    pub directory: PathBuf,
    /// How the servers are reached.
    pub servers: ClusterServers,
    /// Starts what carries the frames.
    pub transport: Option<TransportStarter>,
}

impl ClusterConfig {
    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = &ShardConfig> {
        std::iter::once(&self.first_shard).chain(&self.other_shards)
    }

    /// Are there several shards, so that each connection belongs to one of them or to none?
    pub fn is_divided(&self) -> bool {
        !self.other_shards.is_empty()
    }

    /// The addresses of several shards; `None` of one, which has all connections.
    pub fn shard_addresses(&self) -> Option<ShardAddresses> {
        let addresses: Vec<Vec<RangeInclusive<IpAddr>>> = self.shards().map(|shard| shard.addresses.clone()).collect();
        self.is_divided().then(|| ShardAddresses::new(&addresses))
    }
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
