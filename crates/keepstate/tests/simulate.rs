//! `keepstate simulate` as a process: the case that began it all, every format, and the obvious mistakes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::keepstate;
use serde_json::Value;

/// A broker with 8 cores and 4 GB, by the defaults of Linux 5.15.
const BROKER: &[&str] = &[
    "simulate",
    "--profile",
    "mqtt-broker",
    "--clients",
    "100k",
    "--as-linux",
    "5.15",
    "--memory",
    "4G",
    "--cpus",
    "8",
    "--duration",
    "4min",
];

#[test]
fn broker_stops_accepting_at_65536_connections() {
    let told = keepstate(BROKER, b"");
    assert_eq!(told.code, Some(0), "{}", told.err);
    // Lines are wrapped.
    let text = told.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("no new connections after 65,536"), "{}", told.out);
    assert!(text.contains("nf_conntrack: table full, dropping packet"), "{}", told.out);
    // With room for all there is none of it.
    let roomy = keepstate(&[BROKER, &["--set", "nf_conntrack_max=200000"]].concat(), b"");
    assert!(roomy.code == Some(0) && !roomy.out.contains("no new connections"), "{}", roomy.out);
}

#[test]
fn json_and_csv_output_is_valid() {
    let small = ["simulate", "--clients", "200", "--duration", "2min", "--seed", "1"];
    let json = keepstate(&[&small[..], &["--json"]].concat(), b"");
    let document: Value = serde_json::from_str(&json.out).expect("a document");
    assert!(
        document["schema"].as_str().is_some_and(|schema| schema.starts_with("keepstate.simulate/")),
        "{}",
        json.out
    );
    let csv = keepstate(&[&small[..], &["--csv"]].concat(), b"");
    let mut lines = csv.out.lines();
    let columns = lines.next().expect("a head").split(',').count();
    assert!(columns > 3 && lines.clone().count() > 5, "{}", csv.out);
    assert!(lines.all(|line| line.split(',').count() == columns), "{}", csv.out);
    assert_eq!(keepstate(&[&small[..], &["--json"]].concat(), b"").out, json.out, "the same seed tells the same story");
}

#[test]
fn usage_errors_are_explained() {
    for (words, why) in [
        (&["--clients", "0"][..], "0"),
        (&["--clients", "many"], "many"),
        (&["--clients", "5", "--json", "--csv"], "csv"),
        (&["--set", "nf_conntrack_nonsense=1"], "there is no sysctl"),
        (&["--duration", "-1"], "-1"),
    ] {
        let told = keepstate(&[&["simulate"][..], words].concat(), b"");
        assert_eq!(told.code, Some(2), "{words:?}: {}", told.err);
        assert!(told.err.contains(why), "{words:?}: {}", told.err);
    }
    let lost = keepstate(&["simulate", "--capture", "/nonexistent.pcap"], b"");
    assert!(lost.code == Some(1) && lost.err.contains("nonexistent.pcap"), "{}", lost.err);
}

#[test]
fn choices_for_a_full_table_are_compared() {
    let small = ["simulate", "--compare", "--clients", "300", "--duration", "5min", "--seed", "1"];
    let limit = ["--set", "nf_conntrack_max=200"];
    let told = keepstate(&[&small[..], &limit].concat(), b"");
    assert_eq!(told.code, Some(0), "{}", told.err);
    for line in [
        "linux: dropped: table_full",
        "reserve \"2 for tcp 22\": dropped: ",
        "source-limit \"200 connections 50 new/s\": dropped: ",
        "adaptive-timeouts \"120-240\": dropped: ",
        "grow-to \"800\": dropped: nothing",
    ] {
        assert!(told.out.lines().any(|shown| shown.starts_with(line)), "{line}: {}", told.out);
    }
    // Those that are given, each by itself and together.
    let given = ["--table-reserve", "5 for tcp 22", "--grow-to", "250", "--json"];
    let told = keepstate(&[&small[..], &limit, &given].concat(), b"");
    let document: Value = serde_json::from_str(&told.out).expect("a document");
    let choices = document["choices"].as_array().unwrap();
    let names: Vec<_> = choices.iter().map(|choice| choice["choice"].as_str().unwrap()).collect();
    assert_eq!(names, ["linux", "reserve", "grow-to", "all of them"]);
    assert_eq!(choices[3]["nf_conntrack_max"], 250);
    assert!(choices[0]["clients"]["logins_dropped"].as_u64() > Some(0), "{}", told.out);
    assert_eq!(choices[1]["clients"]["logins_dropped"], 0);
    let refused = keepstate(&[&small[..], &limit, &["--table-reserve", "200 for tcp 22"]].concat(), b"");
    assert!(refused.code == Some(1) && refused.err.contains("leave some for the others"), "{}", refused.err);
}
