//! The server beside a kernel's table in a network namespace, asked over HTTP as a stranger would.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod common;

use common::{Served, get, request};
use keepstate_serve::{ActiveFinding, MetricNames, OffloadFacts, ServiceFacts};
use keepstate_test_support::report_skipped;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn metrics_are_what_the_table_has() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let text = get(&served, "/metrics");
    for line in [
        "keepstate_conntrack_entries 30",
        r#"keepstate_conntrack_state_entries{protocol="tcp",state="ESTABLISHED"} 10"#,
        r#"keepstate_conntrack_state_entries{protocol="udp",state="UNREPLIED"} 20"#,
        r#"keepstate_conntrack_groups{by="source"} 2"#,
        r#"keepstate_nat_ports_to_one_peer_max{protocol="tcp"} 0"#,
        "keepstate_conntrack_breakdown_complete 1",
        "keepstate_conntrack_insert_failed_total 0",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
    }
    assert!(!text.contains("node_nf_conntrack"), "only when asked for");
    assert!(!text.contains("10.0.0.") && !text.contains("53\""), "no address and no port is a label:\n{text}");
}

#[test]
fn node_exporters_names_are_there_on_request() {
    let Some(served) = Served::start(MetricNames::NodeExporter) else { return };
    let text = get(&served, "/metrics");
    for name in ["entries 30", "entries_limit ", "stat_found ", "stat_drop ", "stat_insert_failed ", "stat_ignore 0"] {
        assert!(text.contains(&format!("\nnode_nf_conntrack_{name}")), "{name} in\n{text}");
    }
    assert!(text.contains("# TYPE node_nf_conntrack_stat_drop gauge"));
}

#[test]
fn a_scrape_causes_no_dump() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let before = served.feed.table().state().dumps;
    for _ in 0..200 {
        get(&served, "/metrics");
    }
    assert_eq!(served.feed.table().state().dumps, before);
}

#[test]
fn facts_become_metrics() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let text = get(&served, "/metrics");
    assert!(!text.contains("keepstate_finding") && !text.contains("keepstate_service"), "nothing is known yet");
    {
        let mut facts = served.facts.lock();
        facts.finding_names = vec!["table-full", "udp-timeouts"];
        let title = "the table is full".to_owned();
        facts.findings = vec![ActiveFinding { name: "table-full", severity: "critical", title }];
        facts.diagnosed_at = Some(1_700_000_000);
        facts.services = vec![ServiceFacts {
            name: "we\"b\n".into(),
            backends: vec![("up".into(), 2), ("down".into(), 1)],
            connections: 5,
            refused: 3,
        }];
        facts.packets = vec![("forwarded".into(), 12), ("offloaded".into(), 900)];
        facts.offload = Some(OffloadFacts { flows: 7, xdp_packets: 40, held: vec![("log".into(), 3)] });
        (facts.state_age_seconds, facts.state_failed) = (Some(1.5), Some(false));
        facts.flow_logs = Some([10, 0, 0]);
    }
    let text = get(&served, "/metrics");
    for line in [
        r#"keepstate_finding{name="table-full",severity="critical"} 1"#,
        r#"keepstate_finding{name="table-full",severity="warning"} 0"#,
        r#"keepstate_finding{name="udp-timeouts",severity="critical"} 0"#,
        r#"keepstate_service_backends{service="we\"b\n",status="down"} 1"#,
        r#"keepstate_service_refused_total{service="we\"b\n"} 3"#,
        r#"keepstate_gateway_packets_total{result="forwarded"} 12"#,
        r#"keepstate_gateway_packets_total{result="offloaded"} 900"#,
        "keepstate_gateway_offloaded_connections 7",
        "keepstate_gateway_xdp_packets_total 40",
        r#"keepstate_gateway_held_packets_total{reason="log"} 3"#,
        "keepstate_gateway_state_age_seconds 1.5",
    ] {
        assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
    }
    check_with_promtool(&text);
}

#[test]
fn every_shard_of_a_cluster_has_its_own_series() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let values = |role, age| {
        let names = ["cluster_role", "cluster_age_ms", "cluster_dropped_standby"].map(str::to_owned);
        names.into_iter().zip([role, age, 4 * (1 - role)]).collect::<Vec<_>>()
    };
    {
        let mut facts = served.facts.lock();
        facts.shards = ["north", "south"].map(|shard| ["site".to_owned(), shard.to_owned()]).into();
        facts.shard_values = vec![("north".into(), values(1, 2000)), ("south".into(), values(0, 500))];
        facts.cluster = vec![("cluster_dropped_standby".into(), 7)];
    }
    let text = get(&served, "/metrics");
    for line in [
        r#"keepstate_cluster_active{cluster="site",shard="north"} 1"#,
        r#"keepstate_cluster_active{cluster="site",shard="south"} 0"#,
        r#"keepstate_cluster_age_seconds{cluster="site",shard="south"} 0.5"#,
        r#"keepstate_cluster_standby_dropped_packets_total{cluster="site",shard="north"} 0"#,
        r#"keepstate_cluster_standby_dropped_packets_total{cluster="site",shard="south"} 4"#,
        r#"keepstate_cluster_standby_dropped_packets_total{cluster="site",shard=""} 3"#,
    ] {
        assert!(text.lines().any(|there| there == line), "{line} in\n{text}");
    }
    check_with_promtool(&text);
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    check_with_promtool(&get(&served, "/metrics"));
}

/// `promtool check metrics` finds nothing to say.
fn check_with_promtool(text: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = started else {
        return report_skipped("promtool (Debian's package prometheus) is not installed");
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}\n{text}", String::from_utf8_lossy(&said));
}

#[test]
fn openmetrics_is_given_to_who_accepts_it() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let answer = request(&served, "GET", "/metrics", "127.0.0.1", accept);
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.ends_with("# EOF\n") && answer.contains("# TYPE keepstate_conntrack_drop counter"), "{answer}");
    let plain = request(&served, "GET", "/metrics", "127.0.0.1", "");
    assert!(plain.contains("# TYPE keepstate_conntrack_drop_total counter") && !plain.contains("# EOF"), "{plain}");
}

#[test]
fn strangers_names_and_verbs_are_refused() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    let status = |verb: &str, path: &str, host: &str| {
        let answer = request(&served, verb, path, host, "Content-Length: 0\r\n");
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("GET", "/metrics", "rebound.example"), "421");
    assert_eq!(status("GET", "/healthz", "allowed.example:1"), "200");
    assert_eq!(status("GET", "/nothing", "localhost"), "404");
    for verb in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(status(verb, "/metrics", "127.0.0.1"), "405", "{verb}");
    }
    assert_eq!(status("HEAD", "/metrics", "[::1]:9464"), "200");
}

#[test]
fn it_is_ready_once_the_table_is_known() {
    let Some(served) = Served::start(MetricNames::Keepstate) else { return };
    assert!(request(&served, "GET", "/readyz", "127.0.0.1", "").starts_with("HTTP/1.1 200"));
    served.feed.table().failed("gone".into());
    let answer = request(&served, "GET", "/readyz", "127.0.0.1", "");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("the table cannot be read: gone"), "{answer}");
    assert!(request(&served, "GET", "/healthz", "127.0.0.1", "").starts_with("HTTP/1.1 200"));
}
