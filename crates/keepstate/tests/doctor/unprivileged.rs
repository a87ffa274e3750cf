//! Without root: what can be seen is judged, what cannot is said.
use crate::common::report_skipped;
use crate::netns_fixture::SysctlLock;
use std::process::Command;

#[test]
fn unprivileged_run_reports_unreadable_inputs() {
    let _lock = SysctlLock::shared();
    if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists() {
        report_skipped("the doctor without root: connection tracking is not loaded here");
        return;
    }
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", env!("CARGO_BIN_EXE_keepstate")])
        .args(["doctor", "--interval", "0", "--json"])
        .output();
    let Ok(output) = output else {
        report_skipped("the doctor without root: it needs setpriv(1)");
        return;
    };
    if output.stdout.is_empty() {
        report_skipped(
            "the doctor without root: setpriv may not give up its rights here, or nobody may not reach the program",
        );
        return;
    }
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let unseen = document["unseen"].as_array().unwrap();
    let all = document["unseen"].to_string();
    for what in ["conntrack entries", "packet filter rules", "conntrack slabs"] {
        assert!(all.contains(what), "{all}");
    }
    for one in unseen {
        assert!(!one["why"].as_str().unwrap().is_empty() && !one["how"].as_str().unwrap().is_empty(), "{one}");
    }
    assert!(document["namespaces"][0]["entries"].is_u64(), "the count is everybody's to see");
}

#[test]
fn missing_namespace_is_an_error() {
    let ran = crate::common::keepstate(&["doctor", "--netns", "no-such-namespace"], b"");
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
    assert!(ran.err.contains("no network namespace \"no-such-namespace\""), "{}", ran.err);
}
