//! What carries a clustered gateway's frames: NATS.
use anyhow::{Context, Result};
use keepstate_cluster::{Decider, StateTransport};
use keepstate_gateway::GatewayConfig;
use keepstate_gateway::cluster::{ClusterConfig, ClusterServers, DEFAULT_LEASE, TransportStarter};
use keepstate_nats::{ClusterOptions, NatsOptions, NatsTransport};
use std::sync::Arc;

/// Has the gateway share its table over NATS, if it is one of a cluster.
pub(super) fn use_nats(config: &mut GatewayConfig) {
    if let Some(cluster) = &mut config.cluster {
        cluster.transport = Some(TransportStarter(Arc::new(start)));
    }
}

/// Checks addresses and files.
///
/// # Errors
/// What cannot be used.
pub(crate) fn check(config: &ClusterConfig) -> Result<()> {
    nats_options(&config.servers, client_name(config)).check().context("in [cluster]")
}

/// Starts it.
///
/// # Errors
/// What cannot be used.
pub(crate) fn start(config: &ClusterConfig) -> Result<Box<dyn StateTransport>> {
    let shards = config.shards().map(|shard| shard.name.clone()).collect();
    let servers = config.servers.addresses.len();
    let mut options = ClusterOptions::new(config.cluster.clone(), config.node.clone(), shards, servers);
    options.lease_time = match config.decider {
        Decider::Lease(time) => time,
        Decider::Hand => DEFAULT_LEASE,
    };
    let transport =
        NatsTransport::start(nats_options(&config.servers, client_name(config)), options).context("in [cluster]")?;
    Ok(Box::new(transport))
}

fn client_name(config: &ClusterConfig) -> String {
    format!("keepstate {}", config.node)
}

/// How these servers are reached.
pub(super) fn nats_options(servers: &ClusterServers, client_name: String) -> NatsOptions {
    let servers = servers.clone();
    NatsOptions {
        servers: servers.addresses,
        credentials: servers.credentials,
        user_file: servers.user_file,
        ca_file: servers.ca_file,
        certificate: servers.certificate,
        key: servers.key,
        client_name,
    }
}
