//! The streams and buckets of a cluster in JetStream: their names, their limits, made when they are missing.
//!
//! ```text
//! stream KEEPSTATE_<cluster>_<shard>        keepstate-cluster.<cluster>.<shard>.stored   the shard's stored frames
//! (no stream)                               keepstate-cluster.<cluster>.<shard>.told     frames that are sent at most once
//! bucket keepstate_<cluster>_leases         who decides: `NODE EPOCH INSTANCE` by shard, gone after the lease's time
//! bucket keepstate_<cluster>_epochs         the highest epoch ever given, by shard
//! ```
use crate::connectivity::Connectivity;
use crate::error::NatsError;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use keepstate_cluster::{NodeInstance, NodeName, ShardName};
use std::time::Duration;

/// Where NATS keeps a shard's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamStorage {
    /// In memory: fast; gone when all servers that had it have ended. The gateways have it still.
    #[default]
    Memory,
    /// In files.
    File,
}

/// A cluster's streams.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The cluster's name, the same on all its gateways.
    pub cluster: NodeName,
    /// This gateway's name, its own.
    pub node: NodeName,
    /// This run of the program: a lease under our name that is not this one's is somebody else's.
    pub instance: NodeInstance,
    /// The shards.
    pub shards: Vec<ShardName>,
    /// A lease that is not renewed for so long is free.
    pub lease_time: Duration,
    /// Where frames are kept.
    pub storage: StreamStorage,
    /// A shard's frames take at most so many bytes; then the oldest go.
    pub max_stream_bytes: u64,
    /// On how many NATS servers each frame is kept: 1, 3 or 5.
    pub replicas: usize,
}

impl ClusterOptions {
    /// The usual values. With three NATS servers or more, everything is kept on three.
    pub fn new(cluster: NodeName, node: NodeName, shards: Vec<ShardName>, servers: usize) -> ClusterOptions {
        ClusterOptions {
            cluster,
            node,
            // Without random numbers at least no two processes of one machine are the same.
            instance: NodeInstance(getrandom::u64().unwrap_or_else(|_| std::process::id().into())),
            shards,
            lease_time: Duration::from_secs(1),
            storage: StreamStorage::Memory,
            max_stream_bytes: 512 << 20,
            replicas: if servers >= 3 { 3 } else { 1 },
        }
    }

    pub(crate) fn stored_subject(&self, shard: &ShardName) -> String {
        format!("keepstate-cluster.{}.{shard}.stored", self.cluster)
    }

    pub(crate) fn told_subject(&self, shard: &ShardName) -> String {
        format!("keepstate-cluster.{}.{shard}.told", self.cluster)
    }

    pub(crate) fn shard_stream(&self, shard: &ShardName) -> Config {
        Config {
            name: format!("KEEPSTATE_{}_{shard}", self.cluster),
            description: Some("connections of a shard of keepstate gateways".into()),
            subjects: vec![self.stored_subject(shard)],
            max_bytes: i64::try_from(self.max_stream_bytes).unwrap_or(i64::MAX),
            discard: DiscardPolicy::Old,
            storage: match self.storage {
                StreamStorage::Memory => StorageType::Memory,
                StreamStorage::File => StorageType::File,
            },
            num_replicas: self.replicas,
            // Repeated frames are recognised by the sequence that they expect, not by remembered ids.
            duplicate_window: Duration::from_secs(1),
            ..Config::default()
        }
    }

    pub(crate) fn leases(&self) -> Config {
        bucket(&format!("keepstate_{}_leases", self.cluster), self.lease_time, self.replicas)
    }

    pub(crate) fn epochs(&self) -> Config {
        bucket(&format!("keepstate_{}_epochs", self.cluster), Duration::ZERO, self.replicas)
    }
}

/// The stream of a bucket, with one value a key; values older than `max_age` go, 0 never. Made by hand: what the client library asks for is more than server 2.9 knows.
pub(crate) fn bucket(name: &str, max_age: Duration, replicas: usize) -> Config {
    Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_rollup: true,
        deny_delete: true,
        // Reads by any replica may be old; a lease is read from the leader.
        allow_direct: false,
        duplicate_window: if max_age.is_zero() { Duration::from_secs(2) } else { max_age.min(Duration::from_secs(2)) },
        ..Config::default()
    }
}

/// The stream as it should be: made, or its limits changed, where it is not. Its cached information is new.
pub(crate) async fn ensure(
    context: &Context,
    connectivity: &Connectivity,
    wanted: Config,
) -> Result<Stream, NatsError> {
    let name = wanted.name.clone();
    let failed = |error: &(dyn std::error::Error + 'static)| {
        NatsError::request(format!("the stream {name}"), error, connectivity.last_refusal().as_deref())
    };
    match context.get_stream(&name).await {
        Ok(stream) => {
            let found = &stream.cached_info().config;
            check_ours(found, &wanted)?;
            // More replicas, once there are more servers; a gateway that knows fewer servers takes none away.
            let num_replicas = found.num_replicas.max(wanted.num_replicas);
            let limits = |config: &Config| (config.max_age, config.max_bytes_or_none(), config.num_replicas);
            let changed =
                Config { max_age: wanted.max_age, max_bytes: wanted.max_bytes, num_replicas, ..found.clone() };
            if limits(found) == limits(&changed) {
                return Ok(stream);
            }
            context.update_stream(changed).await.map_err(|error| failed(&error))?;
            Ok(stream)
        }
        Err(error) if is_missing(error.kind()) => match context.create_stream(wanted).await {
            Ok(stream) => Ok(stream),
            // Another gateway may have made it at the same time.
            Err(error) => context.get_stream(&name).await.map_err(|_| failed(&error)),
        },
        Err(error) => Err(failed(&error)),
    }
}

/// A stream of our name that somebody else has made holds other messages, or forgets ours.
fn check_ours(found: &Config, wanted: &Config) -> Result<(), NatsError> {
    let reason = if found.subjects != wanted.subjects {
        format!("it has the subjects {}, not {}", found.subjects.join(", "), wanted.subjects.join(", "))
    } else if found.retention != wanted.retention {
        format!("its retention is {:?}, not {:?}", found.retention, wanted.retention)
    } else if found.max_messages > 0 {
        format!("it keeps {} messages alone", found.max_messages)
    } else {
        return Ok(());
    };
    Err(NatsError::Request {
        what: format!("the stream {} was not made by keepstate", wanted.name),
        reason,
        remedy: "Delete it (nats stream rm), or give the cluster another name",
    })
}

/// A bucket as it should be.
pub(crate) async fn ensure_bucket(
    context: &Context,
    connectivity: &Connectivity,
    wanted: Config,
) -> Result<Store, NatsError> {
    let stream_name = wanted.name.clone();
    let stream = ensure(context, connectivity, wanted).await?;
    let name = stream_name.strip_prefix("KV_").unwrap_or(&stream_name).to_owned();
    let prefix = format!("$KV.{name}.");
    Ok(Store { name, stream_name, prefix, put_prefix: None, use_jetstream_prefix: false, stream })
}

fn is_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

trait MaxBytes {
    fn max_bytes_or_none(&self) -> Option<i64>;
}

impl MaxBytes for Config {
    /// The server writes "no limit" as -1.
    fn max_bytes_or_none(&self) -> Option<i64> {
        Some(self.max_bytes).filter(|bytes| *bytes > 0)
    }
}
