//! Our `conntrack` and Debian's, judged by the same command lines on kernel tables that were made the same.
//!
//! Each story (`*.cases`) is run by both programs, each in a network namespace of its own; standard output, standard error, the exit code and what is then in the table
//! must be equal, but for what `differences.txt` lists with its reason. `KEEPSTATE_CONNTRACK=PATH` judges another program than ours, `KEEPSTATE_CONNTRACK_CASE=TEXT` runs
//! only the cases whose name contains the text. Nothing outside the two namespaces is ever written, but for their own temporary directories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]
mod attributes;
mod case_file;
#[path = "../common/mod.rs"]
mod common;
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
    if let Some(text) = chosen {
        cases.retain(|case| case.name().contains(&text));
        assert!(!cases.is_empty(), "no case's name contains {text:?}");
    }
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
        let debian = scope.spawn(|| run_cases(cases, NetnsFixture::new(Path::new(DEBIAN)).unwrap()));
        let ours = scope.spawn(|| run_cases(cases, NetnsFixture::new(judged).unwrap()));
        (debian.join().unwrap(), ours.join().unwrap())
    });
    debian.iter().zip(&ours).map(mismatch_of).collect()
}

fn run_cases(cases: &[Case], mut house: NetnsFixture) -> Vec<Result<Outcome, String>> {
    cases.iter().map(|case| house.run(case)).collect()
}

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
