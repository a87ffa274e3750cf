//! The doctor: from what was seen to what is wrong, ranked, each with what to do.
//!
//! A rule is a name, a title and a function from [`Observations`] to findings; the families of rules are files of their own, and
//! [`RULES`] lists them all. [`examine`] asks each, hides what merely follows from something else, and ranks the rest. Nothing here
//! changes anything, and what was not seen is never taken for good.
mod boot;
mod census;
mod crowding;
mod finding;
mod full;
mod helpers;
mod insertion;
mod invalid;
mod memory;
mod nat;
mod observations;
mod outside;
mod owners;
mod remedy;

pub use census::Census;
pub use finding::{Certainty, Evidence, Finding, Place, Severity, Step};
pub use observations::*;

use serde::Serialize;
use std::cmp::Reverse;

/// A rule of the catalogue.
#[derive(Debug)]
pub struct Rule {
    /// The name of its findings.
    pub name: &'static str,
    /// The number of the failure in the catalogue.
    pub number: u8,
    /// What is wrong, in a line.
    pub title: &'static str,
    /// Findings, of the same namespace or the machine, that merely follow from this one.
    pub explains: &'static [&'static str],
    /// What it makes of what was seen.
    pub judge: fn(&Rule, &Observations) -> Vec<Finding>,
}

/// Every rule; of findings that are equally bad and equally sure the earlier rule's comes first.
pub const RULES: &[&[Rule]] = &[
    full::RULES,
    insertion::RULES,
    nat::RULES,
    outside::RULES,
    invalid::RULES,
    crowding::RULES,
    owners::RULES,
    boot::RULES,
    memory::RULES,
    helpers::RULES,
];

/// What the doctor makes of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The worst that was found.
    pub verdict: Verdict,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
}

/// One word for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong with what was seen, and enough was.
    Ok,
    /// Something wants to be changed.
    Warning,
    /// Something is being lost.
    Critical,
    /// Not enough was seen to say that nothing is wrong.
    Unknown,
}

impl Verdict {
    /// The exit code that monitoring understands.
    pub const fn exit_code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Warning => 1,
            Verdict::Critical => 2,
            Verdict::Unknown => 3,
        }
    }
}

/// What is wrong.
pub fn examine(seen: &Observations) -> Examination {
    let mut found: Vec<(&Rule, Finding)> = Vec::new();
    for rule in RULES.iter().copied().flatten() {
        found.extend((rule.judge)(rule, seen).into_iter().map(|finding| (rule, finding)));
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
    Examination { verdict: verdict(seen, &findings), findings }
}

/// Does one finding merely follow from another? They are about the same namespace, or one is about the whole machine.
fn explains(rule: &Rule, root: &Finding, other: &Finding) -> bool {
    let same = root.namespace.is_none() || other.namespace.is_none() || root.namespace == other.namespace;
    same && rule.explains.contains(&other.name)
}

fn verdict(seen: &Observations, findings: &[Finding]) -> Verdict {
    match findings.iter().map(|finding| finding.severity).max() {
        Some(Severity::Critical) => Verdict::Critical,
        Some(Severity::Warning) => Verdict::Warning,
        None if is_enough(seen) => Verdict::Ok,
        None => Verdict::Unknown,
    }
}

/// Was enough seen to say that nothing is wrong? Entries and limit of some namespace; or that there is no connection tracking.
fn is_enough(seen: &Observations) -> bool {
    let judged = seen.namespaces.iter().any(|space| space.count.is_some() && space.max().is_some());
    let absent = seen.machine.module.as_ref().is_some_and(|module| !module.value.is_loaded && !module.value.is_builtin);
    judged || absent
}

#[cfg(test)]
mod tests;
