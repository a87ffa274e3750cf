//! `keepstate size`: pages, documents, other machines' files, and the mistakes people make.
#![allow(clippy::unwrap_used, reason = "a test that cannot read what the program printed must fail")]
mod common;
use common::{ProgramOutput, keepstate, report_skipped};
use serde_json::Value;
use std::path::Path;

fn size(options: &[&str]) -> ProgramOutput {
    keepstate(&[&["size"], options].concat(), b"")
}

#[track_caller]
fn size_text(options: &[&str]) -> String {
    let ran = size(options);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.out
}

#[track_caller]
fn size_json(options: &[&str]) -> Value {
    serde_json::from_str(&size_text(&[options, &["--json"]].concat())).unwrap()
}

#[track_caller]
fn assert_rejected(options: &[&str], pieces: &[&str]) {
    let ran = size(options);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{options:?}: {}", ran.err);
    for piece in pieces {
        assert!(ran.err.contains(piece), "no {piece:?} in: {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

/// A machine's files: 4 GB, 5.15, eight processors, a full table.
fn write_bundle(directory: &Path) {
    let files = [
        ("proc/meminfo", "MemTotal:        3953636 kB\nMemAvailable:    2953636 kB\n"),
        ("proc/sys/kernel/osrelease", "5.15.0-91-generic\n"),
        ("sys/devices/system/cpu/online", "0-7\n"),
        ("proc/slabinfo", "nf_conntrack 65540 65552 264 31 2 : tunables 0 0 0\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
        ("proc/sys/net/netfilter/nf_conntrack_buckets", "65536\n"),
        ("proc/sys/net/netfilter/nf_conntrack_count", "65536\n"),
        ("proc/sys/net/netfilter/nf_conntrack_acct", "1\n"),
    ];
    for (path, text) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

const ARTICLE_ARGS: [&str; 8] = ["--profile", "mqtt-broker", "--memory", "4G", "--as-linux", "5.15", "--cpus", "8"];

#[test]
fn mqtt_broker_example_as_text() {
    let page = size_text(&[&ARTICLE_ARGS[..], &["--connections", "100k", "--keepalive", "60"]].concat());
    for piece in [
        "mqtt-broker: 100,000 connections; defaults of Linux 5.15 to 6.17, 4 GiB, 8 CPUs",
        "158208  the surge of 150,1",
        "living      100,000  1.2/s × 1 d (Little's law)",
        "5382 (REQ-5)",
        "balls in bins",
        "5.15 to 6.17  65,536   65,536",
        "does not fit",
        "sysctl -w net.netfilter.nf_conntrack_max=158208",
    ] {
        assert!(page.contains(piece), "no {piece:?} in:\n{page}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 101), "{page}");
    assert!(!page.contains('\x1b'), "colour where standard output is not a terminal: {page:?}");
    // Buckets are raised before max.
    assert!(page.find("-w net.netfilter.nf_conntrack_buckets") < page.find("-w net.netfilter.nf_conntrack_max"));
}

#[test]
fn mqtt_broker_example_as_json() {
    let document = size_json(&[&ARTICLE_ARGS[..], &["-c", "100000"]].concat());
    assert_eq!(document["schema"], "keepstate.size/1");
    assert_eq!(document["nf_conntrack_max"]["value"], 158_208);
    assert_eq!(document["hashsize"], 158_208);
    assert_eq!(document["demand"]["profile"], "mqtt-broker");
    assert_eq!(document["memory"]["object_source"], "known");
    assert_eq!(document["memory"]["buckets"], 158_208 * 8);
    assert_eq!(document["lists"]["limit"], serde_json::json!([50, 79]));
    assert_eq!(document["kernel_defaults"].as_array().unwrap().len(), 4);
    for reasoned in ["nf_conntrack_max", "nf_conntrack_buckets", "headroom"] {
        assert!(document[reasoned]["why"].as_str().unwrap().len() > 20, "{reasoned}");
    }
}

#[test]
fn every_profile_gives_a_result() {
    for profile in ["mqtt-broker", "nat-gateway", "kubernetes-node", "web-server"] {
        let own = size_json(&["--profile", profile, "--memory", "16G"]);
        let max = own["nf_conntrack_max"]["value"].as_u64().unwrap();
        assert!((10_000..1_000_000).contains(&max), "{profile}: {max}");
        let ten = size_json(&["--profile", profile, "--memory", "16G", "-c", "1M"]);
        assert!(ten["nf_conntrack_max"]["value"].as_u64().unwrap() > 1_333_000, "{profile}");
    }
}

#[test]
fn each_profile_value_can_be_overridden() {
    let base = ["--profile", "nat-gateway", "--memory", "16G"];
    let max = |more: &[&str]| size_json(&[&base, more].concat())["load"]["peak"].as_u64().unwrap();
    let own = max(&[]);
    assert!(max(&["--rate", "2000/s"]) > own);
    assert!(max(&["--lifetime", "2min"]) > own);
    assert!(max(&["--udp-rate", "0"]) < own);
    assert!(max(&["--half-open-rate", "0"]) < own);
    assert!(max(&["--silent", "0%"]) < own);
    assert!(max(&["--storm", "100%"]) > own);
    assert!(max(&["--notice", "2min"]) < own);
    assert!(max(&["--keepalive", "12h"]) > own, "connections silent for 12 h forbid a timeout of 3 h");
    assert!(max(&["--set", "nf_conntrack_tcp_timeout_time_wait=60"]) < own);
    let extension = |more: &[&str]| {
        size_json(&[&["-c", "1000", "--memory", "1G", "--as-linux", "6.18"], more].concat())["memory"]["extension"]
            .clone()
    };
    assert_eq!((extension(&[]), extension(&["--nat"])), (0.into(), 128.into()));
}

#[test]
fn reads_files_of_another_machine() {
    let there = tempfile::tempdir().unwrap();
    write_bundle(there.path());
    let from = ["--from", there.path().to_str().unwrap()];
    let full = size_json(&from);
    assert_eq!(full["observed"]["connections"], 65_536);
    assert_eq!(full["machine"]["kernel"], "5.15.0-91-generic");
    assert_eq!((&full["machine"]["cpus"], &full["machine"]["memory"]), (&8.into(), &(3_953_636_u64 << 10).into()));
    assert_eq!((&full["memory"]["object"], &full["memory"]["object_source"]), (&264.into(), &"measured".into()));
    assert_eq!(full["memory"]["extension"], 128);
    assert_eq!(full["load"]["steady"], 131_072);
    let warnings = full["warnings"].to_string();
    assert!(warnings.contains("the table is full (65,536 of 65,536)"), "{warnings}");
    // The same machine, for a demand.
    let described = size_json(&[&from[..], &["-c", "1000"]].concat());
    assert!(described["warnings"].to_string().contains("nf_conntrack_max is 65,536 now, which is more: keep it"));
    let page = size_text(&[&from[..], &["-c", "1000"]].concat());
    assert!(page.contains("nothing to change") && !page.contains("sysctl -w"), "{page}");
}

#[test]
fn unreadable_inputs_are_reported() {
    let there = tempfile::tempdir().unwrap();
    let from = ["--from", there.path().to_str().unwrap()];
    let ran = size(&from);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("proc/meminfo: give --memory"), "{}", ran.err);
    let ran = size(&[&from[..], &["--memory", "4G"]].concat());
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.err.contains("cannot read")
            && ran.err.contains("nf_conntrack_count: ")
            && ran.err.contains("Describe the load"),
        "{}",
        ran.err
    );
    let ran = size(&["--from", "/no/such/directory"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("/no/such/directory is not a directory"), "{}", ran.err);
}

#[test]
fn observes_the_live_table() {
    if !Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists() {
        return report_skipped("this machine's own table (needs nf_conntrack loaded)");
    }
    let live = size_json(&["--interval", "50ms"]);
    assert!(live["observed"]["connections"].is_u64() && live["observed"]["interval"].as_f64().unwrap() >= 0.05);
    assert_eq!(live["machine"]["nf_conntrack_max"], live["observed"]["max"]);
}

#[test]
fn usage_errors() {
    assert_rejected(&["-c", "0"], &["must be at least 1"]);
    assert_rejected(&["-c", "-5"], &["-5"]);
    assert_rejected(&["-c", "many"], &["whole number from 1 on"]);
    assert_rejected(&["-c", "1e6"], &["65536, 250k or 1.5M"]);
    assert_rejected(&["-c", "99999999999999999999"], &["whole number"]);
    assert_rejected(&["--rate", "1/week"], &["N/s, N/min, N/h or N/d"]);
    assert_rejected(&["--rate", "inf"], &["rate per second"]);
    assert_rejected(&["--rate", "10"], &["--rate needs --lifetime or --connections"]);
    assert_rejected(&["--lifetime", "1h"], &["no load is given"]);
    assert_rejected(&["--nat"], &["no load is given"]);
    assert_rejected(&["--lifetime", "0", "-c", "1"], &["must be longer than 0"]);
    assert_rejected(&["--lifetime", "1 year", "-c", "1"], &["20min, 6h, 5d"]);
    assert_rejected(&["--silent", "101%", "-c", "1"], &["from 0 to 100"]);
    assert_rejected(
        &["-c", "1000", "--rate", "5", "--lifetime", "10"],
        &["give 50 connections at one time, not 1000", "give two of"],
    );
    assert_rejected(&["-c", "1000", "--keepalive", "60", "--notice", "30"], &["would close open connections"]);
    assert_rejected(&["-c", "1000", "--interval", "1s"], &["--interval reads the live table"]);
    assert_rejected(&["--from", "/", "--interval", "1s"], &["cannot be combined with --from"]);
    assert_rejected(&["--memory", "4X", "-c", "1"], &["4G or 512M"]);
    assert_rejected(&["--profile", "mail-server"], &["mqtt-broker, nat-gateway, kubernetes-node, web-server"]);
    assert_rejected(&["-c", "1", "--set", "nf_conntrack_tcp_timeout_establised=1"], &["did you mean"]);
    assert_rejected(&["--as-linux", "2.6", "-c", "1"], &["3.10, 4.19, 5.15, 6.18"]);
}

#[test]
fn largest_accepted_values() {
    let largest = size_json(&["-c", "18446744073709551615", "--lifetime", "1s", "--memory", "1G"]);
    assert!(largest["warnings"].to_string().contains("more than a table can hold"));
    let fastest = size_json(&["--rate", "1000000000", "--lifetime", "36500d", "--memory", "1G"]);
    assert!(fastest["warnings"].to_string().contains("more than a table can hold"));
}

#[test]
fn help_ends_with_examples() {
    let help = size_text(&["--help"]);
    for piece in ["Examples:", "keepstate size --profile mqtt-broker", "Exit codes"] {
        assert!(help.contains(piece), "no {piece:?} in:\n{help}");
    }
}
