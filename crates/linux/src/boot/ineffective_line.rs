//! A line that is meant for connection tracking and does nothing.
use super::file_line::FileLine;
use std::fmt;

/// A line without effect, and what was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IneffectiveLine {
    /// Where it stands.
    pub location: FileLine,
    /// What it says.
    pub setting: String,
    /// What becomes of it: `has no effect: …`.
    pub reason: String,
    /// The key that was meant, in today's name, if it is a sysctl.
    pub key: Option<String>,
    /// The value that was meant, if that is clear.
    pub value: Option<u64>,
}

impl fmt::Display for IneffectiveLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.location, self.reason)
    }
}

/// The number in what a person has written with separators: `1,000,000`, `1_000_000`, `1 000 000`.
pub(super) fn number_without_separators(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(|letter| !matches!(letter, ',' | '_' | '.' | '\'' | ' ' | '"')).collect();
    digits.parse().ok()
}
