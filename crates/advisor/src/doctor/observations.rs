//! What was seen of a machine: plain data, each piece with where it was seen. Whatever could not be seen is absent, never zero.
//!
//! Observations are made once, by whoever reads the machine or its files, and judged as they are. A test writes them down by hand.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A value, and the file or program that told it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sourced<T> {
    /// What was seen.
    pub value: T,
    /// Where.
    pub source: String,
}

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observations {
    /// The machine as a whole.
    pub machine: ObservedMachine,
    /// Each network namespace that was looked into.
    pub namespaces: Vec<ObservedNamespace>,
    /// What the kernel said about connection tracking.
    pub log: Option<Sourced<ObservedLog>>,
    /// What the kernel's objects of tracking weigh.
    pub slab: Option<Sourced<ObservedSlab>>,
    /// Counters of a device's own limits.
    pub nic_limits: Option<Sourced<Vec<NicLimitCounter>>>,
    /// Values that configuration files ask for.
    pub configured_sysctls: Vec<ConfiguredSysctl>,
    /// Programs that write knobs of tracking on their own, found here.
    pub sysctl_writers: Vec<SysctlWriter>,
    /// What could not be seen.
    pub missing_inputs: Vec<MissingInput>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMachine {
    /// As `uname -r` says.
    pub kernel: Option<Sourced<String>>,
    /// Seconds since boot.
    pub uptime: Option<Sourced<u64>>,
    /// Octets of memory.
    pub memory: Option<Sourced<ObservedMemory>>,
    /// Is this the inside of a container, and how is that known?
    pub container: Option<Sourced<String>>,
    /// Is connection tracking in the kernel?
    pub module: Option<Sourced<ObservedModule>>,
    /// Are the files of another machine judged?
    pub is_remote: bool,
}

/// Octets of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedMemory {
    /// All.
    pub total: u64,
    /// What programs could still have.
    pub available: u64,
}

/// How tracking is in the kernel.
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
    /// What it is called.
    pub name: String,
    /// Its inode, as the kernel's log prints it.
    pub inode: Option<u64>,
    /// Is it the one the doctor runs in?
    pub is_ours: bool,
    /// Is it the one that owns the machine-wide knobs?
    pub is_initial: Option<bool>,
    /// The knobs of tracking, by the last part of their key.
    pub sysctls: BTreeMap<String, ObservedSysctl>,
    /// Entries now.
    pub count: Option<Sourced<u64>>,
    /// Counters since the namespace was made.
    pub counters: Option<Sourced<ObservedCounters>>,
    /// Is it known that the kernel shows no counters?
    pub lacks_statistics: bool,
    /// What they grew by while we looked.
    pub growth: Option<CounterGrowth>,
    /// Sockets.
    pub sockets: Option<Sourced<ObservedSockets>>,
    /// Some entries.
    pub sample: Option<Sourced<ObservedSample>>,
    /// What the packet filter does with tracking.
    pub rules: Option<Sourced<ObservedRules>>,
    /// Addresses that are this namespace's own.
    pub addresses: Vec<IpAddr>,
    /// A port that a login service listens on.
    pub management_port: Option<Sourced<u16>>,
}

/// A knob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSysctl {
    /// Its value.
    pub value: u64,
    /// Its value when it was read again, if that is another one.
    pub reread_value: Option<u64>,
    /// The mode bits of its file.
    pub mode: Option<u32>,
    /// Can it be written here at all, by anyone?
    pub is_writable: Option<bool>,
    /// The file.
    pub source: String,
}

/// The columns of `/proc/net/stat/nf_conntrack` that mean trouble, summed over processors.
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

/// Two readings, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterGrowth {
    /// Milliseconds between them.
    pub over_ms: u64,
    /// What each counter grew by.
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
    /// In the kernel's order, which is by a hash and therefore a fair choice.
    pub flows: Vec<ObservedFlow>,
    /// Is that the whole table?
    pub is_complete: bool,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedFlow {
    /// The number of the layer 4 protocol.
    pub protocol: u8,
    /// Seconds left.
    pub timeout: Option<u64>,
    /// Its state, for protocols that have any.
    pub state: Option<String>,
    /// As the first packet had it.
    pub original: ObservedTuple,
    /// As answers are expected.
    pub reply: ObservedTuple,
    /// Has no answer been seen?
    pub is_unreplied: bool,
    /// Is it kept when the table is full?
    pub is_assured: bool,
    /// Who helps it.
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

/// What the rules do with tracking; each as the rule's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedRules {
    /// Rules that drop what is invalid.
    pub drop_invalid: Vec<String>,
    /// Rules that ask for a state.
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
}

/// A rule that translates the source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSnat {
    /// Its words.
    pub rule: String,
    /// The ports it may give.
    pub ports: Option<(u16, u16)>,
    /// Does it choose them at random?
    pub is_random: bool,
}

/// A rule that translates the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedDnat {
    /// Its words.
    pub rule: String,
    /// `udp` or `tcp`.
    pub protocol: Option<String>,
    /// The port it asks for.
    pub port: Option<u16>,
    /// Where to.
    pub to: Option<IpAddr>,
    /// And which port.
    pub to_port: Option<u16>,
}

/// What the kernel said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedLog {
    /// Lines `table full` of the initial namespace.
    pub initial: TableFullLines,
    /// Those of other namespaces, by inode.
    pub by_inode: BTreeMap<u64, TableFullLines>,
    /// Other lines about connection tracking, the latest few.
    pub other_lines: Vec<String>,
}

/// Lines `table full`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFullLines {
    /// How many; the kernel drops more packets than it logs.
    pub lines: u64,
    /// Seconds from the latest to now, where the log counts time.
    pub age: Option<u64>,
    /// The latest.
    pub latest: String,
}

/// What connections weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedSlab {
    /// Connections allocated.
    pub objects: u64,
    /// Octets each.
    pub object_size: u64,
    /// Octets of all their slabs.
    pub bytes: u64,
}

/// A counter of packets that a device's own limits cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicLimitCounter {
    /// The device.
    pub interface: String,
    /// The counter, as its driver calls it.
    pub counter: String,
    /// Packets.
    pub packets: u64,
}

/// A value that a file asks for: of several files the one that wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredSysctl {
    /// The last part of the knob's key.
    pub sysctl: String,
    /// The value asked for.
    pub value: u64,
    /// File and line.
    pub source: String,
    /// Why no boot brings it into force, if none does.
    pub ineffective_reason: Option<String>,
}

/// A program that writes knobs on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlWriter {
    /// `kube-proxy`, `tuned`, …
    pub name: String,
    /// What it does and when.
    pub what: String,
    /// Where that stands, or how it was found.
    pub source: String,
    /// The knob it writes, where that is known.
    pub sysctl: Option<String>,
    /// The value it writes, where that is known.
    pub value: Option<u64>,
}

/// What could not be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInput {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// How it could be.
    pub how: String,
}

impl<T> Sourced<T> {
    /// A value, and where it was seen.
    pub fn at(source: impl Into<String>, value: T) -> Sourced<T> {
        Sourced { value, source: source.into() }
    }
}

impl ObservedNamespace {
    /// The value of a knob.
    pub fn sysctl(&self, name: &str) -> Option<u64> {
        self.sysctls.get(name).map(|knob| knob.value)
    }

    /// The limit. 0 is none.
    pub fn max(&self) -> Option<u64> {
        self.sysctl("nf_conntrack_max")
    }

    /// How full the table is, in hundredths; `None` where there is no limit, or it was not seen.
    pub fn fill_percent(&self) -> Option<u64> {
        let max = self.max().filter(|max| *max > 0)?;
        Some(self.count.as_ref()?.value.saturating_mul(100) / max)
    }

    /// What a counter grew by while we looked.
    pub fn counter_growth(&self, column: impl Fn(&ObservedCounters) -> u64) -> u64 {
        self.growth.as_ref().map_or(0, |growth| column(&growth.by))
    }

    /// What a counter stands at.
    pub fn counter_total(&self, column: impl Fn(&ObservedCounters) -> u64) -> u64 {
        self.counters.as_ref().map_or(0, |counters| column(&counters.value))
    }
}
