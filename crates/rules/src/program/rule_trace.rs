//! What rules do with one packet, rule by rule (`meta nftrace`), and how many packets each rule and policy has dropped.
//!
//! A [`RuleTrace`] is recorded where somebody asks for it, by [`PacketMeta::rule_trace`](super::PacketMeta::rule_trace); without one, nothing is. As with `nft monitor trace`, a rule is noted
//! when all of it has matched, and a chain when its end or its policy decides. Numbers become names only when a trace is shown.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled::Program;
use super::context::Verdict;
use super::eval_expr::Evaluator;
use super::instr::CompiledVerdict;
use crate::ast::{Chain, Ruleset, Table};
use std::collections::HashMap;
use std::fmt::Write;

/// Steps of one packet that are kept, at most.
const MAX_STEPS: usize = 1024;

/// The rules and policies on a packet's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTrace {
    steps: Vec<RuleStep>,
    /// A rule has asked for the trace by `meta nftrace set 1`: from which step on.
    asked_at: Option<usize>,
}

/// One step: a rule, or without one the end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RuleStep {
    chain: usize,
    rule: Option<usize>,
    decision: Decision,
}

/// What a step decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
    /// To a chain; `None`: to one without a name.
    Jump(Option<usize>),
    Goto(Option<usize>),
    Synproxy,
}

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

    /// Does the packet end here?
    pub(super) fn is_drop(self) -> bool {
        matches!(self, Decision::Drop | Decision::Reject)
    }
}

impl RuleTrace {
    /// Has a rule asked for it (`meta nftrace set 1`)?
    pub fn is_asked_for(&self) -> bool {
        self.asked_at.is_some()
    }

    /// Notes that a rule asks for the trace, or does not want it any more.
    pub(super) fn ask(&mut self, on: bool) {
        self.asked_at = on.then(|| self.asked_at.unwrap_or(self.steps.len()));
    }

    /// Notes a step.
    pub(super) fn note(&mut self, chain: usize, rule: Option<usize>, decision: Decision) {
        if self.steps.len() < MAX_STEPS {
            self.steps.push(RuleStep { chain, rule, decision });
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

/// Packets dropped by rules, by their place among all rules, and by policies, by their chain.
#[derive(Clone, Debug, Default)]
pub(super) struct DropCounts {
    rules: Vec<u64>,
    policies: Vec<u64>,
}

impl DropCounts {
    pub(super) fn count_rule(&mut self, place: usize) {
        count_at(&mut self.rules, place);
    }

    pub(super) fn count_policy(&mut self, chain: usize) {
        count_at(&mut self.policies, chain);
    }

    fn rule(&self, place: usize) -> u64 {
        self.rules.get(place).copied().unwrap_or_default()
    }
}

fn count_at(counts: &mut Vec<u64>, at: usize) {
    let count = counts.get(at).copied().unwrap_or_default();
    set_at(counts, at, count + 1);
}

fn set_at(counts: &mut Vec<u64>, at: usize, value: u64) {
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    if let Some(count) = counts.get_mut(at) {
        *count = value;
    }
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
