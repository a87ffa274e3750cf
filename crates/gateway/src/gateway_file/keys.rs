//! All keys, one after the other: what is printed, and what a reload compares.
use super::cluster::ClusterSettings;
use super::given::{Given, SettingOrigin};
use super::named::NamedValues;
use super::settings::GatewaySettings;
use serde::Serialize;
use serde_json::Value;

/// Whether a running gateway can take over another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyChange {
    /// A reload does it.
    Live,
    /// Only a restart does.
    Restart,
}

/// One key of the settings.
#[derive(Debug)]
pub(super) struct KeyEntry {
    /// The table that it is in; empty for the file's own.
    pub(super) table: &'static str,
    pub(super) name: String,
    /// As JSON; `None` if it is not set.
    pub(super) value: Option<Value>,
    pub(super) origin: SettingOrigin,
    pub(super) change: KeyChange,
}

/// Every key, in the order in which it is printed: the tables last.
pub(super) fn key_entries(settings: &GatewaySettings) -> Vec<KeyEntry> {
    use KeyChange::{Live, Restart};
    let s = settings;
    let mut entries = vec![
        entry("", "version", &s.version, Restart),
        entry("", "ruleset", &s.ruleset, Live),
        entry("", "includepath", &s.includepath, Live),
        entry("", "skip-unsupported", &s.skip_unsupported, Live),
        entry("", "services", &s.services, Live),
        entry("", "interface", &s.interface, Restart),
        entry("", "on-exit", &s.on_exit, Restart),
        entry("", "lifeline", &s.lifeline, Restart),
        entry("", "offload", &s.offload, Restart),
        entry("", "offload-new", &s.offload_new, Restart),
        entry("", "offload-xdp", &s.offload_xdp, Restart),
        entry("", "offload-size", &s.offload_size, Restart),
        entry("", "offload-unattended", &s.offload_unattended, Restart),
        entry("", "queue", &s.queue, Restart),
        entry("", "device", &s.device, Restart),
        entry("", "route", &s.route, Restart),
        entry("", "mtu", &s.mtu, Restart),
        entry("", "spin", &s.spin, Restart),
        entry("", "control", &s.control, Restart),
        entry("", "state", &s.state, Restart),
        entry("", "flow-log", &s.flow_log, Restart),
        entry("", "log", &s.log, Restart),
        entry("", "helper", &s.helper, Restart),
        entry("", "as-linux", &s.as_linux, Restart),
        entry("", "memory", &s.memory, Restart),
        entry("", "sysctl-files", &s.sysctl_files, Live),
    ];
    entries.extend(named_entries("define", &s.define));
    entries.extend(named_entries("sysctl", &s.sysctl));
    entries.extend([
        entry("nat", "mapping", &s.nat.mapping, Restart),
        entry("nat", "filtering", &s.nat.filtering, Restart),
        entry("nat", "parity", &s.nat.parity, Restart),
        entry("nat", "port-block", &s.nat.port_block, Restart),
        entry("nat", "deterministic", &s.nat.deterministic, Restart),
        entry("table", "reserve", &s.table.reserve, Restart),
        entry("table", "source-limit", &s.table.source_limit, Restart),
        entry("table", "adaptive-timeouts", &s.table.adaptive_timeouts, Restart),
        entry("table", "grow-to", &s.table.grow_to, Restart),
    ]);
    // Without a cluster too: a reload that adds one is found.
    entries.extend(cluster_entries(&s.cluster.as_ref().map(|given| given.value.clone()).unwrap_or_default()));
    entries
}

fn cluster_entries(cluster: &ClusterSettings) -> Vec<KeyEntry> {
    use KeyChange::Restart;
    const TABLE: &str = "cluster";
    vec![
        entry(TABLE, "name", &cluster.name, Restart),
        entry(TABLE, "node", &cluster.node, Restart),
        entry(TABLE, "shard", &cluster.shard, Restart),
        entry(TABLE, "address", &cluster.address, Restart),
        entry(TABLE, "takeover", &cluster.takeover, Restart),
        entry(TABLE, "shards", &cluster.shards, Restart),
        entry(TABLE, "lease", &cluster.lease, Restart),
        entry(TABLE, "nodes", &cluster.nodes, Restart),
        entry(TABLE, "balance", &cluster.balance, Restart),
        entry(TABLE, "servers", &cluster.servers, Restart),
        entry(TABLE, "credentials", &cluster.credentials, Restart),
        entry(TABLE, "user-file", &cluster.user_file, Restart),
        entry(TABLE, "ca-file", &cluster.ca_file, Restart),
        entry(TABLE, "certificate", &cluster.certificate, Restart),
        entry(TABLE, "key", &cluster.key, Restart),
        entry(TABLE, "directory", &cluster.directory, Restart),
    ]
}

fn entry<T: Serialize>(table: &'static str, name: &str, given: &Option<Given<T>>, change: KeyChange) -> KeyEntry {
    KeyEntry {
        table,
        name: name.to_owned(),
        // No value here has a key that is no text, which is all that JSON refuses.
        value: given.as_ref().and_then(|given| serde_json::to_value(given).ok()),
        origin: given.as_ref().map_or(SettingOrigin::Default, |given| given.origin.clone()),
        change,
    }
}

/// By name: a table of TOML has no order.
fn named_entries<T: Serialize>(table: &'static str, values: &NamedValues<T>) -> Vec<KeyEntry> {
    let entry = |(name, given): &(Given<String>, Given<T>)| KeyEntry {
        table,
        name: name.value.clone(),
        value: serde_json::to_value(given).ok(),
        origin: given.origin.clone(),
        change: KeyChange::Live,
    };
    let mut entries: Vec<KeyEntry> = values.entries.iter().map(entry).collect();
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}
