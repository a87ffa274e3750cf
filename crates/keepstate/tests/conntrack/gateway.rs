//! The same stories once more: Debian's `conntrack` on the kernel's table, ours on a running gateway's.
//!
//! What needs the kernel itself (its own packets, rules, files of proc, other users) is left out by name; what a gateway does otherwise is in `gateway.txt` with its reason.
//! `KEEPSTATE_CONNTRACK_CASE=TEXT` runs only the cases whose name contains the text.
use crate::netns_fixture::NetnsFixture;
use crate::{
    CASES_DIR, KnownDifferences, Mismatch, SYSCTL_LOCK, can_run, case_file, common::report_skipped, keep_sample,
    mismatch_of, run_debian_cases,
};
use std::env;
use std::path::Path;
use std::thread;

/// Lines with one of these are about the kernel itself.
const KERNEL_ONLY_CASES: [&str; 8] = [
    "/dev/udp",
    "/dev/tcp",
    "ct expectation",
    "ct helper",
    "/proc/net/stat",
    "setpriv",
    "ip_local_port_range",
    "ct state new counter",
];

#[test]
fn gateway_table_matches_kernel_table() {
    if !can_run() {
        return;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_keepstate"));
    let mut gateway = match NetnsFixture::with_gateway(program) {
        Ok(gateway) => gateway,
        Err(why) => {
            return report_skipped(&format!(
                "comparing a gateway's table with the kernel's (needs /dev/net/tun): {why}"
            ));
        }
    };
    let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(SYSCTL_LOCK).unwrap();
    lock.lock_shared().unwrap();
    let mut cases = case_file::read_all(Path::new(CASES_DIR)).unwrap();
    let mut known = KnownDifferences::read(&Path::new(CASES_DIR).join("gateway.txt")).unwrap();
    let unknown = known.names_without_case(&cases);
    assert!(unknown.is_empty(), "gateway.txt names cases that there are not: {unknown:#?}");
    cases.retain(|case| {
        let mut lines = case.set_up.iter().chain(case.stir.iter().flatten()).chain([&case.line]);
        !lines.any(|line| KERNEL_ONLY_CASES.iter().any(|own| line.contains(own)))
    });
    // What is refused before any table is asked is judged by the other test: some of it will do.
    let mut at = 0;
    cases.retain(|case| {
        at += 1;
        at % 4 == 0 || !["usage", "fitting"].contains(&case.story.as_str())
    });
    assert!(cases.len() >= 600, "only {} cases are left", cases.len());
    match env::var("KEEPSTATE_CONNTRACK_CASE") {
        Ok(text) => cases.retain(|case| case.name().contains(&text)),
        Err(_) => keep_sample(&mut cases),
    }
    let (debian, ours) = thread::scope(|scope| {
        let debian = scope.spawn(|| run_debian_cases(&cases));
        let ours = cases.iter().map(|case| gateway.run(case)).collect::<Vec<_>>();
        (debian.join().unwrap(), ours)
    });
    // What differs from Debian's program on the kernel's own table differs here too.
    let mut client = KnownDifferences::read(&Path::new(CASES_DIR).join("differences.txt")).unwrap();
    let mut complaints = Vec::new();
    for (case, pair) in cases.iter().zip(debian.iter().zip(&ours)) {
        let name = case.name();
        let is_known = client.reason(&name).is_some();
        match (mismatch_of(pair), known.reason(&name)) {
            (None, None) | (Some(Mismatch::Different(_)), Some(_)) => {}
            (Some(Mismatch::Different(_)), None) if is_known => {}
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
