//! What to change of a connection table's knobs, from what is wanted and what is there.
//!
//! A [`Goal`] and a [`Situation`] go in, a [`Plan`] comes out: every change with its reason, its cost and its risk; what cannot be done, and why.
//! A plan changes nothing. It never flushes, never lowers the limit under what is in the table (unless it is told to), and never chooses an established
//! timeout that a living connection could outlast.

use crate::kernel_constants::{BUCKET_BYTES, BUCKETS_PER_PAGE, MIN_ESTABLISHED_TIMEOUT};
use crate::units::{Bytes, Count, Seconds};
use serde::Serialize;
use std::collections::BTreeMap;

/// The limit, by its key.
pub const MAX: &str = "net.netfilter.nf_conntrack_max";
/// The buckets.
pub const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
/// The timeout of established connections.
pub const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
/// How many there are.
pub const COUNT: &str = "net.netfilter.nf_conntrack_count";

/// One wish: a knob's value, and who wishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSysctl {
    /// The value.
    pub value: u64,
    /// Why, in a sentence.
    pub why: String,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Knobs, by their canonical keys.
    pub sysctls: BTreeMap<String, DesiredSysctl>,
    /// The longest silence of a living connection, in seconds, if it is known.
    pub keepalive: Option<u64>,
    /// Lower the limit under the present count all the same.
    pub force: bool,
}

/// A knob as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentSysctl {
    /// Its value, if it is a number.
    pub value: Option<u64>,
    /// May it be written here?
    pub writable: bool,
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentState {
    /// Knobs that exist, by their canonical keys.
    pub sysctls: BTreeMap<String, CurrentSysctl>,
    /// Connections in the table.
    pub count: Option<u64>,
    /// Octets of one connection.
    pub object_size: u64,
}

/// One change of a knob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SysctlChange {
    /// The knob's key.
    pub key: String,
    /// Its value now.
    pub before: Option<u64>,
    /// Its value then.
    pub after: u64,
    /// Why.
    pub why: String,
    /// What it costs.
    pub cost: String,
    /// What may go wrong.
    pub risk: String,
}

/// What to do, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TunePlan {
    /// Changes, in the order in which they are to be made.
    pub changes: Vec<SysctlChange>,
    /// Knobs that are as they are wanted.
    pub unchanged: BTreeMap<String, u64>,
    /// What forbids the plan.
    pub refusals: Vec<String>,
    /// What to know before it is carried out.
    pub warnings: Vec<String>,
}

/// Plans what leads from `situation` to `goal`.
///
/// ```
/// use keepstate_advisor::tune::{Goal, MAX, Present, Situation, Wish, plan};
/// let mut goal = Goal::default();
/// goal.wishes.insert(MAX.into(), Wish { value: 1_048_576, why: "a million clients".into() });
/// let mut situation = Situation { object: 256, count: Some(65_536), ..Situation::default() };
/// situation.knobs.insert(MAX.into(), Present { value: Some(65_536), writable: true });
/// let plan = plan(&goal, &situation);
/// assert_eq!(plan.changes[0].cost, "240 MiB more when it is full");
/// assert!(plan.refusals.is_empty());
/// ```
pub fn plan(goal: &DesiredState, situation: &CurrentState) -> TunePlan {
    let mut plan = TunePlan::default();
    for (key, wish) in &goal.sysctls {
        plan_sysctl(&mut plan, goal, situation, key, wish);
    }
    check_established(&mut plan, goal, situation);
    check_buckets(&mut plan, goal, situation);
    let grows = |change: &SysctlChange| change.before.is_none_or(|before| change.after >= before);
    // Buckets before a limit that grows, behind one that shrinks: the lists stay short all the way.
    plan.changes.sort_by_key(|change| match (change.key.as_str(), grows(change)) {
        (BUCKETS, true) => 0,
        (MAX, _) => 1,
        (BUCKETS, false) => 2,
        _ => 3,
    });
    plan
}

fn plan_sysctl(plan: &mut TunePlan, goal: &DesiredState, situation: &CurrentState, key: &str, wish: &DesiredSysctl) {
    let Some(present) = situation.sysctls.get(key) else {
        plan.refusals.push(format!(
            "{key} does not exist here: the module nf_conntrack is not loaded (modprobe nf_conntrack), or this kernel has no such knob"
        ));
        return;
    };
    let after = if key == BUCKETS { wish.value.next_multiple_of(BUCKETS_PER_PAGE) } else { wish.value };
    if present.value == Some(after) {
        plan.unchanged.insert(key.to_owned(), after);
        return;
    }
    if !present.writable {
        plan.refusals.push(format!(
            "{key} can only be read here: it belongs to the host's initial network namespace. Set it there: sysctl -w {key}={after}"
        ));
        return;
    }
    if key == MAX {
        check_max(plan, goal, situation, after);
    }
    plan.changes.push(SysctlChange {
        key: key.to_owned(),
        before: present.value,
        after,
        why: wish.why.clone(),
        cost: cost(key, present.value, after, situation.object_size),
        risk: risk(key, present.value, after).to_owned(),
    });
}

/// The limit is not lowered under what is there.
fn check_max(plan: &mut TunePlan, goal: &DesiredState, situation: &CurrentState, after: u64) {
    if after == 0 {
        plan.warnings
            .push(format!("{MAX}=0 is no limit at all on kernels up to 6.18: the table grows until memory ends"));
    } else if let Some(count) = situation.count.filter(|count| *count > after) {
        let what = format!(
            "{} connections are in the table, and {MAX}={} is fewer: every new one would be dropped until so many have ended",
            Count(count),
            Count(after)
        );
        if goal.force {
            plan.warnings.push(what)
        } else {
            plan.refusals.push(format!("{what}. --force does it all the same"))
        }
    }
}

/// An established connection that says nothing for a while must outlive the silence.
fn check_established(plan: &mut TunePlan, goal: &DesiredState, situation: &CurrentState) {
    let wished = goal.sysctls.get(ESTABLISHED).map(|wish| wish.value);
    let present = situation.sysctls.get(ESTABLISHED).and_then(|present| present.value);
    let Some(timeout) = wished.or(present) else { return };
    let silence = goal.keepalive.map(|keepalive| keepalive.saturating_add(keepalive / 2));
    match silence {
        Some(silence) if timeout <= silence => plan.warnings.push(format!(
            "{ESTABLISHED}={timeout} ({}) ends connections that live: with this keepalive one may be silent for {}. Set it above that",
            Seconds(timeout),
            Seconds(silence)
        )),
        _ if wished.is_some_and(|wished| wished < MIN_ESTABLISHED_TIMEOUT) => plan.warnings.push(format!(
            "{ESTABLISHED}={timeout} ({}) is less than RFC 5382 allows, {}: idle connections are forgotten, and behind NAT they are cut",
            Seconds(timeout),
            Seconds(MIN_ESTABLISHED_TIMEOUT)
        )),
        _ => (),
    }
}

/// Lists grow long where the limit was raised and the buckets were not.
fn check_buckets(plan: &mut TunePlan, goal: &DesiredState, situation: &CurrentState) {
    let after = |key: &str| {
        let changed = plan.changes.iter().find(|change| change.key == key).map(|change| change.after);
        changed.or_else(|| situation.sysctls.get(key).and_then(|present| present.value))
    };
    if let (Some(max), Some(buckets)) = (after(MAX), after(BUCKETS))
        && buckets > 0
        && max / buckets >= 4
        && goal.sysctls.contains_key(MAX)
    {
        plan.warnings.push(format!(
            "{} connections over {} buckets make lists of {} entries on average: set {BUCKETS} to about the limit",
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
    let when = if key == MAX { " when it is full" } else { ", taken at once" };
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
        (MAX, true) => "kernel memory that no container's limit counts",
        (MAX, false) => "new connections are dropped sooner",
        (BUCKETS, _) => "the table is moved under its locks: packets wait for some milliseconds a million entries",
        (ESTABLISHED, false) => "a connection that is silent for longer is forgotten",
        (_, false) if key.contains("timeout") => "what is slower than this is forgotten",
        (_, true) if key.contains("timeout") => "what is dead stays for longer",
        _ => "packets are judged differently from now on",
    }
}

#[cfg(test)]
mod tests;
