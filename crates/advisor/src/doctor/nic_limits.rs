//! Losses outside this machine, and missing statistics.
use super::finding::{Certainty, Finding, RemedyStep, Severity, StepLocation};
use super::observations::{NicLimitCounter, Observations, ObservedNamespace};
use super::remedy;
use super::rule::DoctorRule;
use crate::units::Count;

/// The rules of this file.
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
        title: "this kernel has no /proc statistics of connection tracking",
        explains: &[],
        check: no_statistics,
    },
];

/// The counter of connections; others (`pps_`, `bw_in_`) are about packets and bandwidth.
const CONNTRACK_ALLOWANCE_COUNTER: &str = "conntrack_allowance_exceeded";

fn cloud_limit_exceeded(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let Some(devices) = &seen.nic_limits else { return Vec::new() };
    let check = |device: &NicLimitCounter| {
        let is_news = device.packets > 0 && device.growth != Some(0);
        (device.counter == CONNTRACK_ALLOWANCE_COUNTER && is_news).then(|| {
            let (certainty, when) = match device.growth {
                Some(growth) => (Certainty::Certain, format!("{} in the interval", Count(growth))),
                None => (Certainty::Likely, "read once, so it may be long ago".to_owned()),
            };
            let value = format!("{} packets since boot, {when}", Count(device.packets));
            rule.finding(Severity::Warning, certainty)
                .evidence(&format!("{} of {}", device.counter, device.interface), value, &devices.source)
                .meaning("The instance has more connections than its type allows. The cloud counts and drops them outside this machine, whatever its own table looks like.")
                .now(RemedyStep::command(
                    StepLocation::Here,
                    format!("ethtool -S {} | grep {CONNTRACK_ALLOWANCE_COUNTER}", device.interface),
                    "run it twice: if the counter grows, connections are being lost now",
                ))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the cloud".into()), "use a larger instance type, or security groups that allow all traffic both ways (these are not tracked)"))
                .for_good(RemedyStep::manual(
                    StepLocation::Elsewhere("clients and servers".into()),
                    "use keepalives shorter than the cloud's idle timeout (350 s on recent AWS instances)",
                ))
        })
    };
    devices.value.iter().filter_map(check).collect()
}

fn no_statistics(rule: &DoctorRule, seen: &Observations) -> Vec<Finding> {
    let check = |space: &ObservedNamespace| {
        let count = space.count.as_ref()?;
        if space.counters.is_some() || !space.lacks_statistics {
            return None;
        }
        Some(
            rule.finding(Severity::Warning, Certainty::Certain)
                .in_namespace(&space.name)
                .evidence("entries", Count(count.value), &count.source)
                .evidence("counters", "file does not exist", "/proc/net/stat/nf_conntrack")
                .meaning("The kernel was built without CONFIG_NF_CONNTRACK_PROCFS. Programs that read this file, like node_exporter, see no drops.")
                .now(RemedyStep::command(remedy::namespace_location(space), "keepstate conntrack -S", "shows the same counters, read by ctnetlink"))
                .for_good(RemedyStep::manual(StepLocation::Elsewhere("the monitoring".into()), "read the counters by ctnetlink")),
        )
    };
    // It is a property of the kernel: reported once.
    seen.namespaces.iter().find_map(check).into_iter().collect()
}
