//! From options to a goal: what was asked for, and what follows from a demand.
use super::Wanted;
use crate::size::observe;
use anyhow::Result;
use keepstate_advisor::quantity::Count;
use keepstate_advisor::size::{self, Need};
use keepstate_advisor::tune::{BUCKETS, Goal, MAX, Situation, Wish};
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_engine::{Knob, Knobs};
use keepstate_linux::Root;

/// What is wanted.
///
/// # Errors
/// What of the machine cannot be read.
pub(super) fn goal(wanted: &Wanted, root: &Root, situation: &Situation) -> Result<Goal> {
    let mut goal = Goal { force: wanted.force, ..Goal::default() };
    let present = |key: &str| situation.knobs.get(key).and_then(|present| present.value);
    if wanted.demand.is_given() {
        let demand = wanted.demand.demand();
        goal.keepalive = wanted.demand.keepalive();
        let mut machine = observe::machine(root)?;
        machine.memory = wanted.memory.unwrap_or(machine.memory);
        let advice = size::size(&Need::Demand(demand), &machine);
        // A limit that is large enough stays: a place that is not used costs nothing.
        if present(MAX).is_none_or(|max| max < advice.max.value) {
            wish(&mut goal, MAX, advice.max.value, advice.max.why);
        }
        if present(BUCKETS).is_none_or(|buckets| buckets < advice.buckets.value) {
            wish(&mut goal, BUCKETS, advice.buckets.value, advice.buckets.why);
        }
        for timeout in advice.timeouts.into_iter().filter(|timeout| timeout.present != timeout.advised) {
            wish(&mut goal, &format!("net.netfilter.{}", timeout.knob), timeout.advised, timeout.why);
        }
    }
    for setting in &wanted.settings {
        let mut knobs = Knobs::default();
        sysctl::set(setting, &mut knobs)?;
        let name = setting.split_once('=').map_or("", |(key, _)| key).trim();
        if let Some(knob) = Knob::named(name) {
            wish(
                &mut goal,
                &format!("net.netfilter.{}", knob.name()),
                knobs[knob].into(),
                "asked for with --set".into(),
            );
        }
    }
    if let Some(max) = wanted.max {
        wish(&mut goal, MAX, max, "asked for with --max".into());
    }
    if let Some(buckets) = wanted.buckets {
        wish(&mut goal, BUCKETS, buckets, "asked for with --buckets".into());
    }
    follow_max(&mut goal, present(BUCKETS), situation);
    Ok(goal)
}

/// Buckets follow a limit that grows, where nobody said otherwise and they can be set here.
fn follow_max(goal: &mut Goal, buckets: Option<u64>, situation: &Situation) {
    let Some(max) = goal.wishes.get(MAX).map(|wish| wish.value) else { return };
    let settable = situation.knobs.get(BUCKETS).is_some_and(|present| present.writable);
    if settable && !goal.wishes.contains_key(BUCKETS) && buckets.is_some_and(|buckets| buckets < max) {
        let why = format!(
            "as many as the limit of {}: each connection is entered twice, so lists of two when it is full",
            Count(max)
        );
        wish(goal, BUCKETS, max, why);
    }
}

fn wish(goal: &mut Goal, key: &str, value: u64, why: String) {
    goal.wishes.insert(key.to_owned(), Wish { value, why });
}
