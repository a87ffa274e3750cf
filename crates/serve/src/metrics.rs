//! The metrics: their names, and how they are read off the model. docs/metrics.md lists them for users.
use crate::facts::{FactBoard, InterfaceFacts, OwnerFacts};
use keepstate_conntrack::format::protocol_name;
use keepstate_live::{GroupBy, LiveFeed};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which names the kernel's counters have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricNames {
    /// Ours.
    #[default]
    Keepstate,
    /// Also those of node_exporter, for alerts that exist.
    NodeExporter,
}

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

/// The kernel's counters, which exist from the beginning even where the kernel has none of them.
const KERNEL_COUNTERS: [(&str, &str); 12] = [
    ("found", "Packets that belong to a known connection and were looked up in the slow path"),
    ("invalid", "Packets that belong to no connection and begin none"),
    ("insert", "Entries that a program has inserted"),
    ("insert_failed", "Connections that could not be confirmed"),
    ("drop", "Packets dropped because the table was full or a confirmation failed"),
    ("early_drop", "Connections removed early to make room"),
    ("error", "Packets that a protocol's tracker refused"),
    ("search_restart", "Lookups begun again because the table was resized"),
    ("clash_resolve", "Races of the same connection that were settled"),
    ("chaintoolong", "Connections refused because a hash chain was too long"),
    ("ignore", "Packets that tracking passed over"),
    ("delete", "Connections that ended (old kernels)"),
];

/// What node_exporter has of them.
const NODE_EXPORTER: [&str; 8] =
    ["found", "invalid", "ignore", "insert", "insert_failed", "drop", "early_drop", "search_restart"];

/// All metrics in this format.
///
/// # Errors
/// None in practice: writing to a string does not fail.
pub fn exposition(
    feed: &Arc<LiveFeed>,
    facts: &Arc<FactBoard>,
    names: MetricNames,
    format: Exposition,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let collector = TableCollector { feed: Arc::clone(feed), facts: Arc::clone(facts), names };
    registry.register_collector(Box::new(collector));
    let mut out = String::new();
    match format {
        Exposition::OpenMetrics => text::encode(&mut out, &registry)?,
        Exposition::Text => prometheus_text::encode(&mut out, &registry)?,
    }
    Ok(out)
}

#[derive(Debug)]
struct TableCollector {
    feed: Arc<LiveFeed>,
    facts: Arc<FactBoard>,
    names: MetricNames,
}

/// What a scrape takes from the model, so that the lock is held for microseconds.
struct TableNumbers {
    entries: Option<u64>,
    limit: Option<u64>,
    states: BTreeMap<(&'static str, &'static str), u64>,
    counters: Vec<(String, u64)>,
    reasons: Vec<(String, u64)>,
    events: [u64; 3],
    overruns: u64,
    dumps: u64,
    is_complete: bool,
    groups: [(&'static str, u64); 3],
    nat: Vec<(&'static str, [u64; 4])>,
}

impl TableNumbers {
    fn read(feed: &LiveFeed) -> TableNumbers {
        let table = feed.table();
        let mut states: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for (protocol, state, count) in table.states() {
            *states.entry((protocol_label(protocol), state.name())).or_default() += count;
        }
        let count = |by| table.group_count(by) as u64;
        let named = |counter: &keepstate_live::NamedCounter| (counter.name.clone(), counter.total);
        let latest = table.latest();
        TableNumbers {
            entries: latest.map(|sample| sample.entries),
            limit: latest.and_then(|sample| sample.limit),
            states,
            counters: table.counters.iter().map(named).collect(),
            reasons: table.reasons.iter().map(named).collect(),
            events: table.event_counts(),
            overruns: table.state().overruns,
            dumps: table.state().dumps,
            is_complete: table.state().is_complete,
            groups: [
                ("source", count(GroupBy::Source)),
                ("service", count(GroupBy::Service)),
                ("zone", count(GroupBy::Zone)),
            ],
            nat: table
                .nat_ports()
                .iter()
                .map(|used| {
                    let numbers = [used.connections, used.addresses, used.most_to_one_peer, used.most_of_one_address];
                    (protocol_label(used.protocol), numbers)
                })
                .collect(),
        }
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }
}

/// A protocol that has a name, or `other`: a packet does not choose labels.
fn protocol_label(number: u8) -> &'static str {
    protocol_name(number).unwrap_or("other")
}

impl Collector for TableCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let numbers = TableNumbers::read(&self.feed);
        let facts = self.facts.lock().clone();
        let mut out = MetricWriter { encoder };
        write_build(&mut out)?;
        write_table(&mut out, &numbers)?;
        write_counters(&mut out, &numbers, self.names)?;
        write_nat(&mut out, &numbers)?;
        write_gateway(&mut out, &numbers, &facts)?;
        write_drops(&mut out, &facts)?;
        write_interfaces(&mut out, &facts)?;
        write_services(&mut out, &facts)?;
        write_findings(&mut out, &facts)
    }
}

fn write_build(out: &mut MetricWriter<'_>) -> fmt::Result {
    let version = [[("version", env!("CARGO_PKG_VERSION"))]];
    out.gauges("keepstate_build_info", "The version that serves these metrics", version.map(|labels| (labels, 1_u64)))
}

fn write_table(out: &mut MetricWriter<'_>, numbers: &TableNumbers) -> fmt::Result {
    if let Some(entries) = numbers.entries {
        out.gauge("keepstate_conntrack_entries", "Connections in the table", entries)?;
    }
    if let Some(limit) = numbers.limit {
        out.gauge("keepstate_conntrack_entries_limit", "Connections that the table may hold", limit)?;
    }
    let states =
        numbers.states.iter().map(|((protocol, state), count)| ([("protocol", *protocol), ("state", *state)], *count));
    out.gauges("keepstate_conntrack_state_entries", "Connections by protocol and state", states)?;
    let groups = numbers.groups.map(|(by, count)| ([("by", by)], count));
    out.gauges("keepstate_conntrack_groups", "Different sources, services and zones in the table", groups)?;
    let complete = u64::from(numbers.is_complete);
    out.gauge("keepstate_conntrack_breakdown_complete", "1 if no event was lost since the last dump began", complete)?;
    let events = ["new", "update", "destroy"].into_iter().zip(numbers.events);
    let events = events.map(|(kind, count)| ([("type", kind)], count));
    out.counters("keepstate_conntrack_events", "Events received since this process began", events)?;
    out.counter(
        "keepstate_conntrack_event_overruns",
        "How often events were lost because they came too fast",
        numbers.overruns,
    )?;
    out.counter(
        "keepstate_conntrack_dumps",
        "Dumps of the table since this process began; a scrape causes none",
        numbers.dumps,
    )
}

fn write_counters(out: &mut MetricWriter<'_>, numbers: &TableNumbers, names: MetricNames) -> fmt::Result {
    for (name, help) in KERNEL_COUNTERS {
        out.counter(&format!("keepstate_conntrack_{name}"), help, numbers.counter(name))?;
    }
    if names != MetricNames::NodeExporter {
        return Ok(());
    }
    // Gauges, as node_exporter has them.
    if let (Some(entries), Some(limit)) = (numbers.entries, numbers.limit) {
        out.gauge("node_nf_conntrack_entries", "As node_exporter: connections in the table", entries)?;
        out.gauge("node_nf_conntrack_entries_limit", "As node_exporter: the limit", limit)?;
    }
    for name in NODE_EXPORTER {
        let help = format!("As node_exporter: {name}");
        out.gauge(&format!("node_nf_conntrack_stat_{name}"), &help, numbers.counter(name))?;
    }
    Ok(())
}

fn write_nat(out: &mut MetricWriter<'_>, numbers: &TableNumbers) -> fmt::Result {
    const NAMES: [(&str, &str); 4] = [
        ("keepstate_nat_connections", "Connections whose source is translated"),
        ("keepstate_nat_addresses", "Addresses that sources are translated to"),
        ("keepstate_nat_ports_to_one_peer_max", "The most ports in use of one address towards one peer: what runs out"),
        ("keepstate_nat_connections_per_address_max", "The most connections of one translated address"),
    ];
    for (at, (name, help)) in NAMES.into_iter().enumerate() {
        // Without NAT there is nothing to count, and the metric says so.
        let none = [("tcp", [0; 4])];
        let rows = if numbers.nat.is_empty() { none.as_slice() } else { numbers.nat.as_slice() };
        let rows =
            rows.iter().map(|(protocol, values)| ([("protocol", *protocol)], values.get(at).copied().unwrap_or(0)));
        out.gauges(name, help, rows)?;
    }
    Ok(())
}

fn write_gateway(out: &mut MetricWriter<'_>, numbers: &TableNumbers, facts: &OwnerFacts) -> fmt::Result {
    let labelled = |rows: &[(String, u64)], key: &'static str| -> Vec<([(&'static str, String); 1], u64)> {
        rows.iter().map(|(name, count)| ([(key, name.clone())], *count)).collect()
    };
    out.counters("keepstate_gateway_packets", "Packets of the gateway by result", labelled(&facts.packets, "result"))?;
    if let Some(offload) = &facts.offload {
        let flows = "Connections whose packets go on in the kernel";
        out.gauge("keepstate_gateway_offloaded_connections", flows, offload.flows)?;
        out.counter(
            "keepstate_gateway_xdp_packets",
            "Offloaded packets that were sent on at XDP",
            offload.xdp_packets,
        )?;
        let held = "Packets of established connections that the rules keep in user space";
        out.counters("keepstate_gateway_held_packets", held, labelled(&offload.held, "reason"))?;
    }
    let reasons = labelled(&numbers.reasons, "reason");
    out.counters("keepstate_gateway_reasons", "Packets invalid, ignored or dropped, by reason", reasons)?;
    if let Some(bytes) = facts.memory_bytes {
        out.gauge("keepstate_gateway_memory_bytes", "Memory of the gateway's table", bytes)?;
    }
    if let Some(longest) = facts.longest_turn_us {
        let seconds = longest as f64 / 1e6;
        out.gauge("keepstate_gateway_longest_turn_seconds", "The longest time that packets have waited", seconds)?;
    }
    if let Some(lost) = facts.events_lost {
        out.counter("keepstate_gateway_events_lost", "Events that the gateway could not queue", lost)?;
    }
    if let Some(age) = facts.state_age_seconds {
        out.gauge(
            "keepstate_gateway_state_age_seconds",
            "Seconds since the state file was last written or needed no change",
            age,
        )?;
    }
    if let Some(failed) = facts.state_failed {
        let failed = u64::from(failed);
        out.gauge("keepstate_gateway_state_failed", "1 if the state file cannot be written", failed)?;
    }
    if let Some([records, lost, failing]) = facts.flow_logs {
        out.counter("keepstate_gateway_flow_log_records", "Records written to flow logs", records)?;
        out.counter("keepstate_gateway_flow_log_lost", "Records that flow logs lack", lost)?;
        out.gauge("keepstate_gateway_flow_logs_failing", "Flow logs whose file or collector fails", failing)?;
    }
    write_cluster(out, facts)
}

/// A gateway's shards of a cluster; without their names, nothing: a series would change its labels.
fn write_cluster(out: &mut MetricWriter<'_>, facts: &OwnerFacts) -> fmt::Result {
    let Some([cluster, _]) = facts.shards.first() else { return Ok(()) };
    const GAUGES: [(&str, &str, &str); 6] = [
        ("cluster_epoch", "keepstate_cluster_epoch", "The epoch: higher after each takeover"),
        (
            "cluster_in_step",
            "keepstate_cluster_in_step",
            "1 if all is acknowledged, or nothing is missing on a standby",
        ),
        ("cluster_connected", "keepstate_cluster_connected", "1 if NATS is reached"),
        ("cluster_lag", "keepstate_cluster_lag_messages", "Messages that a standby is behind"),
        (
            "cluster_unacknowledged",
            "keepstate_cluster_unacknowledged_messages",
            "Messages of the active gateway that are not acknowledged",
        ),
        (
            "cluster_differences",
            "keepstate_cluster_differences",
            "In how many things the active gateway runs something else",
        ),
    ];
    const COUNTERS: [(&str, &str, &str); 4] = [
        (
            "cluster_lost",
            "keepstate_cluster_lost_messages",
            "Messages lost on their way to NATS; a new snapshot follows",
        ),
        (
            "cluster_resyncs",
            "keepstate_cluster_resyncs",
            "Times that messages were missing and a new snapshot was asked for",
        ),
        ("cluster_stale_frames", "keepstate_cluster_stale_messages", "Messages of an epoch that had ended"),
        ("cluster_refused", "keepstate_cluster_refused_connections", "Connections that a standby could not enter"),
    ];
    const DROPS: [(&str, &str, &str); 2] = [
        ("cluster_dropped_standby", "keepstate_cluster_standby_dropped_packets", "Packets dropped by a standby"),
        (
            "cluster_dropped_fenced",
            "keepstate_cluster_fenced_dropped_packets",
            "Packets dropped because this gateway may not decide",
        ),
    ];
    let rows = |name: &str| -> Vec<([(&'static str, &str); 2], u64)> {
        let values = |shard: &str| {
            let several = facts.shard_values.iter().find(|(known, _)| known == shard);
            several.map_or(facts.cluster.as_slice(), |(_, values)| values.as_slice())
        };
        let all = facts.shards.iter().filter_map(|[cluster, shard]| {
            let (_, value) = values(shard).iter().find(|(known, _)| known == name)?;
            Some(([("cluster", cluster.as_str()), ("shard", shard.as_str())], *value))
        });
        all.collect()
    };
    let active = rows("cluster_role").into_iter().map(|(labels, role)| (labels, u64::from(role == 1)));
    out.gauges("keepstate_cluster_active", "1 if this gateway is the active one", active)?;
    let help =
        "Active: how old the newest state is that surely is with the cluster; standby: since the active one was heard";
    let ages = rows("cluster_age_ms").into_iter().map(|(labels, age)| (labels, age as f64 / 1000.0));
    out.gauges("keepstate_cluster_age_seconds", help, ages)?;
    for (name, metric, help) in GAUGES {
        out.gauges(metric, help, rows(name))?;
    }
    for (name, metric, help) in COUNTERS {
        out.counters(metric, help, rows(name))?;
    }
    for (name, metric, help) in DROPS {
        let mut of_shards = rows(name);
        let total = facts.cluster.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        if facts.shards.len() > 1 {
            // What is of no shard that could be told.
            let told: u64 = of_shards.iter().map(|(_, value)| *value).sum();
            let rest = total.map(|total| total.saturating_sub(told));
            of_shards.extend(rest.map(|rest| ([("cluster", cluster.as_str()), ("shard", "")], rest)));
        }
        out.counters(metric, help, of_shards)?;
    }
    Ok(())
}

fn write_drops(out: &mut MetricWriter<'_>, facts: &OwnerFacts) -> fmt::Result {
    let drops = facts.drops.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
    out.counters("keepstate_gateway_drops", "Packets that the gateway has dropped, by reason", drops)?;
    let chains = facts.chain_drops.iter().flat_map(|chain| {
        let labels = |by| [("table", chain.table.as_str()), ("chain", chain.chain.as_str()), ("by", by)];
        [(labels("rule"), chain.by_rules), (labels("policy"), chain.by_policy)]
    });
    out.counters("keepstate_gateway_chain_drops", "Packets that rules and policies of a chain have dropped", chains)?;
    match facts.log_lines_lost {
        Some(lost) => out.counter("keepstate_gateway_log_lines_lost", "Lines of rules' log that found no room", lost),
        None => Ok(()),
    }
}

fn write_interfaces(out: &mut MetricWriter<'_>, facts: &OwnerFacts) -> fmt::Result {
    type Values = fn(&InterfaceFacts) -> u64;
    const COUNTERS: [(&str, &str, Values); 5] = [
        ("keepstate_interface_received_packets", "Packets that came in by an interface", |of| of.received[0]),
        ("keepstate_interface_received_bytes", "Bytes that came in by an interface", |of| of.received[1]),
        ("keepstate_interface_sent_packets", "Packets that left by an interface", |of| of.sent[0]),
        ("keepstate_interface_sent_bytes", "Bytes that left by an interface", |of| of.sent[1]),
        ("keepstate_interface_dropped_packets", "Packets that came in and were dropped by the gateway", |of| {
            of.dropped
        }),
    ];
    for (name, help, value) in COUNTERS {
        let rows = facts.interfaces.iter().map(|of| ([("interface", of.name.as_str())], value(of)));
        out.counters(name, help, rows)?;
    }
    let neighbours = facts
        .neighbours
        .iter()
        .map(|(interface, state, count)| ([("interface", interface.as_str()), ("state", *state)], *count));
    out.gauges("keepstate_interface_neighbours", "Neighbours on a gateway's interface, by state", neighbours)
}

fn write_services(out: &mut MetricWriter<'_>, facts: &OwnerFacts) -> fmt::Result {
    let services = &facts.services;
    if services.is_empty() {
        return Ok(());
    }
    let backends = services.iter().flat_map(|service| {
        let name = service.name.as_str();
        service.backends.iter().map(move |(status, count)| ([("service", name), ("status", status.as_str())], *count))
    });
    out.gauges("keepstate_service_backends", "Backends of a service by status", backends)?;
    let connections = services.iter().map(|service| ([("service", service.name.as_str())], service.connections));
    out.gauges("keepstate_service_connections", "Connections to the backends of a service", connections)?;
    let refused = services.iter().map(|service| ([("service", service.name.as_str())], service.refused));
    out.counters("keepstate_service_refused", "New connections that no backend could take", refused)
}

fn write_findings(out: &mut MetricWriter<'_>, facts: &OwnerFacts) -> fmt::Result {
    let Some(at) = facts.diagnosed_at else { return Ok(()) };
    out.gauge("keepstate_doctor_run_timestamp_seconds", "When doctor ran last", at)?;
    let rows = facts.finding_names.iter().flat_map(|name| {
        ["warning", "critical"].map(|severity| {
            let active = facts.findings.iter().any(|found| found.name == *name && found.severity == severity);
            ([("name", *name), ("severity", severity)], u64::from(active))
        })
    });
    out.gauges("keepstate_finding", "1 if doctor reports this finding", rows)
}

/// Writes families of one kind.
struct MetricWriter<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl MetricWriter<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        rows.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        rows.try_for_each(|(labels, value)| {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)
        })
    }
}
