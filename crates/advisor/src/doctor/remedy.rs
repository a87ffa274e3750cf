//! Steps that several findings share.
use super::finding::{Place, Step};
use super::observations::{Namespace, Observations};
use crate::quantity::{Bytes, Count};

/// Octets a connection takes: the object of a recent kernel, 256, and its extensions, 128. The price told with a larger table.
pub const CONNECTION: u64 = 384;

/// Octets a bucket takes.
pub const BUCKET: u64 = 8;

/// A limit with room: the next power of two above twice what is there, and above what was not enough.
pub fn roomy(space: &Namespace) -> u64 {
    let count = space.count.as_ref().map_or(0, |count| count.value);
    let wanted = count.saturating_mul(2).max(space.max().unwrap_or(0).saturating_add(1));
    wanted.clamp(1024, 1 << 30).next_power_of_two()
}

/// What a full table of this limit costs, in words.
pub fn cost(limit: u64) -> String {
    let octets = limit.saturating_mul(CONNECTION + BUCKET);
    format!("{} entries cost up to {} of memory", Count(limit), Bytes(octets))
}

/// Where machine-wide knobs are set: here, if they can be written here or nothing shows that they cannot; else on the host.
pub fn owner(seen: &Observations) -> Place {
    let max = |space: &Namespace| space.knobs.get("nf_conntrack_max").and_then(|knob| knob.is_writable);
    if seen.namespaces.iter().any(|space| space.is_initial == Some(true) && max(space) != Some(false)) {
        return Place::Here;
    }
    let is_elsewhere = seen.namespaces.iter().any(|space| space.is_initial == Some(false));
    if is_elsewhere || seen.machine.container.is_some() { Place::Host } else { Place::Here }
}

/// Where something about one namespace is done.
pub fn inside(space: &Namespace) -> Place {
    if space.is_initial == Some(true) || space.is_ours { Place::Here } else { Place::Inside(space.name.clone()) }
}

/// Larger now: limit and buckets together.
pub fn raise(seen: &Observations, limit: u64) -> Step {
    Step::run(
        owner(seen),
        format!("sysctl -w net.netfilter.nf_conntrack_buckets={limit} net.netfilter.nf_conntrack_max={limit}"),
        format!("limit and buckets together; {}", cost(limit)),
    )
}

/// Larger at every boot.
pub fn raise_for_good(seen: &Observations, limit: u64) -> Step {
    Step::run(owner(seen), tune(&format!("--max {limit}")), "writes the files, reads the knobs back, and can be undone")
}

/// A knob, now.
pub fn set(at: Place, knob: &str, value: u64, why: &str) -> Step {
    Step::run(at, format!("sysctl -w net.netfilter.{knob}={value}"), why)
}

/// A knob, at every boot.
pub fn set_for_good(at: Place, knob: &str, value: u64, why: &str) -> Step {
    Step::run(at, tune(&format!("--set {knob}={value}")), why)
}

/// The command that changes knobs for good.
pub fn tune(what: &str) -> String {
    format!("keepstate tune apply --persist {what}")
}

/// The command that keeps a port untracked, in both directions.
pub fn untrack(protocol: &str, port: &str) -> String {
    format!("keepstate disable --ports {protocol}/{port} --apply")
}
