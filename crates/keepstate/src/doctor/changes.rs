//! Changes between two diagnoses.
use keepstate_advisor::doctor::Finding;
use std::fmt;

/// A finding compared with the diagnosis before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingChange {
    /// It is new.
    New,
    /// Its severity or certainty changed.
    Changed,
    /// It is unchanged.
    Same,
}

impl fmt::Display for FindingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingChange::New => "new",
            FindingChange::Changed => "changed",
            FindingChange::Same => "same",
        })
    }
}

/// Compares a finding with those before.
pub fn compare_finding(finding: &Finding, before: &[Finding]) -> FindingChange {
    match before.iter().find(|other| is_same_finding(finding, other)) {
        None => FindingChange::New,
        Some(other) if (other.severity, other.certainty) != (finding.severity, finding.certainty) => {
            FindingChange::Changed
        }
        Some(_) => FindingChange::Same,
    }
}

/// The findings before that are gone.
pub fn gone_findings<'a>(now: &'a [Finding], before: &'a [Finding]) -> impl Iterator<Item = &'a Finding> {
    before.iter().filter(|other| !now.iter().any(|finding| is_same_finding(finding, other)))
}

fn is_same_finding(a: &Finding, b: &Finding) -> bool {
    a.name == b.name && a.namespace == b.namespace
}
