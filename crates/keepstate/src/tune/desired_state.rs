//! From options to the desired state: what was asked for, and what follows from a demand.
use super::args::PlanArgs;
use crate::size::gather;
use anyhow::Result;
use keepstate_advisor::size::{self, Workload};
use keepstate_advisor::tune::{BUCKETS, CurrentState, DesiredState, DesiredSysctl, MAX};
use keepstate_advisor::units::Count;
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_engine::{Sysctl, Sysctls};
use keepstate_linux::SysRoot;

/// The desired sysctls.
///
/// # Errors
/// If the machine cannot be read.
pub fn build(wanted: &PlanArgs, root: &SysRoot, current: &CurrentState) -> Result<DesiredState> {
    let mut desired = DesiredState { force: wanted.force, ..DesiredState::default() };
    let present = |key: &str| current.sysctls.get(key).and_then(|present| present.value);
    if wanted.demand.is_given() {
        let demand = wanted.demand.demand();
        desired.keepalive = wanted.demand.keepalive();
        let mut machine = gather::read_machine(root)?;
        machine.memory = wanted.memory.unwrap_or(machine.memory);
        let advice = size::size(&Workload::Demand(demand), &machine);
        // A limit that is large enough stays: unused entries cost no memory.
        if present(MAX).is_none_or(|max| max < advice.max.value) {
            add_sysctl(&mut desired, MAX, advice.max.value, advice.max.why);
        }
        if present(BUCKETS).is_none_or(|buckets| buckets < advice.buckets.value) {
            add_sysctl(&mut desired, BUCKETS, advice.buckets.value, advice.buckets.why);
        }
        for timeout in advice.timeouts.into_iter().filter(|timeout| timeout.present != timeout.advised) {
            add_sysctl(&mut desired, &format!("net.netfilter.{}", timeout.knob), timeout.advised, timeout.why);
        }
    }
    for setting in &wanted.settings {
        let mut sysctls = Sysctls::default();
        sysctl::apply_setting(setting, &mut sysctls)?;
        let name = setting.split_once('=').map_or("", |(key, _)| key).trim();
        if let Some(known) = Sysctl::from_name(name) {
            add_sysctl(
                &mut desired,
                &format!("net.netfilter.{}", known.name()),
                sysctls[known].into(),
                "set with --set".into(),
            );
        }
    }
    if let Some(max) = wanted.max {
        add_sysctl(&mut desired, MAX, max, "set with --max".into());
    }
    if let Some(buckets) = wanted.buckets {
        add_sysctl(&mut desired, BUCKETS, buckets, "set with --buckets".into());
    }
    buckets_follow_max(&mut desired, present(BUCKETS), current);
    Ok(desired)
}

/// The buckets grow with the limit, unless they are set by an option or cannot be set here.
fn buckets_follow_max(desired: &mut DesiredState, buckets: Option<u64>, current: &CurrentState) {
    let Some(max) = desired.sysctls.get(MAX).map(|sysctl| sysctl.value) else { return };
    let settable = current.sysctls.get(BUCKETS).is_some_and(|present| present.writable);
    if settable && !desired.sysctls.contains_key(BUCKETS) && buckets.is_some_and(|buckets| buckets < max) {
        let why = format!(
            "one bucket per connection of the limit of {}: chains average two entries when the table is full",
            Count(max)
        );
        add_sysctl(desired, BUCKETS, max, why);
    }
}

fn add_sysctl(desired: &mut DesiredState, key: &str, value: u64, why: String) {
    desired.sysctls.insert(key.to_owned(), DesiredSysctl { value, why });
}
