//! The facts that are read in the background: a gateway's counters and services, doctor's findings.
//!
//! Counters come with each reading of the table's size, services every ten seconds, findings as often as was asked for. What cannot be read keeps its last value, and the
//! reason is kept beside it.
use super::gateway_facts;
use crate::doctor::gather::{GatherOptions, gather_live};
use crate::doctor::report::DoctorReport;
use crate::live_table::LiveTableArgs;
use anyhow::{Context, Result};
use keepstate_advisor::doctor::{RULES, Report, Severity, diagnose};
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::ControlRequest;
use keepstate_serve::{ActiveFinding, FactBoard, OffloadFacts, ServiceFacts};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two readings of the services.
const SERVICES_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks whether it is to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Doctor reads counters twice, so far apart.
const DOCTOR_INTERVAL: Duration = Duration::from_secs(2);
/// Entries that doctor looks at.
const DOCTOR_SAMPLE: usize = 20_000;
/// Namespaces that doctor looks at.
const DOCTOR_NAMESPACES: usize = 256;

/// Threads that read facts until they are told to end.
pub(crate) struct FactReader {
    threads: Vec<JoinHandle<()>>,
    /// Doctor has run, whether it could or not, or never does.
    has_diagnosed: Arc<AtomicBool>,
}

impl FactReader {
    pub(crate) fn start(
        table: &LiveTableArgs,
        doctor: Duration,
        board: Arc<FactBoard>,
        stop: Arc<AtomicBool>,
    ) -> Result<FactReader> {
        let mut threads = Vec::new();
        let has_diagnosed = Arc::new(AtomicBool::new(doctor.is_zero()));
        if let Some(socket) = table.gateway.clone() {
            let (board, stop) = (Arc::clone(&board), Arc::clone(&stop));
            threads.push(spawn("serve-services", move || {
                repeat(&stop, SERVICES_INTERVAL, || {
                    read_services(&socket, &board);
                    gateway_facts::read(&socket, &board);
                });
            })?);
        }
        if !doctor.is_zero() {
            let (table, has_diagnosed) = (table.clone(), Arc::clone(&has_diagnosed));
            threads.push(spawn("serve-doctor", move || {
                repeat(&stop, doctor, || {
                    match run_doctor(&table) {
                        Ok(report) => note_report(&board, &report.report),
                        Err(error) => tracing::warn!("doctor could not run: {error:#}"),
                    }
                    has_diagnosed.store(true, Ordering::Release);
                });
            })?);
        }
        Ok(FactReader { threads, has_diagnosed })
    }

    /// Need nobody wait for doctor's first run any more?
    pub(crate) fn has_diagnosed(&self) -> bool {
        self.has_diagnosed.load(Ordering::Acquire)
    }

    /// Waits for the threads, which have been told to end.
    pub(crate) fn join(self) {
        for thread in self.threads {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")
}

fn repeat(stop: &AtomicBool, every: Duration, mut work: impl FnMut()) {
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        work();
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < every {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Takes a gateway's counters over.
pub(crate) fn note_stats(board: &FactBoard, document: &Value) {
    const RESULTS: [(&str, &str); 6] = [
        ("received", "received"),
        ("forwarded", "forwarded"),
        ("delivered", "delivered"),
        ("answered", "answered"),
        ("lost", "dropped"),
        ("offloaded_packets", "offloaded"),
    ];
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    let mut facts = board.lock();
    facts.packets = RESULTS.iter().filter_map(|(name, label)| Some(((*label).to_owned(), number(name)?))).collect();
    facts.offload = offload_facts(document);
    facts.memory_bytes = number("memory");
    facts.longest_turn_us = number("longest_turn_us");
    facts.events_lost = number("events_lost");
    facts.state_failed = number("state_file_failed").map(|failed| failed != 0);
    let flow_logs = [number("flow_log_records"), number("flow_log_lost"), number("flow_logs_failing")];
    facts.flow_logs = match flow_logs {
        [Some(records), Some(lost), Some(failing)] => Some([records, lost, failing]),
        _ => None,
    };
    facts.cluster = cluster_values(document);
    let shards = document.get("shards").and_then(Value::as_object).into_iter().flatten();
    facts.shard_values = shards.map(|(name, values)| (name.clone(), cluster_values(values))).collect();
    facts.log_lines_lost = number("log_lines_lost");
    facts.state_age_seconds = number("state_file_age_ms").map(|age| age as f64 / 1000.0);
}

/// What of the gateway goes on in the kernel; `None` if it has no such data path.
fn offload_facts(document: &Value) -> Option<OffloadFacts> {
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    let held = document.as_object()?.iter().filter_map(|(name, count)| {
        let reason = name.strip_prefix("held_").or((name == "held").then_some("other"))?;
        Some((reason.to_owned(), count.as_u64()?))
    });
    Some(OffloadFacts {
        flows: number("offloaded_flows")?,
        xdp_packets: number("packets_sent_at_xdp").unwrap_or(0),
        held: held.collect(),
    })
}

/// The numbers of a shard, or of a cluster as a whole.
fn cluster_values(of: &Value) -> Vec<(String, u64)> {
    let fields = of.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| name.starts_with("cluster_"))
        .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
        .collect()
}

fn read_services(socket: &Path, board: &FactBoard) {
    let text = control_client::fetch(socket, ControlRequest::Services);
    let mut facts = board.lock();
    match text {
        Ok(text) => (facts.services, facts.error) = (parse_services(&text), None),
        Err(error) => facts.error = Some(format!("{error:#}")),
    }
}

/// The lines of `keepstate control services`: a service at the beginning of a line, its backends indented below.
fn parse_services(text: &str) -> Vec<ServiceFacts> {
    let value = |line: &str, key: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        word.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    let mut services: Vec<ServiceFacts> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            let name = line.split(' ').next().unwrap_or_default().to_owned();
            services.push(ServiceFacts { name, refused: value(line, "refused"), ..ServiceFacts::default() });
            continue;
        }
        let Some(service) = services.last_mut() else { continue };
        let status = line.split_whitespace().nth(1).unwrap_or_default();
        match service.backends.iter_mut().find(|(known, _)| known == status) {
            Some((_, count)) => *count += 1,
            None => service.backends.push((status.to_owned(), 1)),
        }
        service.connections += value(line, "connections");
    }
    // What is not there is 0, not absent: an alert may ask for it.
    for service in &mut services {
        for status in ["up", "down"] {
            if !service.backends.iter().any(|(known, _)| known == status) {
                service.backends.push((status.to_owned(), 0));
            }
        }
    }
    services
}

/// Diagnoses the table, as `keepstate doctor` does.
pub(crate) fn run_doctor(table: &LiveTableArgs) -> Result<DoctorReport> {
    let seen = match &table.gateway {
        Some(socket) => crate::doctor::gateway::gather(socket, DOCTOR_SAMPLE, DOCTOR_INTERVAL)?,
        None => gather_live(&GatherOptions {
            netns: table.netns.clone(),
            interval: DOCTOR_INTERVAL,
            sample: DOCTOR_SAMPLE,
            namespaces: DOCTOR_NAMESPACES,
            log: None,
        })?,
    };
    Ok(DoctorReport { report: diagnose(&seen), observations: seen, from: None })
}

fn note_report(board: &FactBoard, report: &Report) {
    let mut names: Vec<&'static str> = RULES.iter().copied().flatten().map(|rule| rule.name).collect();
    names.sort_unstable();
    names.dedup();
    let findings = report.findings.iter().map(|finding| ActiveFinding {
        name: finding.name,
        severity: match finding.severity {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        },
        title: match finding.namespace.as_deref() {
            None | Some("this namespace") => finding.title.to_owned(),
            Some(namespace) => format!("{} (in {namespace})", finding.title),
        },
    });
    let mut facts = board.lock();
    facts.finding_names = names;
    facts.findings = findings.collect();
    facts.diagnosed_at = SystemTime::now().duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn services_are_counted_by_status() {
        let text = "web tcp 192.0.2.1:443 scheduler=round-robin refused=4\n  \
                    10.0.0.1:443 up weight=1 connections=3 picked=9\n  \
                    10.0.0.2:443 up weight=1 connections=2 picked=9 (not checked yet)\n  \
                    10.0.0.3:443 drained weight=1 connections=1 picked=9\n\
                    dns udp 192.0.2.1:53 scheduler=maglev refused=0\n";
        let services = parse_services(text);
        assert_eq!(services.len(), 2);
        assert_eq!((services[0].name.as_str(), services[0].connections, services[0].refused), ("web", 6, 4));
        let backends = [("up".to_owned(), 2), ("drained".to_owned(), 1), ("down".to_owned(), 0)];
        assert_eq!(services[0].backends, backends);
        assert_eq!(services[1].backends, [("up".to_owned(), 0), ("down".to_owned(), 0)]);
    }

    #[test]
    fn a_gateways_counters_are_facts() {
        let board = FactBoard::default();
        note_stats(
            &board,
            &serde_json::json!({"received": 5, "lost": 1, "state_file_failed": 1, "state_file_age_ms": 2500, "flow_log_records": 7, "flow_log_lost": 2, "flow_logs_failing": 0, "cluster_role": 1, "cluster_epoch": 4}),
        );
        let facts = board.lock();
        assert_eq!(facts.packets, [("received".to_owned(), 5), ("dropped".to_owned(), 1)]);
        assert_eq!(facts.flow_logs, Some([7, 2, 0]));
        let mut cluster = facts.cluster.clone();
        cluster.sort();
        assert_eq!(cluster, [("cluster_epoch".to_owned(), 4), ("cluster_role".to_owned(), 1)]);
        assert_eq!((facts.state_failed, facts.state_age_seconds), (Some(true), Some(2.5)));
        assert_eq!(facts.shard_values, []);
    }

    #[test]
    fn packets_that_pass_in_the_kernel_are_facts() {
        let board = FactBoard::default();
        note_stats(
            &board,
            &serde_json::json!({"received": 5, "offloaded_flows": 2, "offloaded_packets": 900, "packets_sent_at_xdp": 40, "held_log": 3, "held": 1}),
        );
        let facts = board.lock();
        assert_eq!(facts.packets, [("received".to_owned(), 5), ("offloaded".to_owned(), 900)]);
        let mut offload = facts.offload.clone().unwrap();
        offload.held.sort();
        let held = vec![("log".to_owned(), 3), ("other".to_owned(), 1)];
        assert_eq!(offload, OffloadFacts { flows: 2, xdp_packets: 40, held });
    }

    #[test]
    fn numbers_of_several_shards_are_each_ones_own() {
        let board = FactBoard::default();
        let shards = serde_json::json!({"north": {"cluster_role": 1}, "south": {"cluster_role": 0}});
        note_stats(&board, &serde_json::json!({"cluster_dropped_standby": 3, "shards": shards}));
        let facts = board.lock();
        assert_eq!(facts.cluster, [("cluster_dropped_standby".to_owned(), 3)]);
        let role = |shard: &str, role| (shard.to_owned(), vec![("cluster_role".to_owned(), role)]);
        assert_eq!(facts.shard_values, [role("north", 1), role("south", 0)]);
    }
}
