//! Traces and counts of dropped packets by name: the rules and chains that their numbers mean, and which counts go on in a changed ruleset.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled::Program;
use super::context::Verdict;
use super::eval_expr::Evaluator;
use super::instr::CompiledVerdict;
use super::rule_trace::{Decision, DropCounts, RuleStep, RuleTrace, set_at};
use crate::ast::{Chain, Ruleset, Table};
use std::collections::HashMap;
use std::fmt::Write;

impl Decision {
    pub(super) fn of_verdict(verdict: Verdict) -> Decision {
        match verdict {
            Verdict::Accept => Decision::Accept,
            Verdict::Drop => Decision::Drop,
            Verdict::Reject(_) => Decision::Reject,
            Verdict::Synproxy(_) => Decision::Synproxy,
        }
    }

    pub(super) fn of_compiled(verdict: CompiledVerdict, number_of: impl Fn(usize) -> Option<usize>) -> Decision {
        match verdict {
            CompiledVerdict::Accept => Decision::Accept,
            CompiledVerdict::Drop => Decision::Drop,
            CompiledVerdict::Continue => Decision::Continue,
            CompiledVerdict::Return => Decision::Return,
            CompiledVerdict::Jump(chain) => Decision::Jump(number_of(chain)),
            CompiledVerdict::Goto(chain) => Decision::Goto(number_of(chain)),
        }
    }
}

/// Packets that one rule has dropped or rejected, or without a rule the policy of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleDrops {
    /// `inet filter`: family and name of the table.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// The rule's handle and text; `None` for the chain's policy.
    pub rule: Option<(u64, String)>,
    /// How many.
    pub packets: u64,
}

impl Evaluator<'_> {
    /// The number of a chain among those that have a name.
    pub(super) fn number_of(&self, chain: usize) -> Option<usize> {
        self.chains.get(chain)?.number
    }
}

impl Program {
    /// A line for each step of a trace, in the words of `nft monitor trace`; of a trace that a rule has asked for, from that rule on.
    pub fn describe_trace(&self, trace: &RuleTrace, whole: bool) -> Vec<String> {
        let from = if whole { 0 } else { trace.asked_at.unwrap_or(trace.steps.len()) };
        trace.steps.iter().skip(from).filter_map(|step| self.describe_step(step)).collect()
    }

    fn describe_step(&self, step: &RuleStep) -> Option<String> {
        let (table, chain) = self.named_chain(step.chain)?;
        let mut line = format!("{} {} {} ", table.family, table.name, chain.name);
        let name_of = |chain: Option<usize>| {
            let named = chain.and_then(|chain| self.named_chain(chain));
            named.map_or("its own chain", |(_, chain)| chain.name.as_str())
        };
        let verdict = match step.decision {
            Decision::Continue => "continue".to_owned(),
            Decision::Accept => "accept".to_owned(),
            Decision::Drop => "drop".to_owned(),
            Decision::Reject => "reject".to_owned(),
            Decision::Return => "return".to_owned(),
            Decision::Synproxy => "synproxy".to_owned(),
            Decision::Jump(chain) => format!("jump {}", name_of(chain)),
            Decision::Goto(chain) => format!("goto {}", name_of(chain)),
        };
        // Writing to a string does not fail.
        let _ = match step.rule {
            Some(at) => {
                let rule = chain.rules.get(at)?;
                write!(line, "rule {} handle {} (verdict {verdict})", rule.text, rule.handle)
            }
            None if chain.base.is_some() => write!(line, "policy {verdict}"),
            None => write!(line, "end of chain (verdict {verdict})"),
        };
        Some(line)
    }

    /// The chain of a number, and its table.
    fn named_chain(&self, number: usize) -> Option<(&Table, &Chain)> {
        all_chains(&self.listing.tree).nth(number)
    }

    /// The rules and policies that have dropped packets, in the order of the ruleset. Their counts begin with the ruleset; a script's change keeps those of the rules that it leaves.
    pub fn rule_drops(&self) -> Vec<RuleDrops> {
        let mut found = Vec::new();
        let mut place = 0;
        for (number, (table, chain)) in all_chains(&self.listing.tree).enumerate() {
            let mut add = |rule, packets| {
                if packets > 0 {
                    let table = format!("{} {}", table.family, table.name);
                    found.push(RuleDrops { table, chain: chain.name.clone(), rule, packets });
                }
            };
            for rule in &chain.rules {
                let packets = self.state.drops.rule(place);
                add((packets > 0).then(|| (rule.handle, rule.text.clone())), packets);
                place += 1;
            }
            add(None, self.state.drops.policies.get(number).copied().unwrap_or_default());
        }
        found
    }
}

/// Which counts of dropped packets go on in another program: those of the rules and chains that are the same.
#[derive(Debug, Default)]
pub(super) struct DropMoves {
    rules: Vec<(usize, usize)>,
    chains: Vec<(usize, usize)>,
}

impl DropMoves {
    /// By handle of table and rule, and how often a rule was replaced. A file that is read again has new tables.
    pub(super) fn between(old: &Ruleset, new: &Ruleset) -> DropMoves {
        let mut places = HashMap::new();
        let mut chains = HashMap::new();
        let mut place = 0..;
        for (number, (table, chain)) in all_chains(old).enumerate() {
            chains.insert((table.handle, chain.handle), number);
            let of_rules = chain.rules.iter().zip(&mut place);
            places.extend(of_rules.map(|(rule, place)| ((table.handle, rule.handle, rule.replaced), place)));
        }
        let mut moves = DropMoves::default();
        let mut place = 0..;
        for (number, (table, chain)) in all_chains(new).enumerate() {
            moves.chains.extend(chains.get(&(table.handle, chain.handle)).map(|from| (number, *from)));
            for (rule, to) in chain.rules.iter().zip(&mut place) {
                moves.rules.extend(places.get(&(table.handle, rule.handle, rule.replaced)).map(|from| (to, *from)));
            }
        }
        moves
    }

    pub(super) fn apply(&self, to: &mut DropCounts, from: &DropCounts) {
        let pairs = [(&self.rules, &mut to.rules, &from.rules), (&self.chains, &mut to.policies, &from.policies)];
        for (moves, to, from) in pairs {
            // Places rise in both: what has never dropped costs nothing but the look.
            for (place, old) in moves {
                if let Some(count) = from.get(*old).filter(|count| **count > 0) {
                    set_at(to, *place, *count);
                }
            }
        }
    }
}

/// All chains in the order of their numbers.
fn all_chains(ruleset: &Ruleset) -> impl Iterator<Item = (&Table, &Chain)> {
    ruleset.tables.iter().flat_map(|table| table.chains.iter().map(move |chain| (table, chain)))
}
