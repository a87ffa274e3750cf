//! A rule: a name, a title and a function from observations to findings.
use super::finding::{Certainty, Finding, Severity};
use super::observations::Observations;

/// A rule of the catalogue.
#[derive(Debug)]
pub struct DoctorRule {
    /// The name of its findings.
    pub name: &'static str,
    /// The number of the failure in the catalogue.
    pub number: u8,
    /// What is wrong, in one line.
    pub title: &'static str,
    /// Findings of the same namespace or the machine that are only consequences of this one.
    pub explains: &'static [&'static str],
    /// The function that looks for it.
    pub check: fn(&DoctorRule, &Observations) -> Vec<Finding>,
}

impl DoctorRule {
    /// An empty finding of this rule; evidence is added with [`Finding::evidence`].
    pub fn finding(&self, severity: Severity, certainty: Certainty) -> Finding {
        Finding {
            name: self.name,
            number: self.number,
            title: self.title,
            namespace: None,
            severity,
            certainty,
            evidence: Vec::new(),
            meaning: String::new(),
            now: Vec::new(),
            for_good: Vec::new(),
            explains: Vec::new(),
        }
    }
}
