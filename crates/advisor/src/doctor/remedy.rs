//! Remedy steps that several findings share.
use super::finding::{RemedyStep, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use crate::kernel_constants::{BUCKET_BYTES, ENTRY_BYTES};
use crate::units::{Bytes, Count};

/// A limit with headroom: the next power of two above twice the count, and above the current limit.
pub fn limit_with_headroom(space: &ObservedNamespace) -> u64 {
    let count = space.count.as_ref().map_or(0, |count| count.value);
    let wanted = count.saturating_mul(2).max(space.max().unwrap_or(0).saturating_add(1));
    wanted.clamp(1024, 1 << 30).next_power_of_two()
}

/// The memory of a full table of this limit, in words.
pub fn memory_cost(limit: u64) -> String {
    let bytes = limit.saturating_mul(ENTRY_BYTES + BUCKET_BYTES);
    format!("{} entries take up to {} of memory", Count(limit), Bytes(bytes))
}

/// Where machine-wide sysctls are set: here, unless they are read-only here; else on the host.
pub fn sysctl_location(seen: &Observations) -> StepLocation {
    let max = |space: &ObservedNamespace| space.sysctls.get("nf_conntrack_max").and_then(|knob| knob.is_writable);
    if seen.namespaces.iter().any(|space| space.is_initial == Some(true) && max(space) != Some(false)) {
        return StepLocation::Here;
    }
    let is_elsewhere = seen.namespaces.iter().any(|space| space.is_initial == Some(false));
    if is_elsewhere || seen.machine.container.is_some() { StepLocation::Host } else { StepLocation::Here }
}

/// Where a step about one namespace is taken.
pub fn namespace_location(space: &ObservedNamespace) -> StepLocation {
    if space.is_initial == Some(true) || space.is_ours {
        StepLocation::Here
    } else {
        StepLocation::Inside(space.name.clone())
    }
}

/// Raises limit and buckets now.
pub fn raise_limit(seen: &Observations, limit: u64) -> RemedyStep {
    let command = match are_buckets_a_parameter(seen) {
        true => format!("{}; sysctl -w net.netfilter.nf_conntrack_max={limit}", write_hashsize(limit)),
        false => format!("sysctl -w net.netfilter.nf_conntrack_buckets={limit} net.netfilter.nf_conntrack_max={limit}"),
    };
    let why = format!("raises limit and buckets together; {}", memory_cost(limit));
    RemedyStep::command(sysctl_location(seen), command, why)
}

/// Sets the number of buckets now.
pub fn set_buckets(seen: &Observations, buckets: u64, why: &str) -> RemedyStep {
    match are_buckets_a_parameter(seen) {
        true => RemedyStep::command(sysctl_location(seen), write_hashsize(buckets), why),
        false => set_sysctl(sysctl_location(seen), "nf_conntrack_buckets", buckets, why),
    }
}

/// Up to Linux 4.7 the sysctl of the buckets is read-only even where the limit can be written, and the module's parameter resizes the table.
fn are_buckets_a_parameter(seen: &Observations) -> bool {
    let is_writable = |space: &ObservedNamespace, name| space.sysctls.get(name).and_then(|knob| knob.is_writable);
    let only_max = |space: &ObservedNamespace| {
        is_writable(space, "nf_conntrack_max") == Some(true)
            && is_writable(space, "nf_conntrack_buckets") == Some(false)
    };
    seen.namespaces.iter().any(only_max)
}

fn write_hashsize(buckets: u64) -> String {
    format!("echo {buckets} > /sys/module/nf_conntrack/parameters/hashsize")
}

/// Loads the module, if it is not there: until then its sysctls do not exist, and cannot be set.
pub fn load_module(seen: &Observations) -> Option<RemedyStep> {
    let is_absent =
        seen.machine.module.as_ref().is_some_and(|module| !module.value.is_loaded && !module.value.is_builtin);
    is_absent.then(|| {
        let why = "the module is not loaded yet, and its sysctls do not exist before";
        RemedyStep::command(sysctl_location(seen), "modprobe nf_conntrack", why)
    })
}

/// Raises limit and buckets at every boot.
pub fn persist_limit(seen: &Observations, limit: u64) -> RemedyStep {
    RemedyStep::command(
        sysctl_location(seen),
        tune_command(&format!("--max {limit}")),
        "sets it now and at every boot; undo with keepstate tune rollback",
    )
}

/// Sets a sysctl now.
pub fn set_sysctl(at: StepLocation, knob: &str, value: u64, why: &str) -> RemedyStep {
    RemedyStep::command(at, format!("sysctl -w net.netfilter.{knob}={value}"), why)
}

/// Sets a sysctl at every boot.
pub fn persist_sysctl(at: StepLocation, knob: &str, value: u64, why: &str) -> RemedyStep {
    RemedyStep::command(at, tune_command(&format!("--set {knob}={value}")), why)
}

/// The command that sets sysctls persistently.
pub fn tune_command(what: &str) -> String {
    format!("keepstate tune apply --persist {what}")
}

/// The command that keeps a port untracked, in both directions.
pub fn notrack_command(protocol: &str, port: &str) -> String {
    format!("keepstate disable --ports {protocol}/{port} --apply")
}
