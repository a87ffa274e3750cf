//! The knobs are those of the running kernel: no more, no fewer, and by their own defaults.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::report_skipped;
use keepstate_engine::{Sysctl, Sysctls};
use std::collections::BTreeMap;
use std::process::Command;

/// What a new network namespace of the running kernel has; `None`, loudly, where it cannot be asked or is another kernel.
fn kernel_sysctls() -> Option<BTreeMap<String, u32>> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let asked = Command::new("unshare")
        .args(["--net", "sh", "-c", "cd /proc/sys/net/netfilter && grep -H . nf_conntrack_*"])
        .output()
        .ok()
        .filter(|output| output.status.success() && release.starts_with("6.18."));
    let Some(output) = asked else {
        report_skipped(&format!("the knobs of Linux 6.18 (needs root, unshare and that kernel; this is {release})"));
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    Some(
        text.lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.into(), value.parse().unwrap()))
            .collect(),
    )
}

#[test]
fn every_kernel_sysctl_exists_with_its_default() {
    let Some(kernel) = kernel_sysctls() else { return };
    let ours: BTreeMap<String, u32> =
        Sysctl::ALL.iter().map(|knob| (knob.name().to_string(), Sysctls::default()[*knob])).collect();
    assert_eq!(kernel.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    // These three follow the machine's memory, or were set by somebody: `Sysctls::as_linux`.
    let sized = ["nf_conntrack_buckets", "nf_conntrack_expect_max", "nf_conntrack_max"];
    for (name, value) in kernel {
        assert!(
            sized.contains(&name.as_str()) || ours[&name] == value,
            "{name}: {value} in the kernel, {} here",
            ours[&name]
        );
    }
}

#[test]
fn out_of_range_value_is_rejected_with_the_range() {
    let mut knobs = Sysctls::default();
    let refused = |knobs: &mut Sysctls, knob, value| knobs.set(knob, value).unwrap_err().to_string();
    assert_eq!(refused(&mut knobs, Sysctl::TcpLoose, 2), "nf_conntrack_tcp_loose takes 0 to 1, not 2");
    assert_eq!(
        refused(&mut knobs, Sysctl::UdpTimeout, 8_589_935),
        "nf_conntrack_udp_timeout takes 0 to 8589934, not 8589935"
    );
    assert_eq!(refused(&mut knobs, Sysctl::Count, 1), "nf_conntrack_count can only be read");
    assert_eq!(knobs, Sysctls::default(), "what was refused changed nothing");
    knobs.set(Sysctl::UdpTimeout, 8_589_934).unwrap();
    assert_eq!(knobs[Sysctl::UdpTimeout], 8_589_934);
}
