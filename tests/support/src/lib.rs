//! What the tests of several crates share: how a test reports that it cannot run here, random numbers, real NATS servers, when a gateway routes.
//!
//! A test that needs root, a tool or a kernel feature that is missing calls [`report_skipped`] and returns. It then counts as skipped in
//! the closing line of `./test`, which passes a file for these reports in `KEEPSTATE_SKIPPED`. Reporting never panics.
mod gateway_start;
#[allow(clippy::panic, reason = "a test that cannot go on has failed")]
mod nats_server;
mod split_mix64;

pub use gateway_start::wait_until_it_routes;
pub use nats_server::{NatsServers, make_certificates};
pub use split_mix64::SplitMix64;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The environment variable that names the file of reports.
pub const SKIPPED_FILE: &str = "KEEPSTATE_SKIPPED";

/// Reports that the current test is skipped, and what it needs: on standard error (past the harness, which hides the output of passing
/// tests) and, once per test, as a line `TEST<tab>REASON` in the file that `KEEPSTATE_SKIPPED` names.
pub fn report_skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "\n######## SKIPPED: {reason}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main");
    if let Some(file) = std::env::var_os(SKIPPED_FILE).filter(|_| is_first_report(test, reason)) {
        append_line(Path::new(&file), test, reason);
    }
}

/// Makes a system call again for as long as it is interrupted. With a time limit on its socket a call ends by `EINTR` also where no signal
/// has a handler: when the machine is stopped and goes on, as with a snapshot of a virtual machine or a frozen cgroup.
///
/// # Errors
/// The call's, but for `Interrupted`.
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

/// A test may find several things missing; it is skipped once.
fn is_first_report(test: &str, reason: &str) -> bool {
    static REPORTED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    // With one test thread the harness runs tests on the main thread, which has no test's name.
    let key = if test == "main" { reason } else { test };
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    reported.get_or_insert_default().insert(key.to_owned())
}

/// Appends in one write, since test binaries may run side by side.
fn append_line(file: &Path, test: &str, reason: &str) {
    let line = format!("{test}\t{}\n", reason.split_whitespace().collect::<Vec<_>>().join(" "));
    let opened = OpenOptions::new().create(true).append(true).open(file);
    let _ = opened.and_then(|mut file| file.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_and_comes_once_per_test() {
        let file = std::env::temp_dir().join(format!("keepstate-skipped-{}", std::process::id()));
        append_line(&file, "a::test", "needs root\n and more");
        append_line(&file, "b::test", "needs ip");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(&file);
        assert_eq!(text, "a::test\tneeds root and more\nb::test\tneeds ip\n");
        assert!(is_first_report("a::test", "x") && !is_first_report("a::test", "y") && is_first_report("b::test", "x"));
        assert!(is_first_report("main", "x") && is_first_report("main", "y") && !is_first_report("main", "x"));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let mut results = [Err(std::io::ErrorKind::Interrupted.into()), Ok(7), Ok(8)].into_iter();
        assert_eq!(uninterrupted(|| results.next().unwrap_or(Ok(0))).ok(), Some(7));
        assert!(uninterrupted(|| Err::<(), _>(std::io::ErrorKind::TimedOut.into())).is_err());
    }

    #[test]
    fn an_unwritable_file_is_ignored() {
        append_line(Path::new("/no/such/directory/file"), "a", "b");
    }
}
