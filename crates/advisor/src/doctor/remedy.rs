//! Steps that several findings share.
use super::finding::{RemedyStep, StepLocation};
use super::observations::{Observations, ObservedNamespace};
use crate::kernel_constants::{BUCKET_BYTES, ENTRY_BYTES};
use crate::units::{Bytes, Count};

/// A limit with room: the next power of two above twice what is there, and above what was not enough.
pub fn limit_with_headroom(space: &ObservedNamespace) -> u64 {
    let count = space.count.as_ref().map_or(0, |count| count.value);
    let wanted = count.saturating_mul(2).max(space.max().unwrap_or(0).saturating_add(1));
    wanted.clamp(1024, 1 << 30).next_power_of_two()
}

/// What a full table of this limit costs, in words.
pub fn memory_cost(limit: u64) -> String {
    let octets = limit.saturating_mul(ENTRY_BYTES + BUCKET_BYTES);
    format!("{} entries cost up to {} of memory", Count(limit), Bytes(octets))
}

/// Where machine-wide knobs are set: here, if they can be written here or nothing shows that they cannot; else on the host.
pub fn sysctl_location(seen: &Observations) -> StepLocation {
    let max = |space: &ObservedNamespace| space.sysctls.get("nf_conntrack_max").and_then(|knob| knob.is_writable);
    if seen.namespaces.iter().any(|space| space.is_initial == Some(true) && max(space) != Some(false)) {
        return StepLocation::Here;
    }
    let is_elsewhere = seen.namespaces.iter().any(|space| space.is_initial == Some(false));
    if is_elsewhere || seen.machine.container.is_some() { StepLocation::Host } else { StepLocation::Here }
}

/// Where something about one namespace is done.
pub fn namespace_location(space: &ObservedNamespace) -> StepLocation {
    if space.is_initial == Some(true) || space.is_ours {
        StepLocation::Here
    } else {
        StepLocation::Inside(space.name.clone())
    }
}

/// Larger now: limit and buckets together.
pub fn raise_limit(seen: &Observations, limit: u64) -> RemedyStep {
    RemedyStep::command(
        sysctl_location(seen),
        format!("sysctl -w net.netfilter.nf_conntrack_buckets={limit} net.netfilter.nf_conntrack_max={limit}"),
        format!("limit and buckets together; {}", memory_cost(limit)),
    )
}

/// Larger at every boot.
pub fn persist_limit(seen: &Observations, limit: u64) -> RemedyStep {
    RemedyStep::command(
        sysctl_location(seen),
        tune_command(&format!("--max {limit}")),
        "writes the files, reads the knobs back, and can be undone",
    )
}

/// A knob, now.
pub fn set_sysctl(at: StepLocation, knob: &str, value: u64, why: &str) -> RemedyStep {
    RemedyStep::command(at, format!("sysctl -w net.netfilter.{knob}={value}"), why)
}

/// A knob, at every boot.
pub fn persist_sysctl(at: StepLocation, knob: &str, value: u64, why: &str) -> RemedyStep {
    RemedyStep::command(at, tune_command(&format!("--set {knob}={value}")), why)
}

/// The command that changes knobs for good.
pub fn tune_command(what: &str) -> String {
    format!("keepstate tune apply --persist {what}")
}

/// The command that keeps a port untracked, in both directions.
pub fn notrack_command(protocol: &str, port: &str) -> String {
    format!("keepstate disable --ports {protocol}/{port} --apply")
}
