//! Whether a rule drops packets, by a text search as in [`ruleset_scan`](crate::ruleset_scan): by its own words, or by those of the chain that it jumps to.
use std::collections::BTreeSet;

/// Chains that drop or reject whatever comes to their end, as those have that log before they drop.
#[derive(Default)]
pub(crate) struct DroppingChains<'a> {
    names: BTreeSet<&'a str>,
}

impl<'a> DroppingChains<'a> {
    /// Those of a listing.
    pub(crate) fn of(text: &'a str) -> DroppingChains<'a> {
        let mut dropping = DroppingChains::default();
        // A chain may jump to one that is listed behind it.
        loop {
            let before = dropping.names.len();
            let mut chain = "";
            for line in text.lines() {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                let rule = match words.as_slice() {
                    ["chain", name, ..] => {
                        chain = name;
                        continue;
                    }
                    ["-A", name, rule @ ..] => {
                        chain = name;
                        rule
                    }
                    rule => rule,
                };
                if is_unconditional(rule) && dropping.is_dropped_by(line, rule) {
                    dropping.names.insert(chain);
                }
            }
            if dropping.names.len() == before {
                return dropping;
            }
        }
    }

    /// Does a rule that matches drop the packet, itself or by the chain it jumps to?
    pub(crate) fn is_dropped_by(&self, line: &str, words: &[&str]) -> bool {
        let to = |key: &str| word_after(words, key).is_some_and(|target| self.names.contains(target));
        if let Some((_, verdicts)) = line.split_once("ct state vmap {") {
            let entries = verdicts.split('}').next().unwrap_or_default().split(',');
            let verdict =
                entries.filter_map(|entry| entry.split_once(':')).find(|(state, _)| state.trim() == "invalid");
            let verdict: Vec<&str> = verdict.map_or("", |(_, verdict)| verdict).split_ascii_whitespace().collect();
            return match verdict.as_slice() {
                ["drop"] => true,
                ["jump" | "goto", chain] => self.names.contains(chain),
                _ => false,
            };
        }
        match word_after(words, "-j").or_else(|| word_after(words, "-g")) {
            Some(target) => matches!(target, "DROP" | "REJECT") || self.names.contains(target),
            None => words.contains(&"drop") || words.contains(&"reject") || to("jump") || to("goto"),
        }
    }
}

/// Does a rule take every packet? Statements that match nothing do not count.
pub(crate) fn is_unconditional(rule: &[&str]) -> bool {
    match rule {
        ["-j" | "-g", ..] | ["drop" | "reject" | "jump" | "goto", ..] => true,
        ["counter", "packets", _, "bytes", _, rest @ ..] | ["counter", rest @ ..] => is_unconditional(rest),
        // Logs, and goes on.
        ["log", rest @ ..] => {
            let verdict = |word: &&str| matches!(*word, "drop" | "reject" | "jump" | "goto");
            rest.iter().position(verdict).is_some_and(|at| is_unconditional(rest.get(at..).unwrap_or_default()))
        }
        _ => false,
    }
}

/// Does a rule ask for a state, so that INVALID packets match?
pub(crate) fn matches_invalid(line: &str, words: &[&str]) -> bool {
    if words.first() == Some(&"-A") {
        let at = words.iter().position(|word| matches!(*word, "--ctstate" | "--state"));
        let Some(at) = at else { return false };
        let is_listed = words.get(at + 1).is_some_and(|list| list.split(',').any(|state| state == "INVALID"));
        let is_negated = at > 0 && words.get(at - 1) == Some(&"!");
        return is_listed != is_negated;
    }
    let Some((_, asked)) = line.split_once("ct state ") else { return false };
    let (is_negated, asked) = match asked.strip_prefix("!=").or_else(|| asked.strip_prefix('!')) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, asked),
    };
    // `{ a, b }`, `vmap { a : v }`, or `a,b` as one word.
    let list = match asked.split_once('{').filter(|(before, _)| matches!(before.trim(), "" | "vmap")) {
        Some((_, list)) => list.split('}').next().unwrap_or_default(),
        None => asked.split(' ').next().unwrap_or_default(),
    };
    let is_state = |word: &str| word.split(':').next().is_some_and(|state| state.trim() == "invalid");
    list.split(',').any(is_state) != is_negated
}

/// The word behind a word.
pub(crate) fn word_after<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == key)?;
    words.get(at + 1).copied()
}
