//! The doctor: from observations to ranked findings, each with evidence and remedies.
//!
//! A rule is a name, a title and a function from [`Observations`] to findings; related rules share a file, and [`RULES`] lists them
//! all. [`diagnose`] runs each, hides findings that are consequences of others, and ranks the rest. Nothing here changes anything,
//! and a missing input never counts as healthy.
mod boot;
mod cluster;
mod composition;
mod finding;
mod flood;
mod helpers;
mod insertion;
mod invalid;
mod memory;
mod nat;
mod nat_rules;
mod nic_limits;
mod observations;
mod observed_shard;
mod remedy;
mod rule;
mod sample_stats;
mod stale_nat;
mod sysctl_writers;
mod table_choice;
mod table_full;
mod unlisted;

pub use finding::{Certainty, Evidence, Finding, RemedyStep, Severity, StepLocation};
pub use observations::*;
pub use observed_shard::ObservedShard;
pub use rule::DoctorRule;
pub use sample_stats::SampleStats;
pub use table_choice::table_choices;

use serde::Serialize;
use std::cmp::Reverse;

/// Every rule; of findings of equal severity and certainty the earlier rule's comes first.
pub const RULES: &[&[DoctorRule]] = &[
    cluster::RULES,
    unlisted::RULES,
    table_full::RULES,
    insertion::RULES,
    nat::RULES,
    stale_nat::RULES,
    nic_limits::RULES,
    invalid::RULES,
    composition::RULES,
    sysctl_writers::RULES,
    boot::RULES,
    memory::RULES,
    helpers::RULES,
];

/// The diagnosis of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The worst finding.
    pub status: HealthStatus,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
}

/// The overall status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// Nothing is wrong, and enough was seen to say so.
    Ok,
    /// Something should be changed.
    Warning,
    /// Packets or connections are being lost.
    Critical,
    /// Too little was seen to say that nothing is wrong.
    Unknown,
}

impl HealthStatus {
    /// The exit code, as monitoring plugins use it.
    pub const fn exit_code(self) -> u8 {
        match self {
            HealthStatus::Ok => 0,
            HealthStatus::Warning => 1,
            HealthStatus::Critical => 2,
            HealthStatus::Unknown => 3,
        }
    }
}

/// Runs every rule and ranks the findings.
pub fn diagnose(seen: &Observations) -> Report {
    let mut found: Vec<(&DoctorRule, Finding)> = Vec::new();
    for rule in RULES.iter().copied().flatten() {
        found.extend((rule.check)(rule, seen).into_iter().map(|finding| (rule, finding)));
    }
    // The sort is stable: rules keep their order among equals.
    found.sort_by_key(|(_, finding)| Reverse((finding.severity, finding.certainty)));
    let follows: Vec<bool> =
        found.iter().map(|(_, finding)| found.iter().any(|(rule, root)| explains(rule, root, finding))).collect();
    let mut findings = Vec::new();
    for ((rule, finding), follows) in found.iter().zip(&follows) {
        if *follows {
            continue;
        }
        let mut finding = finding.clone();
        for (_, other) in &found {
            if explains(rule, &finding, other) && !finding.explains.contains(&other.name) {
                finding.explains.push(other.name);
            }
        }
        findings.push(finding);
    }
    Report { status: overall_status(seen, &findings), findings }
}

/// Is `other` a consequence of `root`? They are about the same namespace, or one is about the whole machine.
fn explains(rule: &DoctorRule, root: &Finding, other: &Finding) -> bool {
    let same = root.namespace.is_none() || other.namespace.is_none() || root.namespace == other.namespace;
    same && rule.explains.contains(&other.name)
}

fn overall_status(seen: &Observations, findings: &[Finding]) -> HealthStatus {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Critical) => HealthStatus::Critical,
        Some(Severity::Warning) => HealthStatus::Warning,
        None if has_enough_input(seen) => HealthStatus::Ok,
        None => HealthStatus::Unknown,
    }
}

/// Was enough seen to say that nothing is wrong: count and limit of a namespace, or that tracking is not loaded?
fn has_enough_input(seen: &Observations) -> bool {
    let judged = seen.namespaces.iter().any(|space| space.count.is_some() && space.max().is_some());
    let absent = seen.machine.module.as_ref().is_some_and(|module| !module.value.is_loaded && !module.value.is_builtin);
    judged || absent
}

#[cfg(test)]
mod tests;
