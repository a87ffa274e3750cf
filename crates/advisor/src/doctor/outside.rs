//! What is lost elsewhere, and what cannot be seen at all.
use super::finding::{Certainty, Finding, Severity, Step};
use super::observations::{Namespace, Observations};
use super::{Place, Rule, remedy};
use crate::quantity::Count;

/// What this family knows.
pub const RULES: &[Rule] = &[
    Rule {
        name: "cloud-limit-exceeded",
        number: 23,
        title: "the cloud's own connection tracking drops packets, outside this machine",
        explains: &[],
        judge: cloud,
    },
    Rule {
        name: "no-statistics",
        number: 24,
        title: "this kernel shows no statistics of connection tracking",
        explains: &[],
        judge: blind,
    },
];

/// The counter that is about connections; others (`pps_`, `bw_in_`) are about how much goes through.
const COUNTER: &str = "conntrack_allowance_exceeded";

fn cloud(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let Some(devices) = &seen.devices else { return Vec::new() };
    let judge = |device: &super::Device| {
        (device.name == COUNTER && device.packets > 0).then(|| {
            Finding::new(rule, Severity::Warning, Certainty::Certain)
                .seen(&format!("{} of {}", device.name, device.device), format!("{} packets since boot", Count(device.packets)), &devices.source)
                .means("The instance has more connections than its type allows, counted outside: this machine's table may be healthy, and packets are lost all the same.")
                .now(Step::run(
                    Place::Here,
                    format!("ethtool -S {} | grep {COUNTER}", device.device),
                    "does it still grow? Then new connections are being lost now",
                ))
                .for_good(Step::todo(Place::Elsewhere("the cloud".into()), "a larger instance type; security groups that allow all traffic both ways are not tracked"))
                .for_good(Step::todo(
                    Place::Elsewhere("clients and servers".into()),
                    "keepalives below the cloud's idle timeout (350 s on recent AWS instances)",
                ))
        })
    };
    devices.value.iter().filter_map(judge).collect()
}

fn blind(rule: &Rule, seen: &Observations) -> Vec<Finding> {
    let judge = |space: &Namespace| {
        let count = space.count.as_ref()?;
        if space.counters.is_some() || !space.lacks_statistics {
            return None;
        }
        Some(
            Finding::new(rule, Severity::Warning, Certainty::Certain)
                .inside(&space.name)
                .seen("entries", Count(count.value), &count.source)
                .seen("counters", "there is no such file", "/proc/net/stat/nf_conntrack")
                .means("The kernel was built without CONFIG_NF_CONNTRACK_PROCFS. Drops happen unseen by what reads that file, node_exporter among it.")
                .now(Step::run(remedy::inside(space), "keepstate conntrack -S", "the same counters, asked for by ctnetlink"))
                .for_good(Step::todo(Place::Elsewhere("the monitoring".into()), "let it read the counters by ctnetlink")),
        )
    };
    // One kernel has it or has it not: told once.
    seen.namespaces.iter().find_map(judge).into_iter().collect()
}
