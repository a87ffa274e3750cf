//! Named sets and maps: what their flags allow their elements and the rules that change them.
#![allow(clippy::disallowed_types, reason = "the keys are names and values in a ruleset, not a peer's")]
use super::refusal::{Refusal, place};
use crate::ast::{
    Chain, Dynset, DynsetOp, ElementData, NftVerdict, Rule, Set, SetElement, StatefulSpec, Statement, Table,
};
use crate::datatype::DataType;
use crate::diagnostic::Diagnostic;
use std::collections::{HashMap, HashSet};

/// Overlaps are looked for one by one in sets of at most this many ranges of several parts.
const MAX_COMPARED: usize = 2000;
/// Statements of each element, as in the kernel.
const MAX_STATEFUL: usize = 2;

/// Checks the sets of a table, and the rules that change them.
pub(super) fn check_sets(table: &Table) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = table.sets.iter().filter_map(check_set).collect();
    let mut meters = HashSet::new();
    for rule in table.chains.iter().flat_map(Chain::all_rules) {
        found.extend(check_changes(table, rule, &mut meters));
        found.extend(anonymous_overlap(rule));
    }
    found
}

fn check_set(set: &Set) -> Option<Diagnostic> {
    let flags = set.flags;
    let of_set = |message: String, help: &str| Some(Refusal::new(message, help).at(set.span));
    if flags.dynamic && set.interval {
        let what = format!("{} cannot have both flags dynamic and interval: packets cannot add ranges", set.name);
        return of_set(what, "remove one of the flags");
    }
    if flags.constant && flags.timeout {
        let what = format!("{} is constant, so its elements cannot expire", set.name);
        return of_set(what, "remove the flag constant");
    }
    if flags.dynamic && matches!(set.data.as_deref(), Some([DataType::Object(_)])) {
        let what = format!("packets cannot add to {}: its values are objects", set.name);
        return of_set(what, "remove the flag dynamic");
    }
    if set.stateful.len() > MAX_STATEFUL {
        let what = format!("the elements of {} have at most {MAX_STATEFUL} kinds of state", set.name);
        return of_set(what, "remove one of counter, limit, quota and ct count");
    }
    let counts = set.stateful.iter().any(|spec| matches!(spec, StatefulSpec::ConnLimit { .. }));
    if counts && (flags.timeout || set.size.is_some() && !flags.dynamic && !set.interval) {
        let what = format!("{} has a timeout or a size: its elements cannot count connections", set.name);
        return of_set(what, "leave timeout and size out, or write `flags dynamic;` with a size alone");
    }
    if set.auto_merge && !set.interval {
        let what = format!("auto-merge joins ranges, which {} cannot have", set.name);
        return of_set(what, "add `flags interval;`, or remove auto-merge");
    }
    if set.auto_merge && set.data.is_some() {
        return of_set(format!("{} is a map: its ranges cannot be merged", set.name), "remove auto-merge");
    }
    if !flags.timeout && set.properties.iter().any(|line| line.starts_with("gc-interval")) {
        return of_set(format!("{} has no timeouts, so gc-interval means nothing", set.name), "add `flags timeout;`");
    }
    let element = set.elements.iter().find_map(|element| Some((element, check_element(set, element)?)));
    if let Some((element, refusal)) = element {
        return Some(refusal.at(element.span));
    }
    if let Some(element) = remapped(set) {
        return Some(
            Diagnostic::new(element.span, "this key already maps to another value")
                .with_help("remove one of the elements"),
        );
    }
    if let Some(size) = set.size.filter(|size| *size > 0 && !set.auto_merge) {
        let different: HashSet<_> = set.elements.iter().map(|element| &element.key).collect();
        if different.len() > size as usize {
            let what = format!("{} has {} elements, but size {size}", set.name, different.len());
            return of_set(what, "raise the size, or leave it out");
        }
    }
    overlap(&set.elements, true)
}

fn check_element(set: &Set, element: &SetElement) -> Option<Refusal> {
    let kind = if set.data.is_some() { "map" } else { "set" };
    let is_range = |range: &(u128, u128)| range.0 != range.1;
    if !set.interval && element.key.as_deref().is_some_and(|key| key.iter().any(is_range)) {
        let what = format!("{} has no flag interval: its elements cannot be ranges or prefixes", set.name);
        return Some(Refusal::new(what, format!("add `flags interval;` to the {kind}")));
    }
    if !set.flags.timeout && element.timeout.is_some() {
        let what = format!("{} has no flag timeout: its elements cannot expire", set.name);
        return Some(Refusal::new(what, format!("add `flags timeout;` to the {kind}")));
    }
    if element.maps_to_range() && !set.flags.data_interval {
        let what = format!("an element of {} maps to one value, not to a range", set.name);
        return Some(Refusal::new(what, "write one value, or `type … : interval …` in the map"));
    }
    if let Some(left) = element.time_left {
        let timeout = element.timeout.or(set.timeout).filter(|seconds| *seconds > 0);
        if timeout.is_none_or(|timeout| left > timeout) {
            let what = format!("this element of {} has no timeout that ends in {left} seconds", set.name);
            return Some(Refusal::new(what, "write `timeout` before `expires`, and not less than it"));
        }
    }
    let kinds = |state: &[StatefulSpec]| state.iter().map(std::mem::discriminant).collect::<Vec<_>>();
    if !set.stateful.is_empty() && kinds(&set.stateful) != kinds(&element.stateful) {
        let what = format!("the elements of {} have state of another kind", set.name);
        return Some(Refusal::new(what, format!("write the same kinds here as in the {kind}, in the same order")));
    }
    let declared = set.flags.dynamic || !set.stateful.is_empty();
    if !element.stateful.is_empty() && !declared {
        let what = format!("{} does not say that its elements have state of their own", set.name);
        return Some(Refusal::new(what, format!("add `counter;` or `flags dynamic;` to the {kind}")));
    }
    None
}

/// The first element whose key already maps to another value.
fn remapped(set: &Set) -> Option<&SetElement> {
    let mut known: HashMap<&[(u128, u128)], &ElementData> = HashMap::new();
    set.elements.iter().find(|element| {
        let (Some(key), Some(data)) = (element.key.as_deref(), &element.data) else { return false };
        known.insert(key, data).is_some_and(|before| !is_same(before, data))
    })
}

fn is_same(one: &ElementData, other: &ElementData) -> bool {
    match (one, other) {
        (ElementData::Values(one), ElementData::Values(other)) => one == other,
        (ElementData::Object(one, _), ElementData::Object(other, _)) => one == other,
        (ElementData::Verdict(one), ElementData::Verdict(other)) => match (one, other) {
            (NftVerdict::Jump(one, _), NftVerdict::Jump(other, _))
            | (NftVerdict::Goto(one, _), NftVerdict::Goto(other, _)) => one == other,
            _ => one == other,
        },
        _ => false,
    }
}

/// Ranges of several parts that begin or end inside an earlier one: the kernel does not take them.
fn overlap(elements: &[SetElement], named: bool) -> Option<Diagnostic> {
    let mut ranges: Vec<&[(u128, u128)]> = Vec::new();
    for element in elements {
        let Some(key) = element.key.as_deref().filter(|key| key.len() > 1) else { continue };
        if ranges.len() >= MAX_COMPARED {
            return None;
        }
        let holds = |range: &[(u128, u128)], value: fn(&(u128, u128)) -> u128| {
            range.iter().zip(key).all(|((first, last), part)| (*first..=*last).contains(&value(part)))
        };
        let inside = |range: &&[(u128, u128)]| holds(range, |part| part.0) || holds(range, |part| part.1);
        if ranges.iter().any(|range| *range != key && inside(range)) {
            let help = if named {
                "write ranges that do not overlap"
            } else {
                "write ranges that do not overlap, or two rules"
            };
            return Some(Diagnostic::new(element.span, "this element overlaps an earlier one").with_help(help));
        }
        ranges.push(key);
    }
    None
}

/// The same in the sets that are written in a rule.
fn anonymous_overlap(rule: &Rule) -> Option<Diagnostic> {
    rule.statements.iter().find_map(|statement| {
        let set = match statement {
            Statement::Match(one) => match &one.right {
                crate::ast::MatchRhs::Set(set) => set,
                _ => return None,
            },
            Statement::Vmap(_, set) => set,
            _ => return None,
        };
        match set {
            crate::ast::SetRef::Anonymous(set) => {
                let again = remapped(set).map(|element| {
                    Diagnostic::new(element.span, "this key already maps to another value")
                        .with_help("remove one of the elements")
                });
                again.or_else(|| overlap(&set.elements, false))
            }
            crate::ast::SetRef::Named(..) => None,
        }
    })
}

/// Statements of a rule that add to, update or delete from a set.
fn check_changes<'a>(table: &'a Table, rule: &'a Rule, meters: &mut HashSet<&'a str>) -> Option<Diagnostic> {
    for (at, statement) in rule.statements.iter().enumerate() {
        let Statement::Dynset(change) = statement else { continue };
        let set = table.sets.iter().find(|set| set.name == change.set);
        let refusal = if change.meter_size.is_some() && change.stateful.is_empty() {
            let what = format!("the elements of meter {} have no limit and no counter", change.set);
            Some(Refusal::new(what, "write `limit rate 10/second`, `counter` or `ct count 5` after the key"))
        } else if change.meter_size.is_some() {
            let known = set.is_some() || !meters.insert(&change.set);
            known.then(|| {
                let what = format!("the name {} is taken: a meter has a set of its own", change.set);
                Refusal::new(what, "give each meter another name, or use `add @set { … }` with one set")
            })
        } else {
            set.and_then(|set| check_change(set, change))
        };
        if let Some(refusal) = refusal {
            return Some(refusal.at(place(rule, at)));
        }
    }
    None
}

fn check_change(set: &Set, change: &Dynset) -> Option<Refusal> {
    let name = &set.name;
    if set.flags.constant {
        return Some(Refusal::new(format!("{name} is constant: rules cannot change it"), "remove its flag constant"));
    }
    if set.interval {
        let what = format!("{name} has the flag interval: rules cannot change it");
        return Some(Refusal::new(what, "remove the flag, or use another set for what packets add"));
    }
    if change.timeout.is_some() && !set.flags.timeout {
        let what = format!("{name} has no flag timeout: elements that packets add cannot expire");
        return Some(Refusal::new(what, "add `timeout` to its flags: `flags dynamic,timeout;`"));
    }
    let counts = change.stateful.iter().any(|spec| matches!(spec, StatefulSpec::ConnLimit { .. }));
    if counts && set.flags.timeout {
        let what = format!("{name} has timeouts: its elements cannot count connections");
        return Some(Refusal::new(what, "use a set with `flags dynamic;` alone: an element goes with its connections"));
    }
    if let (Some(wanted), [value], DynsetOp::Add | DynsetOp::Update) = (&set.data, change.data.as_slice(), change.op)
        && let [wanted] = wanted.as_slice()
    {
        let found = value.data_type();
        let number = |kind: DataType| matches!(kind, DataType::Number(_));
        if found != *wanted && !number(found) && !number(*wanted) {
            let what = format!("{name} maps to {}, not to {}", wanted.description(), found.description());
            return Some(Refusal::new(what, "write a value of the map's type"));
        }
    }
    None
}
