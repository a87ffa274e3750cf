//! Which sysctls to change, from the desired and the current state.
//!
//! A [`DesiredState`] and a [`CurrentState`] go in, a [`TunePlan`] comes out: every change with its reason, cost and risk, and every
//! refusal with its reason. A plan changes nothing. It never flushes, never lowers the limit below the current count unless forced,
//! and warns of an established timeout shorter than the silence of an open connection.

use crate::kernel_constants::{BUCKET_BYTES, BUCKETS_PER_PAGE, MIN_ESTABLISHED_TIMEOUT};
use crate::units::{Bytes, Count, Seconds};
use serde::Serialize;
use std::collections::BTreeMap;

/// The key of the limit.
pub const MAX: &str = "net.netfilter.nf_conntrack_max";
/// The key of the buckets.
pub const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
/// The key of the timeout of established connections.
pub const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
/// The key of the current number of connections.
pub const COUNT: &str = "net.netfilter.nf_conntrack_count";

/// The desired value of a sysctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSysctl {
    /// The value.
    pub value: u64,
    /// Why, in one sentence.
    pub why: String,
}

/// The desired state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Sysctls by their keys.
    pub sysctls: BTreeMap<String, DesiredSysctl>,
    /// The longest silence of an open connection in seconds, if known.
    pub keepalive: Option<u64>,
    /// Allow a limit below the current count.
    pub force: bool,
}

/// The current value of a sysctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSysctl {
    /// Its value, if it is a number.
    pub value: Option<u64>,
    /// Can it be written here?
    pub writable: bool,
}

/// The current state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentState {
    /// The existing sysctls by their keys.
    pub sysctls: BTreeMap<String, CurrentSysctl>,
    /// Connections in the table.
    pub count: Option<u64>,
    /// Bytes of one connection.
    pub object_size: u64,
}

/// The change of one sysctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SysctlChange {
    /// Its key.
    pub key: String,
    /// Its value now.
    pub before: Option<u64>,
    /// Its new value.
    pub after: u64,
    /// Why.
    pub why: String,
    /// Its cost.
    pub cost: String,
    /// Its risk.
    pub risk: String,
}

/// What to change, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TunePlan {
    /// Changes, in the order to make them.
    pub changes: Vec<SysctlChange>,
    /// Sysctls that have the desired value already.
    pub unchanged: BTreeMap<String, u64>,
    /// Reasons not to apply the plan.
    pub refusals: Vec<String>,
    /// What to know before applying it.
    pub warnings: Vec<String>,
}

/// Plans the changes from `current` to `desired`.
///
/// ```
/// use keepstate_advisor::tune::{CurrentState, CurrentSysctl, DesiredState, DesiredSysctl, MAX, plan};
/// let mut desired = DesiredState::default();
/// desired.sysctls.insert(MAX.into(), DesiredSysctl { value: 1_048_576, why: "a million clients".into() });
/// let mut current = CurrentState { object_size: 256, count: Some(65_536), ..CurrentState::default() };
/// current.sysctls.insert(MAX.into(), CurrentSysctl { value: Some(65_536), writable: true });
/// let plan = plan(&desired, &current);
/// assert_eq!(plan.changes[0].cost, "240 MiB more with a full table");
/// assert!(plan.refusals.is_empty());
/// ```
pub fn plan(desired: &DesiredState, current: &CurrentState) -> TunePlan {
    let mut plan = TunePlan::default();
    for (key, desired_sysctl) in &desired.sysctls {
        plan_sysctl(&mut plan, desired, current, key, desired_sysctl);
    }
    check_established(&mut plan, desired, current);
    check_buckets(&mut plan, desired, current);
    let grows = |change: &SysctlChange| change.before.is_none_or(|before| change.after >= before);
    // Buckets grow before the limit and shrink after it: the chains stay short all the way.
    plan.changes.sort_by_key(|change| match (change.key.as_str(), grows(change)) {
        (BUCKETS, true) => 0,
        (MAX, _) => 1,
        (BUCKETS, false) => 2,
        _ => 3,
    });
    plan
}

fn plan_sysctl(
    plan: &mut TunePlan,
    desired: &DesiredState,
    current: &CurrentState,
    key: &str,
    desired_sysctl: &DesiredSysctl,
) {
    let Some(found) = current.sysctls.get(key) else {
        plan.refusals.push(format!(
            "{key} does not exist here: nf_conntrack is not loaded (modprobe nf_conntrack), or this kernel does not have this sysctl"
        ));
        return;
    };
    let after =
        if key == BUCKETS { desired_sysctl.value.next_multiple_of(BUCKETS_PER_PAGE) } else { desired_sysctl.value };
    if found.value == Some(after) {
        plan.unchanged.insert(key.to_owned(), after);
        return;
    }
    if !found.writable {
        plan.refusals.push(format!(
            "{key} is read-only here: it can only be set in the host's initial network namespace. Run there: sysctl -w {key}={after}"
        ));
        return;
    }
    if key == MAX {
        check_max(plan, desired, current, after);
    }
    plan.changes.push(SysctlChange {
        key: key.to_owned(),
        before: found.value,
        after,
        why: desired_sysctl.why.clone(),
        cost: cost(key, found.value, after, current.object_size),
        risk: risk(key, found.value, after).to_owned(),
    });
}

/// The limit must not be below the current count.
fn check_max(plan: &mut TunePlan, desired: &DesiredState, current: &CurrentState, after: u64) {
    if after == 0 {
        plan.warnings.push(format!("{MAX}=0 means unlimited on kernels up to 6.18: the table can use all memory"));
    } else if let Some(count) = current.count.filter(|count| *count > after) {
        let what = format!(
            "the table holds {} connections, more than {MAX}={}: new connections would be dropped until enough have ended",
            Count(count),
            Count(after)
        );
        if desired.force {
            plan.warnings.push(what)
        } else {
            plan.refusals.push(format!("{what}. Use --force to set it anyway"))
        }
    }
}

/// The established timeout must be longer than the silence of an open connection.
fn check_established(plan: &mut TunePlan, desired: &DesiredState, current: &CurrentState) {
    let desired_value = desired.sysctls.get(ESTABLISHED).map(|sysctl| sysctl.value);
    let present = current.sysctls.get(ESTABLISHED).and_then(|present| present.value);
    let Some(timeout) = desired_value.or(present) else { return };
    let silence = desired.keepalive.map(|keepalive| keepalive.saturating_add(keepalive / 2));
    match silence {
        Some(silence) if timeout <= silence => plan.warnings.push(format!(
            "{ESTABLISHED}={timeout} ({}) is too short: with this keepalive an open connection may be silent for {}. Set it above that",
            Seconds(timeout),
            Seconds(silence)
        )),
        _ if desired_value.is_some_and(|value| value < MIN_ESTABLISHED_TIMEOUT) => plan.warnings.push(format!(
            "{ESTABLISHED}={timeout} ({}) is below the minimum of RFC 5382, {}: idle connections are forgotten, and broken behind NAT",
            Seconds(timeout),
            Seconds(MIN_ESTABLISHED_TIMEOUT)
        )),
        _ => (),
    }
}

/// Chains get long if the limit is raised and the buckets are not.
fn check_buckets(plan: &mut TunePlan, desired: &DesiredState, current: &CurrentState) {
    let after = |key: &str| {
        let changed = plan.changes.iter().find(|change| change.key == key).map(|change| change.after);
        changed.or_else(|| current.sysctls.get(key).and_then(|present| present.value))
    };
    if let (Some(max), Some(buckets)) = (after(MAX), after(BUCKETS))
        && buckets > 0
        && max / buckets >= 4
        && desired.sysctls.contains_key(MAX)
    {
        plan.warnings.push(format!(
            "{} connections in {} buckets make chains of {} entries on average: set {BUCKETS} to about the limit",
            Count(max),
            Count(buckets),
            2 * max / buckets
        ));
    }
}

fn cost(key: &str, before: Option<u64>, after: u64, object: u64) -> String {
    let of_each = match key {
        MAX => object,
        BUCKETS => BUCKET_BYTES,
        _ => return "none".to_owned(),
    };
    let when = if key == MAX { " with a full table" } else { ", allocated at once" };
    let before = before.unwrap_or(0);
    if after >= before {
        format!("{} more{when}", Bytes((after - before).saturating_mul(of_each)))
    } else {
        format!("{} less{when}", Bytes((before - after).saturating_mul(of_each)))
    }
}

fn risk(key: &str, before: Option<u64>, after: u64) -> &'static str {
    let grows = before.is_none_or(|before| after >= before);
    match (key, grows) {
        (MAX, true) => "kernel memory, not counted by any container limit",
        (MAX, false) => "new connections are dropped earlier",
        (BUCKETS, _) => "the table is resized under its locks: packets wait a few milliseconds per million entries",
        (ESTABLISHED, false) => "connections that are silent for longer are forgotten",
        (_, false) if key.contains("timeout") => "slower connections are forgotten",
        (_, true) if key.contains("timeout") => "dead connections stay longer",
        _ => "changes how packets are tracked from now on",
    }
}

#[cfg(test)]
mod tests;
