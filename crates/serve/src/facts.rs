//! What the program knows besides the table: a gateway's numbers, its services, doctor's findings. Read in the background, never by a scrape.
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The facts, as of the last reading. What is not known is empty.
#[derive(Clone, Debug, Default)]
pub struct OwnerFacts {
    /// A gateway's own counters by name: packets received, forwarded and so on; those that the kernel has let pass by itself are `offloaded`.
    pub packets: Vec<(String, u64)>,
    /// What of a gateway goes on in the kernel; `None` if nothing can.
    pub offload: Option<OffloadFacts>,
    /// A gateway's memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The longest time that packets have waited for the router, in microseconds.
    pub longest_turn_us: Option<u64>,
    /// Events that a gateway itself has lost.
    pub events_lost: Option<u64>,
    /// Seconds since a gateway's state file was last known to be written; `None` without one.
    pub state_age_seconds: Option<f64>,
    /// Can it not be written?
    pub state_failed: Option<bool>,
    /// Its flow logs together: records written, records lost, logs that fail; `None` without one.
    pub flow_logs: Option<[u64; 3]>,
    /// Its only shard of a cluster, and the cluster as a whole, by the names that the gateway gives: `cluster_epoch` and so on; empty without one.
    pub cluster: Vec<(String, u64)>,
    /// Of several shards, each one's name and numbers by the same names.
    pub shard_values: Vec<(String, Vec<(String, u64)>)>,
    /// The names of its cluster and shard, for each shard.
    pub shards: Vec<[String; 2]>,
    /// Lines of rules' `log` that found no room.
    pub log_lines_lost: Option<u64>,
    /// A gateway's dropped packets by reason.
    pub drops: Vec<(String, u64)>,
    /// Packets that its rules and policies have dropped, by chain.
    pub chain_drops: Vec<ChainDropFacts>,
    /// The interfaces that it has had packets of.
    pub interfaces: Vec<InterfaceFacts>,
    /// Its neighbours by interface and state.
    pub neighbours: Vec<(String, &'static str, u64)>,
    /// Services.
    pub services: Vec<ServiceFacts>,
    /// Names of all findings that doctor may report.
    pub finding_names: Vec<&'static str>,
    /// Those that it reports now.
    pub findings: Vec<ActiveFinding>,
    /// When doctor ran last, in seconds since 1970.
    pub diagnosed_at: Option<u64>,
    /// Why facts could not be read, for the page.
    pub error: Option<String>,
}

/// What of a gateway goes on in the kernel, and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffloadFacts {
    /// Connections whose packets go on there now.
    pub flows: u64,
    /// Of those packets, the ones that were sent on at XDP.
    pub xdp_packets: u64,
    /// Packets of established connections that the rules keep in user space, by reason.
    pub held: Vec<(String, u64)>,
}

/// Packets that one chain has dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainDropFacts {
    /// `inet filter`.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// By its rules.
    pub by_rules: u64,
    /// By its policy.
    pub by_policy: u64,
}

/// One interface of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Its name.
    pub name: String,
    /// Packets and bytes that came in by it.
    pub received: [u64; 2],
    /// Packets and bytes that left by it.
    pub sent: [u64; 2],
    /// Packets that came in by it and were dropped.
    pub dropped: u64,
}

/// One service of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its name.
    pub name: String,
    /// Backends by status: up, down and so on.
    pub backends: Vec<(String, u64)>,
    /// Connections to its backends.
    pub connections: u64,
    /// New connections that no backend could take.
    pub refused: u64,
}

/// A finding of the doctor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveFinding {
    /// Its name.
    pub name: &'static str,
    /// `warning` or `critical`.
    pub severity: &'static str,
    /// What is wrong, in one line.
    pub title: String,
}

/// The facts, as who reads them and who shows them share them.
#[derive(Debug, Default)]
pub struct FactBoard(Mutex<OwnerFacts>);

impl FactBoard {
    /// The facts. Do not hold it over anything slow.
    pub fn lock(&self) -> MutexGuard<'_, OwnerFacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
