//! What has changed between two examinations.
use keepstate_advisor::doctor::Finding;
use std::fmt;

/// How a finding stands to the examination before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    New,
    /// It was there already, and is worse or less bad.
    Other,
    /// As before.
    Same,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Change::New => "new",
            Change::Other => "changed",
            Change::Same => "same",
        })
    }
}

/// How a finding stands to those of before.
pub fn change(finding: &Finding, before: &[Finding]) -> Change {
    match before.iter().find(|other| is_same(finding, other)) {
        None => Change::New,
        Some(other) if (other.severity, other.certainty) != (finding.severity, finding.certainty) => Change::Other,
        Some(_) => Change::Same,
    }
}

/// Those of before that are gone.
pub fn gone<'a>(now: &'a [Finding], before: &'a [Finding]) -> impl Iterator<Item = &'a Finding> {
    before.iter().filter(|other| !now.iter().any(|finding| is_same(finding, other)))
}

fn is_same(a: &Finding, b: &Finding) -> bool {
    a.name == b.name && a.namespace == b.namespace
}
