//! Rulesets made from a grammar of nft's language (`grammar.txt`) by a seeded walk, checked by us and loaded by nft: both take them, or both refuse them. What nft
//! lists of those that it takes, we take; and nft takes our listing and lists it as it lists the original.
//!
//! Also every selector in every form (`forms.rs`): both take it, or both refuse it.
//!
//! An intended difference is in `ledger.rs` with its reason. `KEEPSTATE_GRAMMAR_SEED` and `KEEPSTATE_GRAMMAR_SAMPLE` choose others and more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod expand;
mod forms;
mod ledger;
mod nft;

use expand::{Dice, Grammar};
use keepstate_rules::{NoIncludes, compile, parse_with};
use ledger::{Difference, is_intended};

/// Rulesets by default.
const SAMPLE: usize = 1000;

/// Our listing of a ruleset, or the first line of our error.
fn ours(text: &str) -> Result<String, String> {
    let program = parse_with("r", text, &NoIncludes, &[]).and_then(|(tree, sources)| compile(&tree, &sources));
    match program {
        Ok(program) => Ok(program.list().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn grammar_text() -> String {
    match std::env::var("KEEPSTATE_GRAMMAR_FILE") {
        Ok(path) => std::fs::read_to_string(path).unwrap(),
        Err(_) => include_str!("grammar.txt").to_owned(),
    }
}

#[test]
fn both_take_and_list_the_same() {
    let text = grammar_text();
    let grammar = Grammar::new(&text);
    let seed = u64::try_from(from_environment("KEEPSTATE_GRAMMAR_SEED", 1)).unwrap();
    let sample = from_environment("KEEPSTATE_GRAMMAR_SAMPLE", SAMPLE);
    let mut dice = Dice::new(seed);
    let rulesets: Vec<String> =
        (0..sample).map(|at| grammar.sentence(&mut dice).replace('#', &at.to_string())).collect();
    let Some(theirs) = nft::ask(&rulesets) else {
        return keepstate_test_support::report_skipped(
            "rulesets beside nft need root, nftables and network namespaces",
        );
    };
    let (mut differences, mut again) = (Vec::new(), Vec::new());
    for (ruleset, theirs) in rulesets.iter().zip(&theirs) {
        let difference = match (ours(ruleset), theirs) {
            (Ok(listing), Ok(theirs)) => {
                if let Err(error) = ours(theirs) {
                    differences.push((Difference::Listed, ruleset, theirs.clone(), error));
                }
                again.push((ruleset, listing, theirs));
                continue;
            }
            (Err(_), Err(_)) => continue,
            // What is not supported at all, the error says; which features those are is another test's matter.
            (Err(error), Ok(_)) if error.contains("not supported") => continue,
            (Err(error), Ok(_)) => (Difference::OnlyWeRefuse, ruleset, "taken".to_owned(), error),
            (Ok(_), Err(error)) => (Difference::OnlyWeTake, ruleset, error.clone(), "taken".to_owned()),
        };
        differences.push(difference);
    }
    let one_line =
        |listing: &str| listing.replace('\n', ";").replace('\t', " ").replace("{;", "{ ").replace(",;", ", ");
    let listings: Vec<String> = again.iter().map(|(_, listing, _)| one_line(listing)).collect();
    let theirs = nft::ask(&listings).unwrap();
    for ((ruleset, listing, first), second) in again.iter().zip(theirs) {
        match second {
            Err(error) => differences.push((Difference::OurListing, ruleset, error, listing.clone())),
            Ok(second) if second != **first => {
                differences.push((Difference::OurListing, ruleset, format!("{first}\n{second}"), listing.clone()));
            }
            Ok(_) => (),
        }
    }
    let unexpected: Vec<String> = differences
        .iter()
        .filter(|(kind, ruleset, theirs, ours)| !is_intended(*kind, ruleset, theirs, ours))
        .map(|(kind, ruleset, theirs, ours)| format!("{kind:?}: {ruleset}\n    nft: {theirs}\n    we:  {ours}"))
        .collect();
    assert!(
        unexpected.is_empty(),
        "seed {seed}: {} of {} rulesets differ:\n{}",
        unexpected.len(),
        rulesets.len(),
        unexpected.join("\n")
    );
    assert!(again.len() > rulesets.len() / 5, "both took only {} of {} rulesets", again.len(), rulesets.len());
}

/// Forms by default; `KEEPSTATE_FORMS_SAMPLE=0` asks for all.
const FORMS: usize = 2500;

#[test]
fn every_form_of_every_selector_is_taken_by_both_or_by_none() {
    let all = forms::all();
    let wanted = from_environment("KEEPSTATE_FORMS_SAMPLE", FORMS);
    let step = all.len().checked_div(wanted).map_or(1, |step| step.max(1) | 1);
    let first = from_environment("KEEPSTATE_GRAMMAR_SEED", 1) % step;
    let rulesets: Vec<String> = all.into_iter().skip(first).step_by(step).collect();
    let Some(theirs) = nft::ask(&rulesets) else {
        return keepstate_test_support::report_skipped(
            "rulesets beside nft need root, nftables and network namespaces",
        );
    };
    let (mut unexpected, mut agreed) = (Vec::new(), 0);
    for (ruleset, theirs) in rulesets.iter().zip(&theirs) {
        let (kind, theirs, ours) = match (ours(ruleset), theirs) {
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {
                agreed += 1;
                continue;
            }
            (Err(error), Ok(_)) => (Difference::OnlyWeRefuse, "taken".to_owned(), error),
            (Ok(_), Err(error)) => (Difference::OnlyWeTake, error.clone(), "taken".to_owned()),
        };
        if !is_intended(kind, ruleset, &theirs, &ours) {
            unexpected.push(format!("{kind:?}: {ruleset}\n    nft: {theirs}\n    we:  {ours}"));
        }
    }
    println!("{agreed} of {} agree", rulesets.len());
    assert!(unexpected.is_empty(), "{} of {} differ:\n{}", unexpected.len(), rulesets.len(), unexpected.join("\n"));
    assert!(agreed * 100 > rulesets.len() * 95, "only {agreed} of {} agree", rulesets.len());
}
