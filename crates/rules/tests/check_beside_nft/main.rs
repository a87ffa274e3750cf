//! The same rulesets checked by us and loaded by nft into a network namespace: what nft or the kernel refuses, we refuse, and the other way round.
//!
//! Combinations are generated (`combinations.rs`), single cases are written down (`*.cases`, one ruleset a line). An intended difference is in `ledger.rs` with its
//! reason. All single cases run, and a sample of the combinations: `KEEPSTATE_CHECK_SEED` selects another one, `KEEPSTATE_CHECK_SAMPLE=0` runs all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod combinations;
mod ledger;
mod nft;

use keepstate_rules::{NoIncludes, compile, parse_with};
use ledger::{Difference, ledger_entry};
use std::collections::BTreeSet;

/// Written cases.
const CASES: [&str; 6] = [
    include_str!("names.cases"),
    include_str!("translation.cases"),
    include_str!("statements.cases"),
    include_str!("sets.cases"),
    include_str!("objects.cases"),
    include_str!("rules.cases"),
];

/// Combinations that run by default.
const SAMPLE: usize = 700;

/// The first error of a ruleset, if it has one.
fn our_error(text: &str) -> Option<String> {
    let result = parse_with("r", text, &NoIncludes, &[]).and_then(|(tree, sources)| compile(&tree, &sources));
    result.err().map(|error| error.to_string())
}

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Every n-th of the combinations, beginning at a place that the seed gives.
fn sample(all: Vec<String>) -> Vec<String> {
    let wanted = from_environment("KEEPSTATE_CHECK_SAMPLE", SAMPLE);
    // A step that has no factor in common with the lists' lengths, so that each list is sampled evenly.
    let step = all.len().checked_div(wanted).map_or(1, |step| step.max(1) | 1);
    let first = from_environment("KEEPSTATE_CHECK_SEED", 1) % step;
    all.into_iter().skip(first).step_by(step).collect()
}

#[test]
fn check_refuses_what_nft_refuses_and_nothing_else() {
    let mut rulesets: Vec<String> = CASES.iter().flat_map(|cases| cases.lines()).map(str::to_owned).collect();
    rulesets.extend(combinations::lengths());
    rulesets.extend(sample(combinations::all()));
    let Some(theirs) = nft::load_each(&rulesets) else {
        return keepstate_test_support::report_skipped(
            "rulesets beside nft need root, nftables and network namespaces",
        );
    };
    let (mut differences, mut taken, mut used) = (Vec::new(), 0, BTreeSet::new());
    for (ruleset, theirs) in rulesets.iter().zip(&theirs) {
        let ours = our_error(ruleset);
        if let Some(error) = &ours {
            assert!(error.starts_with("r:") && error.contains('^'), "an error without its place: {error}");
        }
        let difference = match (&ours, theirs) {
            (None, Ok(())) => {
                taken += 1;
                continue;
            }
            (Some(_), Err(_)) => continue,
            // What is not supported at all, the error says; which features those are is another test's matter.
            (Some(error), Ok(())) if error.contains("not supported") => continue,
            (Some(_), Ok(())) => Difference::OnlyWeRefuse,
            (None, Err(_)) => Difference::OnlyWeTake,
        };
        match ledger_entry(difference, ruleset) {
            Some(entry) => drop(used.insert(entry)),
            None => differences.push(format!(
                "{ruleset}\n    nft: {}\n    we:  {}",
                theirs.clone().err().unwrap_or_else(|| "taken".into()),
                ours.unwrap_or_else(|| "taken".into()).lines().next().unwrap_or_default()
            )),
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} rulesets differ:\n{}",
        differences.len(),
        rulesets.len(),
        differences.iter().take(60).cloned().collect::<Vec<_>>().join("\n")
    );
    assert!(taken > rulesets.len() / 4, "only {taken} of {} rulesets were taken", rulesets.len());
    // A sample does not meet every difference.
    if from_environment("KEEPSTATE_CHECK_SAMPLE", SAMPLE) == 0 {
        let stale = ledger::stale(&used);
        assert!(stale.is_empty(), "differences that are no more: {stale:#?}");
    }
}
