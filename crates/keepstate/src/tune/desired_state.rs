//! From options to a goal: what was asked for, and what follows from a demand.
use super::PlanArgs;
use crate::size::gather;
use anyhow::Result;
use keepstate_advisor::size::{self, Workload};
use keepstate_advisor::tune::{BUCKETS, CurrentState, DesiredState, DesiredSysctl, MAX};
use keepstate_advisor::units::Count;
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_engine::{Sysctl, Sysctls};
use keepstate_linux::SysRoot;

/// What is wanted.
///
/// # Errors
/// What of the machine cannot be read.
pub(super) fn build(wanted: &PlanArgs, root: &SysRoot, situation: &CurrentState) -> Result<DesiredState> {
    let mut goal = DesiredState { force: wanted.force, ..DesiredState::default() };
    let present = |key: &str| situation.sysctls.get(key).and_then(|present| present.value);
    if wanted.demand.is_given() {
        let demand = wanted.demand.demand();
        goal.keepalive = wanted.demand.keepalive();
        let mut machine = gather::read_machine(root)?;
        machine.memory = wanted.memory.unwrap_or(machine.memory);
        let advice = size::size(&Workload::Demand(demand), &machine);
        // A limit that is large enough stays: a place that is not used costs nothing.
        if present(MAX).is_none_or(|max| max < advice.max.value) {
            add_sysctl(&mut goal, MAX, advice.max.value, advice.max.why);
        }
        if present(BUCKETS).is_none_or(|buckets| buckets < advice.buckets.value) {
            add_sysctl(&mut goal, BUCKETS, advice.buckets.value, advice.buckets.why);
        }
        for timeout in advice.timeouts.into_iter().filter(|timeout| timeout.present != timeout.advised) {
            add_sysctl(&mut goal, &format!("net.netfilter.{}", timeout.knob), timeout.advised, timeout.why);
        }
    }
    for setting in &wanted.settings {
        let mut knobs = Sysctls::default();
        sysctl::apply_setting(setting, &mut knobs)?;
        let name = setting.split_once('=').map_or("", |(key, _)| key).trim();
        if let Some(knob) = Sysctl::from_name(name) {
            add_sysctl(
                &mut goal,
                &format!("net.netfilter.{}", knob.name()),
                knobs[knob].into(),
                "asked for with --set".into(),
            );
        }
    }
    if let Some(max) = wanted.max {
        add_sysctl(&mut goal, MAX, max, "asked for with --max".into());
    }
    if let Some(buckets) = wanted.buckets {
        add_sysctl(&mut goal, BUCKETS, buckets, "asked for with --buckets".into());
    }
    buckets_follow_max(&mut goal, present(BUCKETS), situation);
    Ok(goal)
}

/// Buckets follow a limit that grows, where nobody said otherwise and they can be set here.
fn buckets_follow_max(goal: &mut DesiredState, buckets: Option<u64>, situation: &CurrentState) {
    let Some(max) = goal.sysctls.get(MAX).map(|wish| wish.value) else { return };
    let settable = situation.sysctls.get(BUCKETS).is_some_and(|present| present.writable);
    if settable && !goal.sysctls.contains_key(BUCKETS) && buckets.is_some_and(|buckets| buckets < max) {
        let why = format!(
            "as many as the limit of {}: each connection is entered twice, so lists of two when it is full",
            Count(max)
        );
        add_sysctl(goal, BUCKETS, max, why);
    }
}

fn add_sysctl(goal: &mut DesiredState, key: &str, value: u64, why: String) {
    goal.sysctls.insert(key.to_owned(), DesiredSysctl { value, why });
}
