//! Alert rules and dashboard: valid, tested by promtool, and about metrics that exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod common;

use common::{Served, get};
use keepstate_serve::{ActiveFinding, ChainDropFacts, InterfaceFacts, MetricNames, OffloadFacts, ServiceFacts};
use keepstate_test_support::report_skipped;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn packaging(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(file)
}

/// Runs promtool below packaging/prometheus; false if it is not installed.
fn promtool(arguments: &[&str]) -> bool {
    let Ok(output) = Command::new("promtool").args(arguments).current_dir(packaging("prometheus")).output() else {
        report_skipped("promtool (Debian's package prometheus) is not installed");
        return false;
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    true
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(&["check", "rules", "keepstate.rules.yaml"]);
}

#[test]
fn the_alerts_fire_when_they_should() {
    promtool(&["test", "rules", "keepstate.test.yaml"]);
}

/// Each query of the dashboard, as a rule: Grafana's variables stand for a time and for all instances.
#[test]
fn promtool_accepts_the_queries_of_the_dashboard() {
    let text = std::fs::read_to_string(packaging("grafana/keepstate.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: Vec<String> = targets
        .map(|target| target["expr"].as_str().unwrap().replace("$__rate_interval", "5m").replace("$instance", ".*"))
        .collect();
    assert!(queries.len() > 15 && queries.iter().all(|query| !query.contains('$')), "{queries:#?}");
    let rules = queries.iter().enumerate().map(|(number, query)| {
        format!("  - record: query:{number}\n    expr: {}\n", serde_json::Value::from(query.as_str()))
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("groups:\n- name: dashboard\n  rules:\n{}", rules.collect::<String>());
    std::fs::write(file.path(), text).unwrap();
    promtool(&["check", "rules", "--lint=none", file.path().to_str().unwrap()]);
}

/// The words of a text that begin with `keepstate_`.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("keepstate_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_of_rules_and_dashboard_exists() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    {
        let mut facts = served.facts.lock();
        facts.finding_names = vec!["table-full"];
        facts.findings =
            vec![ActiveFinding { name: "table-full", severity: "critical", title: "the table is full".into() }];
        facts.diagnosed_at = Some(1);
        let backends = vec![("up".into(), 1), ("down".into(), 0)];
        facts.services = vec![ServiceFacts { name: "web".into(), backends, connections: 0, refused: 0 }];
        facts.packets = vec![("forwarded".into(), 1)];
        facts.offload = Some(OffloadFacts { flows: 1, xdp_packets: 0, held: vec![("log".into(), 1)] });
        (facts.state_age_seconds, facts.state_failed) = (Some(0.5), Some(false));
        facts.flow_logs = Some([10, 0, 0]);
        facts.log_lines_lost = Some(0);
        facts.shards = vec![["keepstate".into(), "main".into()]];
        let names = [
            "role",
            "age_ms",
            "in_step",
            "connected",
            "lag",
            "unacknowledged",
            "stale_frames",
            "dropped_standby",
            "dropped_fenced",
        ];
        facts.cluster = names.map(|name| (format!("cluster_{name}"), 1)).into();
        facts.drops = vec![("no_route".into(), 1)];
        facts.chain_drops = vec![ChainDropFacts { table: "inet filter".into(), ..ChainDropFacts::default() }];
        facts.interfaces = vec![InterfaceFacts { name: "wan0".into(), ..InterfaceFacts::default() }];
        facts.neighbours = vec![("wan0".into(), "failed", 1)];
        served.feed.table().reasons.set(&[("table_full".into(), 1)], served.feed.now());
    }
    let there = metric_names(&get(&served, "/metrics"));
    let mut named = BTreeSet::new();
    for file in ["prometheus/keepstate.rules.yaml", "prometheus/keepstate.test.yaml", "grafana/keepstate.json"] {
        let found = metric_names(&std::fs::read_to_string(packaging(file)).unwrap());
        assert!(!found.is_empty(), "{file} names no metric");
        named.extend(found);
    }
    assert!(named.len() > 15, "{named:?}");
    let missing: Vec<&String> = named.difference(&there).collect();
    assert!(missing.is_empty(), "not in /metrics: {missing:?}\nthere are {there:?}");
    let documented = std::fs::read_to_string(packaging("../docs/metrics.md")).unwrap();
    let undocumented: Vec<String> = there.difference(&metric_names(&documented)).cloned().collect();
    assert!(undocumented.is_empty(), "not in docs/metrics.md: {undocumented:?}");
}
