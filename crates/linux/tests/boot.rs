//! What we say of a file of sysctl.d, beside what `systemd-sysctl` and `sysctl -p` make of it in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
use keepstate_linux::{SysRoot, boot::BootConfig};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::fs;
use std::path::Path;
use std::process::Command;

const KEY_PREFIX: &str = "net/netfilter/nf_conntrack_tcp_timeout_";
const NAMES: [&str; 3] = ["close", "close_wait", "last_ack"];
const SYSTEMD: &str = "/usr/lib/systemd/systemd-sysctl";

/// A line that says something about one of the three sysctls, or about several.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => prop::sample::select(&["close", "close_wait", "last_ack"][..]),
        2 => prop::sample::select(&["close*", "*", "?lose", "[a-k]lose_*", "[!c]*_ack"][..]),
    ];
    let value = prop::sample::select(&["= 11", "=22", " = 0x21", "= 44 # four", ""][..]);
    (key, value, any::<bool>(), any::<bool>()).prop_map(|(key, value, dots, ignore)| {
        let key = format!("{KEY_PREFIX}{key}");
        let key = if dots { key.replace('/', ".") } else { key };
        let sign = if ignore || value.is_empty() { "-" } else { "" };
        format!("{sign}{key}{value}\n")
    })
}

/// The three sysctls in a new namespace, after the command has run in it.
fn observed(command: &str) -> Vec<u64> {
    let read = NAMES.map(|name| format!("cat /proc/sys/{KEY_PREFIX}{name}")).join("; ");
    let script = format!("{{ {command}; }} >/dev/null 2>&1; {read}");
    let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).output().unwrap();
    let values =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect::<Vec<u64>>();
    assert_eq!(values.len(), NAMES.len(), "{}", String::from_utf8_lossy(&output.stderr));
    values
}

/// The three sysctls as we foretell them, from what a new namespace begins with.
fn predicted(image: &Path, begin: &[u64]) -> Vec<u64> {
    let boot = BootConfig::read(&SysRoot::at(image)).unwrap();
    let sysctls = NAMES.iter().zip(begin).map(|(name, begin)| {
        let standing = boot.effective(&format!("{KEY_PREFIX}{name}"));
        standing.map_or(*begin, |standing| standing.number().unwrap())
    });
    sysctls.collect()
}

/// Holds the two beside each other for many files. `marks` are the files by which we know who reads at boot.
fn compare_with_program(program: &str, command: &str, marks: &[&str]) {
    let root = fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root || !Path::new(program).exists() || !Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() {
        return keepstate_test_support::report_skipped(&format!(
            "comparing with {program} needs root, {program} and connection tracking in the kernel"
        ));
    }
    let begin = observed("true");
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let decoded = runner.run(&prop::collection::vec(line(), 0..7), |lines| {
        let image = tempfile::tempdir().unwrap();
        for path in marks.iter().copied().chain(["sys/module/nf_conntrack/version"]) {
            fs::create_dir_all(image.path().join(path).parent().unwrap()).unwrap();
            fs::write(image.path().join(path), "").unwrap();
        }
        let file = image.path().join("etc/sysctl.d/a.conf");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, lines.concat()).unwrap();
        let observed = observed(&format!("{command} {}", file.display()));
        prop_assert_eq!(predicted(image.path(), &begin), observed, "{}", lines.concat());
        Ok(())
    });
    decoded.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn prediction_matches_systemd_sysctl() {
    compare_with_program(SYSTEMD, SYSTEMD, &["usr/lib/systemd/systemd"]);
}

#[test]
fn prediction_matches_procps_sysctl() {
    let program = ["/usr/sbin/sysctl", "/sbin/sysctl"].into_iter().find(|path| Path::new(path).exists());
    let program = program.unwrap_or("/usr/sbin/sysctl");
    compare_with_program(program, &format!("{program} -p"), &["etc/init.d/procps"]);
}
