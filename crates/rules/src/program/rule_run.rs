//! Long runs of rules that begin with matches of fixed values (`ip saddr 192.0.2.1 drop`, ten thousand times): found by lookup, not one after another.
//!
//! A rule of a run begins with matches of selectors that nothing but an earlier rule can change, each with a value or a prefix. If one of them does not hold,
//! the rule does nothing; so it may be skipped. A lookup gives the next rule of the run that is not skipped; that one is evaluated as always, from its first
//! match on, with its counters. Behind it the lookup is made again: the rule may have changed what is compared.
//!
//! Rules with the same selectors and the same prefix lengths share a table. Built when a ruleset is compiled; never changes.
#![allow(clippy::disallowed_types, reason = "std's map hashes with SipHash-1-3 and a random key")]
use super::instr::{CompiledExpr, CompiledRhs, CompiledRule, Instr};
use crate::ast::{MetaKey, Selector};
use smallvec::SmallVec;
use std::collections::HashMap;

/// Shorter runs are evaluated rule by rule.
const MIN_RUN_LEN: usize = 8;
/// A run has this many rules for each of its tables, at least.
const MIN_RULES_PER_SHAPE: usize = 4;
/// Tables of a run: each costs a lookup.
const MAX_SHAPES: usize = 40;
/// Values that a rule is found by; further matches are evaluated with the rule.
const MAX_PARTS: usize = 6;

/// Consecutive rules of a chain, with a way to find those that may match.
#[derive(Clone, Debug)]
pub(super) struct RuleRun {
    pub(super) start: usize,
    /// The first rule behind it.
    pub(super) end: usize,
    shapes: Vec<Shape>,
}

/// What is compared, and the bits of it that count.
type Parts = SmallVec<[(Selector, u128); MAX_PARTS]>;

/// Rules that compare the same bits of the same selectors.
#[derive(Clone, Debug)]
struct Shape {
    parts: Parts,
    /// The rules by their values, in order.
    rules: HashMap<Box<[u128]>, Vec<usize>>,
}

impl RuleRun {
    /// The runs of a chain, in order.
    pub(super) fn find_all(rules: &[CompiledRule]) -> Vec<RuleRun> {
        let mut runs = Vec::new();
        let mut open: Option<OpenRun> = None;
        for (at, rule) in rules.iter().enumerate() {
            let key = leading_matches(rule);
            let taken = match (&mut open, &key) {
                (Some(run), Some((parts, values))) => run.add(parts, values, at),
                _ => false,
            };
            if taken {
                continue;
            }
            runs.extend(open.take().and_then(|run| run.finish(at)));
            if let Some((parts, values)) = key {
                let mut run = OpenRun { start: at, shapes: Vec::new(), places: HashMap::new() };
                run.add(&parts, &values, at);
                open = Some(run);
            }
        }
        runs.extend(open.and_then(|run| run.finish(rules.len())));
        runs
    }

    /// The first rule from `from` on that may match, if there is one in this run.
    pub(super) fn next_rule(&self, from: usize, mut value: impl FnMut(Selector) -> Option<u128>) -> Option<usize> {
        let mut key: SmallVec<[u128; MAX_PARTS]> = SmallVec::new();
        let mut first: Option<usize> = None;
        for shape in &self.shapes {
            key.clear();
            for (selector, mask) in &shape.parts {
                let Some(value) = value(*selector) else { break };
                key.push(value & mask);
            }
            // Where a packet does not have a value, no rule that asks for it matches.
            if key.len() < shape.parts.len() {
                continue;
            }
            let Some(rules) = shape.rules.get(key.as_slice()) else { continue };
            let next = rules.get(rules.partition_point(|rule| *rule < from)).copied();
            first = match (first, next) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        first
    }
}

/// A run that grows.
struct OpenRun {
    start: usize,
    shapes: Vec<Shape>,
    places: HashMap<Parts, usize>,
}

impl OpenRun {
    /// Adds a rule; false if it would be one table too many.
    fn add(&mut self, parts: &Parts, values: &[u128], rule: usize) -> bool {
        let place = match self.places.get(parts) {
            Some(place) => *place,
            None if self.shapes.len() >= MAX_SHAPES => return false,
            None => {
                self.shapes.push(Shape { parts: parts.clone(), rules: HashMap::new() });
                self.places.insert(parts.clone(), self.shapes.len() - 1);
                self.shapes.len() - 1
            }
        };
        if let Some(shape) = self.shapes.get_mut(place) {
            shape.rules.entry(values.into()).or_default().push(rule);
        }
        true
    }

    fn finish(self, end: usize) -> Option<RuleRun> {
        let length = end - self.start;
        let worthwhile = length >= MIN_RUN_LEN && length >= MIN_RULES_PER_SHAPE * self.shapes.len();
        worthwhile.then_some(RuleRun { start: self.start, end, shapes: self.shapes })
    }
}

/// The matches of fixed values that a rule begins with: what is compared, and with what. `None` if it begins otherwise.
fn leading_matches(rule: &CompiledRule) -> Option<(Parts, SmallVec<[u128; MAX_PARTS]>)> {
    let (mut parts, mut values) = (Parts::new(), SmallVec::new());
    'rule: for instr in &rule.instrs {
        let Instr::Match { left, not: false, right: CompiledRhs::Ranges(ranges) } = instr else { break };
        let mut added: Parts = SmallVec::new();
        let mut with: SmallVec<[u128; MAX_PARTS]> = SmallVec::new();
        for (left, (first, last)) in left.iter().zip(ranges) {
            let (CompiledExpr::Select(selector), Some(mask)) = (left, prefix_mask(*first, *last)) else { break 'rule };
            if !is_repeatable(*selector) {
                break 'rule;
            }
            added.push((*selector, mask));
            with.push(*first);
        }
        if parts.len() + added.len() > MAX_PARTS {
            break;
        }
        parts.extend(added);
        values.extend(with);
    }
    (!parts.is_empty()).then_some((parts, values))
}

/// The bits that a value in this range has in common with all others, if they are all that decides.
fn prefix_mask(first: u128, last: u128) -> Option<u128> {
    let host = first ^ last;
    (host & host.wrapping_add(1) == 0 && first & host == 0 && last & host == host).then_some(!host)
}

/// Does reading it twice give the same and change nothing?
fn is_repeatable(selector: Selector) -> bool {
    match selector {
        Selector::Ip(_) | Selector::Ip6(_) | Selector::Port(..) | Selector::Payload(_) => true,
        Selector::Meta(key) => matches!(
            key,
            MetaKey::Iif
                | MetaKey::Oif
                | MetaKey::IifName
                | MetaKey::OifName
                | MetaKey::Mark
                | MetaKey::L4Proto
                | MetaKey::NfProto
                | MetaKey::Protocol
                | MetaKey::Length
                | MetaKey::Priority
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::{NoIncludes, compile, parse_with};

    #[test]
    fn ten_thousand_rules_are_one_lookup() {
        let rules: String = (0..10_000)
            .map(|at| match at % 2 {
                0 => format!("ip saddr 172.{}.{}.1 drop\n", 16 + at / 250, at % 250),
                _ => format!("ip saddr 172.{}.{}.1 tcp dport 80 counter accept\n", 16 + at / 250, at % 250),
            })
            .collect();
        let text = format!("table ip t {{ chain c {{ ct state established accept\n{rules}counter\n}}; }}");
        let (tree, sources) = parse_with("t", &text, &NoIncludes, &[]).unwrap_or_else(|error| panic!("{error}"));
        let program = compile(&tree, &sources).unwrap_or_else(|error| panic!("{error}"));
        let runs: Vec<_> = program.chains.iter().flat_map(|chain| &chain.runs).collect();
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].start, runs[0].end, runs[0].shapes.len()), (1, 10_001, 2));
    }
}
