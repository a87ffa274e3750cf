//! What was seen of a machine: plain data, each piece with where it was seen. Whatever could not be seen is absent, never zero.
//!
//! Observations are made once, by whoever reads the machine or its files, and judged as they are. A test writes them down by hand.
use super::observed_shard::ObservedShard;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A value, and the file or command it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The file or command.
    pub source: String,
}

/// All observations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observations {
    /// The machine as a whole.
    pub machine: ObservedMachine,
    /// The network namespaces.
    pub namespaces: Vec<ObservedNamespace>,
    /// Lines of the kernel log about connection tracking.
    pub log: Option<Sourced<ObservedLog>>,
    /// Memory of the conntrack slabs.
    pub slab: Option<Sourced<ObservedSlab>>,
    /// Limit counters of network interfaces.
    pub nic_limits: Option<Sourced<Vec<NicLimitCounter>>>,
    /// Values set by configuration files.
    pub configured_sysctls: Vec<ConfiguredSysctl>,
    /// Lines of configuration files without effect.
    pub ineffective_settings: Vec<IneffectiveSetting>,
    /// A clustered gateway's shards.
    #[serde(default)]
    pub shards: Vec<ObservedShard>,
    /// Programs found here that write conntrack sysctls.
    pub sysctl_writers: Vec<SysctlWriter>,
    /// Inputs that are missing.
    pub missing_inputs: Vec<MissingInput>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMachine {
    /// The release, as `uname -r` prints it.
    pub kernel: Option<Sourced<String>>,
    /// Seconds since boot.
    pub uptime: Option<Sourced<u64>>,
    /// Memory in bytes.
    pub memory: Option<Sourced<ObservedMemory>>,
    /// The kind of container, if this is one.
    pub container: Option<Sourced<String>>,
    /// Is nf_conntrack in the kernel?
    pub module: Option<Sourced<ObservedModule>>,
    /// Are these the files of another machine?
    pub is_remote: bool,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMemory {
    /// Total.
    pub total: u64,
    /// Available to programs.
    pub available: u64,
}

/// The state of nf_conntrack in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedModule {
    /// Is it built into the kernel?
    pub is_builtin: bool,
    /// Is it loaded now?
    pub is_loaded: bool,
}

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedNamespace {
    /// Its name.
    pub name: String,
    /// Its inode, as in the kernel log.
    pub inode: Option<u64>,
    /// Is it the one the doctor runs in?
    pub is_ours: bool,
    /// Is it the initial one, which owns the machine-wide sysctls?
    pub is_initial: Option<bool>,
    /// The conntrack sysctls, by the last part of their key.
    pub sysctls: BTreeMap<String, ObservedSysctl>,
    /// Entries now.
    pub count: Option<Sourced<u64>>,
    /// Counters since the namespace was created.
    pub counters: Option<Sourced<ObservedCounters>>,
    /// Is it known that the kernel has no /proc statistics?
    pub lacks_statistics: bool,
    /// Growth of the counters in the interval.
    pub growth: Option<CounterGrowth>,
    /// TCP resets sent since the namespace was created.
    pub resets_sent: Option<Sourced<u64>>,
    /// Their growth in the interval.
    pub resets_sent_growth: Option<u64>,
    /// TCP segments with a wrong checksum that reached this namespace's sockets since it was created.
    pub checksum_errors: Option<u64>,
    /// Their growth in the interval.
    pub checksum_errors_growth: Option<u64>,
    /// Sockets.
    pub sockets: Option<Sourced<ObservedSockets>>,
    /// A sample of the entries.
    pub sample: Option<Sourced<ObservedSample>>,
    /// Packet filter rules that use tracking.
    pub rules: Option<Sourced<ObservedRules>>,
    /// Local addresses of this namespace.
    pub addresses: Vec<IpAddr>,
    /// Its routes; empty if they are not known, or too many.
    pub routes: Vec<ObservedRoute>,
    /// The port of a login service (SSH).
    pub management_port: Option<Sourced<u16>>,
}

/// A sysctl.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSysctl {
    /// Its value.
    pub value: u64,
    /// Its value at the second reading, if different.
    pub reread_value: Option<u64>,
    /// The mode bits of its file.
    pub mode: Option<u32>,
    /// Can it be written here, even by root?
    pub is_writable: Option<bool>,
    /// The file.
    pub source: String,
}

/// The columns of `/proc/net/stat/nf_conntrack` that show problems, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are the kernel's own names")]
pub struct ObservedCounters {
    pub found: u64,
    pub invalid: u64,
    pub insert_failed: u64,
    pub drop: u64,
    pub early_drop: u64,
    pub search_restart: u64,
    /// Absent in kernels before 5.9.
    pub clash_resolve: Option<u64>,
    /// Absent in kernels before 5.14.
    pub chaintoolong: Option<u64>,
}

/// The difference of two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterGrowth {
    /// Milliseconds between them.
    pub over_ms: u64,
    /// Growth of each counter.
    pub by: ObservedCounters,
}

/// Sockets of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are sockstat's own names")]
pub struct ObservedSockets {
    pub tcp: u64,
    pub orphans: u64,
    pub time_wait: u64,
    pub udp: u64,
}

/// Entries of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSample {
    /// In the kernel's order, which is by hash and so a random sample.
    pub flows: Vec<ObservedFlow>,
    /// Is it the whole table?
    pub is_complete: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedFlow {
    /// Number of the layer 4 protocol.
    pub protocol: u8,
    /// Seconds until it expires.
    pub timeout: Option<u64>,
    /// Its state, if the protocol has one.
    pub state: Option<String>,
    /// Original direction.
    pub original: ObservedTuple,
    /// Reply direction.
    pub reply: ObservedTuple,
    /// UNREPLIED.
    pub is_unreplied: bool,
    /// ASSURED: not evicted when the table is full.
    pub is_assured: bool,
    /// Its helper.
    pub helper: Option<String>,
}

/// One direction of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, reason = "what else could they be")]
pub struct ObservedTuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// Rules that use tracking, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRules {
    /// Rules that drop INVALID packets.
    pub drop_invalid: Vec<String>,
    /// Rules or policies that drop whatever an earlier rule has not accepted as established.
    pub drop_unaccepted: Vec<String>,
    /// Rules that match the state.
    pub match_state: Vec<String>,
    /// Rules that translate the source.
    pub source_nat: Vec<ObservedSnat>,
    /// Rules that translate the destination.
    pub destination_nat: Vec<ObservedDnat>,
    /// Rules that keep packets untracked.
    pub notrack: Vec<String>,
    /// Rules that assign a helper.
    pub helpers: Vec<String>,
    /// Rules that limit half-open connections.
    pub half_open_limits: Vec<String>,
    /// All rules, as the programs print them.
    pub listings: Vec<ObservedRulesetText>,
}

/// What a program printed about the packet filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRulesetText {
    /// `nft list ruleset`, `iptables-save` or `ip6tables-save`.
    pub command: String,
    /// Its output.
    pub text: String,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRoute {
    /// Its destination.
    pub destination: IpAddr,
    /// The length of the destination's prefix.
    pub prefix_length: u8,
    /// The interface by which it leaves.
    pub interface: String,
}

/// A rule that translates the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSnat {
    /// Its text.
    pub rule: String,
    /// Its port range.
    pub ports: Option<(u16, u16)>,
    /// Does it choose ports at random?
    pub is_random: bool,
}

/// A rule that translates the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDnat {
    /// Its text.
    pub rule: String,
    /// `udp` or `tcp`.
    pub protocol: Option<String>,
    /// The port it matches.
    pub port: Option<u16>,
    /// New destination.
    pub to: Option<IpAddr>,
    /// New destination port.
    pub to_port: Option<u16>,
}

/// The kernel log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLog {
    /// `table full` lines of the initial namespace.
    pub initial: TableFullLines,
    /// Those of other namespaces, by inode.
    pub by_inode: BTreeMap<u64, TableFullLines>,
    /// Other lines about connection tracking, the latest few.
    pub other_lines: Vec<String>,
}

/// `table full` lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFullLines {
    /// Their number; the kernel drops more packets than it logs.
    pub lines: u64,
    /// Seconds since the latest, if the log has times.
    pub age: Option<u64>,
    /// The latest.
    pub latest: String,
}

/// Memory of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSlab {
    /// Connections allocated.
    pub objects: u64,
    /// Bytes each.
    pub object_size: u64,
    /// Bytes of all slabs.
    pub bytes: u64,
}

/// A counter of packets dropped by limits of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicLimitCounter {
    /// The interface.
    pub interface: String,
    /// The name of the counter in its driver.
    pub counter: String,
    /// Packets since boot.
    pub packets: u64,
    /// Of them in the interval.
    pub growth: Option<u64>,
}

/// A value set by configuration files; of several the one that wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredSysctl {
    /// The last part of its key.
    pub sysctl: String,
    /// The configured value.
    pub value: u64,
    /// File and line.
    pub source: String,
    /// Why it is not set at boot, if it is not.
    pub ineffective_reason: Option<String>,
}

/// A line of a configuration file that was meant for connection tracking and does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IneffectiveSetting {
    /// The line.
    pub setting: String,
    /// File and line number.
    pub source: String,
    /// What becomes of it.
    pub reason: String,
    /// The sysctl that was meant, by the last part of its key.
    pub sysctl: Option<String>,
    /// The value that was meant, if that is clear.
    pub value: Option<u64>,
}

/// A program that writes sysctls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlWriter {
    /// `kube-proxy`, `tuned`, …
    pub name: String,
    /// What it does and when.
    pub what: String,
    /// Its configuration, or how it was found.
    pub source: String,
    /// The sysctl it writes, if known.
    pub sysctl: Option<String>,
    /// The value it writes, if known.
    pub value: Option<u64>,
}

/// A missing input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInput {
    /// What.
    pub what: String,
    /// Why it is missing.
    pub why: String,
    /// How to get it.
    pub how: String,
}

impl<T> Sourced<T> {
    /// A value and its source.
    pub fn at(source: impl Into<String>, value: T) -> Sourced<T> {
        Sourced { value, source: source.into() }
    }
}

impl MissingInput {
    /// An input that is missing, the reason, and how to get it.
    pub fn new(what: &str, why: &dyn std::fmt::Display, how: &str) -> MissingInput {
        MissingInput { what: what.to_owned(), why: why.to_string(), how: how.to_owned() }
    }
}

impl ObservedRoute {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, bits: u32| {
            let shift = bits.saturating_sub(u32::from(self.prefix_length));
            one.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
        };
        match (self.destination, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(u128::from(u32::from(one)), u128::from(u32::from(other)), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
            _ => false,
        }
    }
}

impl ObservedNamespace {
    /// The value of a sysctl.
    pub fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name).map(|knob| knob.value)
    }

    /// The limit; 0 means unlimited.
    pub fn max(&self) -> Option<u64> {
        self.sysctl("nf_conntrack_max")
    }

    /// Percent of the limit in use; `None` without a limit or input.
    pub fn fill_percent(&self) -> Option<u64> {
        let max = self.max().filter(|max| *max > 0)?;
        Some(self.count.as_ref()?.value.saturating_mul(100) / max)
    }

    /// The interface that packets to an address leave by, and by which an ordinary machine there sends its own.
    pub fn interface_towards(&self, address: IpAddr) -> Option<&str> {
        let fits = self.routes.iter().filter(|route| route.contains(address));
        fits.max_by_key(|route| route.prefix_length).map(|route| route.interface.as_str())
    }

    /// The growth of a counter in the interval.
    pub fn counter_growth(&self, column: impl Fn(&ObservedCounters) -> u64) -> u64 {
        self.growth.as_ref().map_or(0, |growth| column(&growth.by))
    }

    /// The value of a counter.
    pub fn counter_total(&self, column: impl Fn(&ObservedCounters) -> u64) -> u64 {
        self.counters.as_ref().map_or(0, |counters| column(&counters.value))
    }
}
