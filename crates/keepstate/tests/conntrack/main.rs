//! Our `conntrack` and Debian's, judged by the same command lines on kernel tables that were made the same.
//!
//! Each story (`*.cases`) is run by both programs, each in a network namespace of its own; standard output, standard error, the exit code and what is then in the table
//! must be equal, but for what `differences.txt` lists with its reason. `KEEPSTATE_CONNTRACK=PATH` judges another program than ours, `KEEPSTATE_CONNTRACK_CASE=TEXT` runs
//! only the cases whose name contains the text. Nothing outside the two namespaces is ever written, but for their own temporary directories.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test speaks by panicking, its helpers too")]
#[path = "../common/mod.rs"]
mod common;
mod difference;
mod doubles;
mod gateway;
mod house;
mod outcome;
mod story;

use common::skipped;
use difference::Known;
use house::{DEBIAN, House};
use outcome::Outcome;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use story::Case;

/// Where stories and the list of differences are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conntrack");
/// Who changes the machine's own knobs of connection tracking holds this file locked.
const KNOBS: &str = "/tmp/keepstate-global-knobs.lock";
/// The version whose behaviour the stories were written for.
const VERSION: &str = "conntrack v1.4.7 (conntrack-tools)";

#[test]
fn ours_does_what_debian_s_does() {
    if !possible() {
        return;
    }
    // Other tests lower the limit of all namespaces, alone under this lock.
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(KNOBS).unwrap();
    lock.lock_shared().unwrap();
    let judged =
        env::var_os("KEEPSTATE_CONNTRACK").map_or_else(|| env!("CARGO_BIN_EXE_keepstate").into(), PathBuf::from);
    let chosen = env::var("KEEPSTATE_CONNTRACK_CASE").ok();
    let mut cases = story::all(Path::new(FOLDER)).unwrap();
    assert!(cases.len() >= 300, "only {} cases: where are the stories?", cases.len());
    let mut known = Known::read(&Path::new(FOLDER).join("differences.txt")).unwrap();
    let unknown = known.without(&cases);
    assert!(unknown.is_empty(), "differences.txt names cases that there are not: {unknown:#?}");
    if let Some(text) = chosen {
        cases.retain(|case| case.name().contains(&text));
        assert!(!cases.is_empty(), "no case's name contains {text:?}");
    }
    let mut complaints = Vec::new();
    for (case, difference) in cases.iter().zip(compare(&cases, &judged)) {
        let name = case.name();
        match (difference, known.reason(&name)) {
            (None, None) | (Some(Found::Different(_)), Some(_)) => {}
            (None, Some(reason)) => {
                complaints.push(format!("== {name}\nis listed as different, and is not: {reason}\n"))
            }
            (Some(Found::Different(how)), None) => complaints.push(format!("== {name}\n{how}")),
            (Some(Found::Fault(why)), _) => complaints.push(format!("== {name}\ncould not be judged: {why}\n")),
        }
    }
    let (wrong, of) = (complaints.len(), cases.len());
    assert!(complaints.is_empty(), "{wrong} of {of} cases\n{}", complaints.join("\n"));
}

/// What is not equal about a case.
enum Found {
    /// The programs do not do the same: `- ` Debian's, `+ ` the judged one's.
    Different(String),
    /// The namespace could not be prepared as the story says.
    Fault(String),
}

/// What Debian's program and another did, the case's.
type Pair<'a> = (&'a Result<Outcome, String>, &'a Result<Outcome, String>);

fn found((debian, ours): Pair<'_>) -> Option<Found> {
    match (debian, ours) {
        (Ok(debian), Ok(ours)) => debian.differs(ours).map(Found::Different),
        (Err(why), _) | (_, Err(why)) => Some(Found::Fault(why.clone())),
    }
}

/// Runs cases by Debian's program and by `judged`, at the same time.
fn compare(cases: &[Case], judged: &Path) -> Vec<Option<Found>> {
    let (debian, ours) = thread::scope(|scope| {
        let debian = scope.spawn(|| outcomes(cases, House::new(Path::new(DEBIAN)).unwrap()));
        let ours = scope.spawn(|| outcomes(cases, House::new(judged).unwrap()));
        (debian.join().unwrap(), ours.join().unwrap())
    });
    debian.iter().zip(&ours).map(found).collect()
}

fn outcomes(cases: &[Case], mut house: House) -> Vec<Result<Outcome, String>> {
    cases.iter().map(|case| house.run(case)).collect()
}

/// Whether this machine can do it; says loudly if not.
fn possible() -> bool {
    let version = Command::new(DEBIAN).arg("-V").output().map(|output| output.stdout).unwrap_or_default();
    if !version.starts_with(VERSION.as_bytes()) {
        skipped(&format!("comparing with Debian's conntrack (needs {DEBIAN} that says {VERSION})"));
        return false;
    }
    if let Err(why) = House::new(Path::new(DEBIAN)) {
        skipped(&format!("comparing with Debian's conntrack (needs root, unshare, nsenter, ip, nft): {why}"));
        return false;
    }
    true
}
