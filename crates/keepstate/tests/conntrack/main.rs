//! Our `conntrack` and Debian's, judged by the same command lines on kernel tables that were made the same.
//!
//! Each story (`*.cases`) is run by both programs, each in a network namespace of its own; standard output, standard error, the exit code and what is then in the table
//! must be equal, but for what `differences.txt` lists with its reason. `KEEPSTATE_CONNTRACK=PATH` judges another program than ours, `KEEPSTATE_CONNTRACK_CASE=TEXT` runs
//! only the cases whose name contains the text. Every fifth case runs: `KEEPSTATE_CONNTRACK_SAMPLE=N` runs every Nth, 1 is all of them (`cargo xtask compare conntrack`), and
//! `KEEPSTATE_CONNTRACK_FIRST=K` begins at another one. Nothing outside the two namespaces is ever written, but for their own temporary directories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]
mod attributes;
mod case_file;
#[path = "../common/mod.rs"]
mod common;
mod entry_strategy;
mod gateway;
mod known_differences;
mod mutants;
mod netns_fixture;
mod outcome;
mod saved_entries;

use case_file::Case;
use common::report_skipped;
use known_differences::KnownDifferences;
use netns_fixture::{DEBIAN, NetnsFixture};
use outcome::Outcome;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Where stories and the list of differences are.
const CASES_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conntrack");
/// Who changes the machine's own knobs of connection tracking holds this file locked.
const SYSCTL_LOCK: &str = "/tmp/keepstate-global-knobs.lock";
/// The version whose behaviour the stories were written for.
const DEBIAN_VERSION: &str = "conntrack v1.4.7 (conntrack-tools)";

#[test]
fn matches_debian_conntrack_on_the_kernel_table() {
    if !can_run() {
        return;
    }
    let _lock = lock_global_knobs();
    let judged =
        env::var_os("KEEPSTATE_CONNTRACK").map_or_else(|| env!("CARGO_BIN_EXE_keepstate").into(), PathBuf::from);
    let chosen = env::var("KEEPSTATE_CONNTRACK_CASE").ok();
    let mut cases = case_file::read_all(Path::new(CASES_DIR)).unwrap();
    assert!(cases.len() >= 300, "only {} cases: where are the stories?", cases.len());
    let mut known = KnownDifferences::read(&Path::new(CASES_DIR).join("differences.txt")).unwrap();
    let unknown = known.names_without_case(&cases);
    assert!(unknown.is_empty(), "differences.txt names cases that there are not: {unknown:#?}");
    match chosen {
        Some(text) => cases.retain(|case| case.name().contains(&text)),
        None => keep_sample(&mut cases),
    }
    assert!(!cases.is_empty(), "no case's name contains what KEEPSTATE_CONNTRACK_CASE says");
    let mut complaints = Vec::new();
    for (case, difference) in cases.iter().zip(compare(&cases, &judged)) {
        let name = case.name();
        match (difference, known.reason(&name)) {
            (None, None) | (Some(Mismatch::Different(_)), Some(_)) => {}
            (None, Some(reason)) => {
                complaints.push(format!("== {name}\nis listed as different, and is not: {reason}\n"))
            }
            (Some(Mismatch::Different(how)), None) => complaints.push(format!("== {name}\n{how}")),
            (Some(Mismatch::SetupFailed(why)), _) => {
                complaints.push(format!("== {name}\ncould not be judged: {why}\n"))
            }
        }
    }
    let (wrong, of) = (complaints.len(), cases.len());
    assert!(complaints.is_empty(), "{wrong} of {of} cases\n{}", complaints.join("\n"));
}

/// Other tests lower the limit of all namespaces, alone under this lock; it is held until the file is closed.
fn lock_global_knobs() -> std::fs::File {
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(SYSCTL_LOCK).unwrap();
    lock.lock_shared().unwrap();
    lock
}

/// What is not equal about a case.
enum Mismatch {
    /// The programs do not do the same: `- ` Debian's, `+ ` the judged one's.
    Different(String),
    /// The namespace could not be prepared as the story says.
    SetupFailed(String),
}

/// What Debian's program and another did, the case's.
type Pair<'a> = (&'a Result<Outcome, String>, &'a Result<Outcome, String>);

fn mismatch_of((debian, ours): Pair<'_>) -> Option<Mismatch> {
    match (debian, ours) {
        (Ok(debian), Ok(ours)) => debian.diff(ours).map(Mismatch::Different),
        (Err(why), _) | (_, Err(why)) => Some(Mismatch::SetupFailed(why.clone())),
    }
}

/// Runs cases by Debian's program and by `judged`, at the same time.
fn compare(cases: &[Case], judged: &Path) -> Vec<Option<Mismatch>> {
    let (debian, ours) = thread::scope(|scope| {
        let debian = scope.spawn(|| run_debian_cases(cases));
        let ours = scope.spawn(|| run_cases(cases, NetnsFixture::new(judged).unwrap()));
        (debian.join().unwrap(), ours.join().unwrap())
    });
    debian.iter().zip(&ours).map(mismatch_of).collect()
}

fn run_cases(cases: &[Case], mut house: NetnsFixture) -> Vec<Result<Outcome, String>> {
    cases.iter().map(|case| house.run(case)).collect()
}

/// As `run_cases`, by Debian's program. It numbers its requests by the second and leaves one acknowledgement of each `-U` unread; where a second ends between the updates of two
/// entries, it takes that acknowledgement for a stranger's and fails. Such a run says nothing about the case, which is run again.
fn run_debian_cases(cases: &[Case]) -> Vec<Result<Outcome, String>> {
    let mut house = NetnsFixture::new(Path::new(DEBIAN)).unwrap();
    let mut run = |case| {
        for _ in 0..DEBIAN_RUNS {
            match house.run(case) {
                Ok(done) if done.err.contains(DEBIAN_SEQUENCE_FAULT) => house.forget_prepared(),
                outcome => return outcome,
            }
        }
        Err(format!("Debian's conntrack said {DEBIAN_SEQUENCE_FAULT:?} {DEBIAN_RUNS} times"))
    };
    cases.iter().map(&mut run).collect()
}

/// What Debian's program says when a second ended between two of its requests.
const DEBIAN_SEQUENCE_FAULT: &str = "Operation failed: Protocol error";
/// How often a case is tried before that counts as a failure.
const DEBIAN_RUNS: u32 = 10;

/// Keeps the part of the cases that is to run.
fn keep_sample(cases: &mut Vec<Case>) {
    let from_environment = |name: &str, otherwise: usize| {
        env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
    };
    let (step, first) =
        (from_environment("KEEPSTATE_CONNTRACK_SAMPLE", SAMPLE), from_environment("KEEPSTATE_CONNTRACK_FIRST", 0));
    let mut at = first;
    cases.retain(|_| {
        at += 1;
        at % step.max(1) == 0
    });
}

/// One case of this many runs.
const SAMPLE: usize = 5;

/// Whether this machine can do it; says loudly if not.
fn can_run() -> bool {
    let version = Command::new(DEBIAN).arg("-V").output().map(|output| output.stdout).unwrap_or_default();
    if !version.starts_with(DEBIAN_VERSION.as_bytes()) {
        report_skipped(&format!("comparing with Debian's conntrack (needs {DEBIAN} that says {DEBIAN_VERSION})"));
        return false;
    }
    if let Err(why) = NetnsFixture::new(Path::new(DEBIAN)) {
        report_skipped(&format!("comparing with Debian's conntrack (needs root, unshare, nsenter, ip, nft): {why}"));
        return false;
    }
    true
}
