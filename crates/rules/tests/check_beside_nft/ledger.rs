//! Intended differences from nft 1.0.6, each with its reason.
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    OnlyWeTake,
    OnlyWeRefuse,
}
use Difference::{OnlyWeRefuse, OnlyWeTake};

/// A difference, a part of the rulesets that have it, and why.
const LEDGER: &[(Difference, &str, &str)] =
    &[(OnlyWeTake, "ct original saddr", "an address without a family is IPv4's")];

/// Index of the entry that a difference belongs to.
pub fn ledger_entry(difference: Difference, ruleset: &str) -> Option<usize> {
    LEDGER.iter().position(|(known, part, _)| *known == difference && ruleset.contains(part))
}

/// Entries that no ruleset needed.
pub fn stale(used: &BTreeSet<usize>) -> Vec<&'static str> {
    let entries = LEDGER.iter().enumerate();
    entries.filter(|(at, _)| !used.contains(at)).map(|(_, (_, part, _))| *part).collect()
}
