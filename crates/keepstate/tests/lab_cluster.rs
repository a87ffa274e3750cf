//! `keepstate lab --cluster` as a newcomer runs it, with few clients: all checks pass, nothing is left behind, Ctrl-C ends it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{ProgramOutput, keepstate, report_skipped};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// Said where the machine does not allow it.
fn cannot_run(ran: &ProgramOutput) -> bool {
    let reasons = ["network namespaces need root", "/dev/net/tun", "missing program"];
    let cannot = ran.code == Some(1) && reasons.iter().any(|reason| ran.err.contains(reason));
    if cannot {
        report_skipped(&format!("the laboratory of a cluster: {}", ran.err.trim()));
    }
    cannot
}

#[test]
fn no_session_is_lost_whatever_happens_to_a_gateway() {
    // On a busy machine a renewal of the lease may take a second.
    let words =
        ["lab", "--cluster", "--clients", "100", "--rate", "20", "--transfers", "2", "--lease", "3", "--outage", "6"];
    let ran = keepstate(&words, b"");
    if cannot_run(&ran) {
        return;
    }
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert_eq!(ran.out.matches("✓ 100 of 100 sessions go on, 0 had to reconnect").count(), 5, "{}", ran.out);
    assert_eq!(ran.out.matches("✓ 2 transfers go on, 0 broken").count(), 5, "{}", ran.out);
    assert_eq!(ran.out.matches("both tables are the same, entry by entry").count(), 4, "{}", ran.out);
    for text in [
        "it creates nothing and forwards what it knows",
        "✓ 0 sessions got no answer meanwhile",
        "✓ 0 new connections failed",
        "✓ the two gateways were never active at the same time",
        "All checks passed.",
    ] {
        assert!(ran.out.contains(text), "{text:?} in\n{}", ran.out);
    }
    let longest = ran.out.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(120), "short lines: {longest:?}\n{}", ran.out);
}

#[test]
fn ctrl_c_removes_everything() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keepstate"));
    command.args(["lab", "--cluster", "--clients", "10", "--outage", "600"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    while !text.contains("1. ") && out.read_line(&mut text).unwrap() > 0 {}
    let is_running = text.contains("1. ");
    if is_running {
        assert!(!processes_left(child.id()).is_empty(), "gateways and NATS servers run");
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    }
    out.read_to_string(&mut text).unwrap();
    let (mut err, code) = (String::new(), child.wait().unwrap().code());
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    let ran = ProgramOutput { code, out: text, err };
    if !is_running {
        assert!(cannot_run(&ran), "{}{}", ran.out, ran.err);
        return;
    }
    assert!(ran.code == Some(1) && ran.err.contains("interrupted; everything has been removed"), "{}", ran.err);
    assert!(!std::env::temp_dir().join(format!("keepstate-lab-{}", child.id())).exists());
    assert!(processes_left(child.id()).is_empty(), "{:?}", processes_left(child.id()));
}

/// Programs of this laboratory that still run: each has the work directory on its command line.
fn processes_left(process: u32) -> Vec<String> {
    let name = format!("keepstate-lab-{process}/");
    let of = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(of);
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&name)).collect()
}

#[test]
fn options_of_a_cluster_need_it() {
    for words in [
        &["lab", "--rate", "5"][..],
        &["lab", "--cluster", "--hold"],
        &["lab", "--cluster", "--clients", "40001"],
        &["lab", "--cluster", "--outage", "1"],
        &["lab", "--cluster", "--lease", "0"],
    ] {
        let ran = keepstate(words, b"");
        assert_eq!(ran.code, Some(2), "{words:?}: {}", ran.err);
        assert!(ran.out.is_empty(), "{}", ran.out);
    }
}
