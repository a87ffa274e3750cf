//! The counters of a running gateway, by name: Linux's under Linux's names, and its own.
use super::flow_log_counters::FlowLogCounters;
use super::jobs::JobCtx;
use keepstate_engine::{Counters, Sysctl};
use keepstate_router::DutyCounters;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Names and values, in the order in which they are shown.
pub(super) struct GatewayStats {
    /// The packets of the router.
    router: Vec<(&'static str, u64)>,
    /// The counters of `conntrack -S`.
    engine: Counters,
    /// The table: entries, limit, memory, expectations, subscribers.
    table: Vec<(&'static str, u64)>,
    /// What was chosen for a table that gets full; empty without a choice.
    admission: Vec<(&'static str, u64)>,
    /// How long packets have waited at most, by what for.
    turns: Vec<(&'static str, u64)>,
    /// Whether the state file can be written; empty without one.
    state_file: Vec<(&'static str, u64)>,
    /// The flow logs together: records written, lost, logs that fail; empty without one.
    flow_log: Vec<(&'static str, u64)>,
    /// Each flow log.
    flow_logs: Vec<FlowLogStats>,
    /// The cluster, and its shard if there is one alone; empty without a cluster.
    cluster: Vec<(&'static str, u64)>,
    /// Of several shards, the name and the numbers of each.
    shards: Vec<(String, Vec<(&'static str, u64)>)>,
    /// Connections whose packets go on in the kernel, and why others do not; empty without such a data path.
    offload: Vec<(&'static str, u64)>,
    /// SYN proxy counters, by Linux's names; empty without synproxy rules.
    synproxy: Vec<(&'static str, u64)>,
    /// Packets by the reason for which they were invalid, ignored or dropped.
    reasons: Vec<(&'static str, u64)>,
}

/// One flow log.
#[derive(Serialize)]
struct FlowLogStats {
    target: String,
    records: u64,
    lost: u64,
    failing: bool,
}

impl FlowLogStats {
    fn of(log: &FlowLogCounters) -> FlowLogStats {
        FlowLogStats { target: log.target.clone(), records: log.written(), lost: log.lost(), failing: log.is_failing() }
    }
}

fn flow_log_sums(logs: &[FlowLogStats]) -> Vec<(&'static str, u64)> {
    if logs.is_empty() {
        return Vec::new();
    }
    let failing = logs.iter().map(|log| u64::from(log.failing)).sum();
    vec![
        ("flow_log_records", logs.iter().map(|log| log.records).sum()),
        ("flow_log_lost", logs.iter().map(|log| log.lost).sum()),
        ("flow_logs_failing", failing),
    ]
}

/// Packets dropped because another gateway decides, or nobody may.
fn dropped_values(of: DutyCounters) -> [(&'static str, u64); 2] {
    [("cluster_dropped_standby", of.standby), ("cluster_dropped_fenced", of.fenced)]
}

/// Reads the counters, on the main loop's thread.
pub(super) fn collect(at: &mut JobCtx<'_>) -> GatewayStats {
    let counters = *at.router.counters();
    let draining = at.router.is_draining();
    let log_lines_lost = at.router.log_lines_lost();
    let handshakes = *at.router.synproxy_stats();
    let proxies = at.router.program().has_synproxy() || handshakes.syn_received > 0;
    let offload = at.router.flow_offload_stats().map_or_else(Vec::new, |stats| {
        let held = stats.held.iter().map(|(reason, count)| (reason.name(), *count));
        [
            ("offloaded_flows", stats.flows as u64),
            ("offloaded_packets", stats.packets),
            ("packets_sent_at_xdp", stats.sent_at_xdp),
            ("opened_by_class", stats.opened),
            ("opened_and_taken_back", stats.taken_back),
        ]
        .into_iter()
        .chain(held)
        .collect()
    });
    let router = &at.router;
    let dropped = dropped_values(router.duty_counters());
    let mut shards: Vec<_> = at.hub.cluster().map_or_else(Vec::new, |cluster| {
        cluster.reports().iter().map(|report| (report.shard.clone(), report.values())).collect()
    });
    let cluster = match &mut shards[..] {
        [] => Vec::new(),
        [(_, values)] => std::mem::take(values).into_iter().chain(dropped).collect(),
        several => {
            for (place, (_, values)) in several.iter_mut().enumerate() {
                values.extend(dropped_values(router.shard_duty_counters(place)));
            }
            dropped.to_vec()
        }
    };
    shards.retain(|(_, values)| !values.is_empty());
    let engine = at.router.engine();
    let linux = *engine.counters();
    let flow_logs: Vec<FlowLogStats> = at.hub.flow_logs().iter().map(|log| FlowLogStats::of(log)).collect();
    GatewayStats {
        router: vec![
            ("received", counters.received),
            ("forwarded", counters.forwarded),
            ("delivered", counters.delivered),
            ("answered", counters.generated),
            ("lost", counters.dropped),
        ],
        engine: linux,
        table: vec![
            ("entries", engine.count() as u64),
            ("nf_conntrack_max", engine.sysctls()[Sysctl::Max].into()),
            ("expect_new", linux.expect_new),
            ("expect_create", linux.expect_create),
            ("expect_delete", linux.expect_delete),
            ("events_lost", engine.events_lost()),
            ("memory", engine.memory_bytes() as u64),
            ("listeners", at.hub.subscribers() as u64),
            ("events_waiting", at.hub.queued() as u64),
            ("draining", draining.into()),
            ("log_lines_lost", log_lines_lost),
        ],
        admission: engine.admission().map_or_else(Vec::new, |policy| {
            let stats = engine.admission_stats();
            let reserved = policy.reserves.iter().map(|reserve| u64::from(reserve.entries)).sum();
            let in_use = engine.reserve_counts().map(|(reserve, count)| u64::from(count.min(reserve.entries))).sum();
            vec![
                ("reserved", reserved),
                ("reserved_in_use", in_use),
                ("sources", stats.sources as u64),
                ("timeout_percent", stats.timeout_percent.into()),
                ("timeouts_cut", stats.timeouts_cut),
                ("limit_raised", stats.limit_raised),
            ]
        }),
        turns: at.turns.values(),
        state_file: at.turns.state_file_values(),
        flow_log: flow_log_sums(&flow_logs),
        flow_logs,
        cluster,
        shards,
        offload,
        synproxy: [
            ("syn_received", handshakes.syn_received),
            ("cookie_invalid", handshakes.cookie_invalid),
            ("cookie_valid", handshakes.cookie_valid),
            ("cookie_retrans", handshakes.cookie_retrans),
        ]
        .into_iter()
        .filter(|_| proxies)
        .collect(),
        reasons: engine
            .reason_counts()
            .map(|(reason, count)| (reason.name(), count))
            .filter(|(_, count)| *count > 0)
            .collect(),
    }
}

impl GatewayStats {
    /// Text: the router's line, the one of `conntrack -S`, the table's, and a line for each reason that is not zero.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        write_row(out, &self.router)?;
        keepstate_conntrack::format::write_stats(out, &self.engine, &Default::default())?;
        write_row(out, &self.table)?;
        if !self.admission.is_empty() {
            write_row(out, &self.admission)?;
        }
        write_row(out, &self.turns)?;
        if !self.state_file.is_empty() {
            write_row(out, &self.state_file)?;
        }
        for log in &self.flow_logs {
            let FlowLogStats { target, records, lost, failing } = log;
            writeln!(out, "flow_log={target} records={records} lost={lost} failing={}", u8::from(*failing))?;
        }
        if !self.cluster.is_empty() {
            write_row(out, &self.cluster)?;
        }
        for (shard, values) in &self.shards {
            write!(out, "shard={shard} ")?;
            write_row(out, values)?;
        }
        if !self.offload.is_empty() {
            write_row(out, &self.offload)?;
        }
        if !self.synproxy.is_empty() {
            write_row(out, &self.synproxy)?;
        }
        self.reasons.iter().try_for_each(|(name, count)| writeln!(out, "{name}={count}"))
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Those of the writer.
    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }
}

/// Names and values as a JSON object, in their order.
struct NamedCounters<'a>(&'a [(&'static str, u64)]);

impl Serialize for NamedCounters<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().copied())
    }
}

impl Serialize for GatewayStats {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let linux = keepstate_conntrack::format::counters(&self.engine);
        let mut map = to.serialize_map(None)?;
        let rows: [&[(&str, u64)]; 9] = [
            &self.router,
            &linux,
            &self.table,
            &self.admission,
            &self.turns,
            &self.state_file,
            &self.flow_log,
            &self.cluster,
            &self.offload,
        ];
        for (name, value) in rows.into_iter().flatten() {
            map.serialize_entry(name, value)?;
        }
        if !self.flow_logs.is_empty() {
            map.serialize_entry("flow_logs", &self.flow_logs)?;
        }
        if !self.shards.is_empty() {
            let shards = self.shards.iter().map(|(shard, values)| (shard, NamedCounters(values)));
            map.serialize_entry("shards", &shards.collect::<BTreeMap<_, _>>())?;
        }
        map.serialize_entry("synproxy", &NamedCounters(&self.synproxy))?;
        map.serialize_entry("reasons", &NamedCounters(&self.reasons))?;
        map.end()
    }
}

fn write_row(out: &mut impl Write, numbers: &[(&str, u64)]) -> io::Result<()> {
    let words: Vec<String> = numbers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    writeln!(out, "{}", words.join(" "))
}
