//! What is lost elsewhere, and what cannot be seen at all.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{NicLimitCounter, Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use crate::units::Count;

/// What this family knows.
pub const RULES: &[DoctorRule] = &[
    DoctorRule {
        name: "cloud-limit-exceeded",
        number: 23,
        title: "the cloud's own connection tracking drops packets, outside this machine",
        explains: &[],
        check: cloud_limit_exceeded,
    },
    DoctorRule {
        name: "no-statistics",
        number: 24,
        title: "this kernel shows no statistics of connection tracking",
        explains: &[],
        check: no_statistics,
    },
];

/// The counter that is about connections; others (`pps_`, `bw_in_`) are about how much goes through.
const CONNTRACK_ALLOWANCE_COUNTER: &str = "conntrack_allowance_exceeded";

fn cloud_limit_exceeded(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(devices) = &seen.nic_limits else { return Vec::new() };
    let judge = |device: &NicLimitCounter| {
        (device.counter == CONNTRACK_ALLOWANCE_COUNTER && device.packets > 0).then(|| {
            rule.finding(Severity::Warning, Certainty::Certain)
                .evidence(&format!("{} of {}", device.counter, device.interface), format!("{} packets since boot", Count(device.packets)), &devices.source)
                .meaning("The instance has more connections than its type allows, counted outside: this machine's table may be healthy, and packets are lost all the same.")
                .now(RemedyStep::command(
                    StepLocation::Here,
                    format!("ethtool -S {} | grep {CONNTRACK_ALLOWANCE_COUNTER}", device.interface),
                    "does it still grow? Then new connections are being lost now",
                ))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the cloud".into()), "a larger instance type; security groups that allow all traffic both ways are not tracked"))
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("clients and servers".into()),
                    "keepalives below the cloud's idle timeout (350 s on recent AWS instances)",
                ))
        })
    };
    devices.value.iter().filter_map(judge).collect()
}

fn no_statistics(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &ObservedNamespace| {
        let count = space.count.as_ref()?;
        if space.counters.is_some() || !space.lacks_statistics {
            return None;
        }
        Some(
            rule.finding(Severity::Warning, Certainty::Certain)
                .in_namespace(&space.name)
                .evidence("entries", Count(count.value), &count.source)
                .evidence("counters", "there is no such file", "/proc/net/stat/nf_conntrack")
                .meaning("The kernel was built without CONFIG_NF_CONNTRACK_PROCFS. Drops happen unseen by what reads that file, node_exporter among it.")
                .now(RemedyStep::command(remedy::namespace_location(space), "keepstate conntrack -S", "the same counters, asked for by ctnetlink"))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the monitoring".into()), "let it read the counters by ctnetlink")),
        )
    };
    // One kernel has it or has it not: told once.
    seen.namespaces.iter().find_map(judge).into_iter().collect()
}
