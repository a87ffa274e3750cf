//! The differences that are meant: each with its reason, and none that is no more.
//!
//! `differences.txt` has the name of a case on a line of its own, and below it, indented, why ours does something else. `#` begins a comment.
use crate::case_file::Case;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Names of cases and the reasons.
pub struct KnownDifferences(BTreeMap<String, String>);

impl KnownDifferences {
    /// Reads the list.
    ///
    /// # Errors
    /// A difference without a reason, or a reason without a difference.
    pub fn read(path: &Path) -> Result<KnownDifferences, String> {
        let mut known: BTreeMap<String, String> = BTreeMap::new();
        let mut names: Vec<String> = Vec::new();
        for line in fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?.lines() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            match (line.strip_prefix(' '), names.last()) {
                // Cases one below the other share the reason that follows.
                (None, last) => {
                    if last.is_some_and(|last| known.contains_key(last)) {
                        names.clear();
                    }
                    names.push(line.to_owned());
                }
                (Some(reason), Some(_)) => {
                    for name in &names {
                        let whole = known.entry(name.clone()).or_default();
                        *whole = format!("{whole} {}", reason.trim()).trim().to_owned();
                    }
                }
                (Some(reason), None) => return Err(format!("{reason:?} is the reason of nothing")),
            }
        }
        match names.last() {
            Some(last) if !known.contains_key(last) => Err(format!("{last} has no reason")),
            _ => Ok(KnownDifferences(known)),
        }
    }

    /// Why a case is different, if it may be.
    pub fn reason(&mut self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names that no case has.
    pub fn names_without_case(&self, cases: &[Case]) -> Vec<&str> {
        self.0.keys().filter(|name| !cases.iter().any(|case| case.name() == **name)).map(String::as_str).collect()
    }
}
