//! What a script's change of the tree may judge otherwise: if rules stay as they are, only what looks up the elements that came or went.
//!
//! Elements of sets in use are not in the tree; `element_change.rs` tells theirs.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::set_lookup::{LookupRange, LookupScope, set_number};
use crate::ast::{Chain, Object, Ruleset, Set, SetElement, Table};
use std::collections::HashMap;

/// The lookups that may find something else in `new` than in `old`; everything if rules differ that packets may reach.
pub(super) fn scope_between(old: &Ruleset, new: &Ruleset) -> LookupScope {
    let mut scope = LookupScope::default();
    let same = |one: &Table, other: &Table| (one.family, &one.name) == (other.family, &other.name);
    for before in &old.tables {
        let Some(now) = new.tables.iter().find(|now| same(before, now)) else {
            if is_inert(before) {
                continue;
            }
            return LookupScope::All;
        };
        match scope_of_table(before, now) {
            Some(of_table) => scope.extend(of_table),
            None => return LookupScope::All,
        }
    }
    let is_new = |now: &&Table| !old.tables.iter().any(|before| same(before, now));
    match new.tables.iter().filter(is_new).all(is_inert) {
        true => scope,
        false => LookupScope::All,
    }
}

/// No packet meets it.
fn is_inert(table: &Table) -> bool {
    table.chains.iter().all(|chain| chain.base.is_none())
}

/// `None` if more than elements of sets has changed.
fn scope_of_table(old: &Table, new: &Table) -> Option<LookupScope> {
    let stays = (old.handle, old.dormant, &old.flowtables) == (new.handle, new.dormant, &new.flowtables)
        && have_same(&old.chains, &new.chains, |chain| &chain.name, is_same_chain, |chain| chain.base.is_none())
        && have_same(&old.objects, &new.objects, |object| &object.name, is_same_object, |_| true)
        && have_same(&old.sets, &new.sets, |set| &set.name, is_same_set, |_| true);
    if !stays {
        return None;
    }
    let mut scope = LookupScope::default();
    let mut before: HashMap<&str, &Set> = old.sets.iter().map(|set| (set.name.as_str(), set)).collect();
    for set in new.sets.iter().filter(|set| !set.is_runtime()) {
        let Some(before) = before.remove(set.name.as_str()) else { continue };
        let number = set_number(old.family, &old.name, &set.name);
        let changed = changed_elements(before, set);
        scope.add_of_set(number, changed.map(|element| LookupRange::of_element(number, element.key.as_deref())));
    }
    Some(scope)
}

/// Are those that both have the same? Others, without which the rules of the rest do, must not matter by themselves.
fn have_same<T>(
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
    is_same: impl Fn(&T, &T) -> bool,
    is_inert: impl Fn(&T) -> bool,
) -> bool {
    let mut known: HashMap<&str, &T> = old.iter().map(|one| (name(one).as_str(), one)).collect();
    let of_new = new.iter().all(|one| match known.remove(name(one).as_str()) {
        Some(before) => is_same(before, one),
        None => is_inert(one),
    });
    of_new && known.into_values().all(is_inert)
}

fn is_same_chain(old: &Chain, new: &Chain) -> bool {
    let rules = |chain: &Chain| chain.rules.iter().map(|rule| (rule.handle, rule.replaced)).collect::<Vec<_>>();
    (old.handle, old.base, &old.devices, old.registration) == (new.handle, new.base, &new.devices, new.registration)
        && rules(old) == rules(new)
}

fn is_same_object(old: &Object, new: &Object) -> bool {
    (old.handle, &old.text) == (new.handle, &new.text)
}

fn is_same_set(old: &Set, new: &Set) -> bool {
    (old.handle, &old.key, &old.data, &old.properties) == (new.handle, &new.key, &new.data, &new.properties)
        && (old.flags, old.timeout, old.interval, old.dynamic) == (new.flags, new.timeout, new.interval, new.dynamic)
}

/// The elements that only one of two sets has, or that are not the same in both.
fn changed_elements<'a>(old: &'a Set, new: &'a Set) -> impl Iterator<Item = &'a SetElement> {
    let mut before: HashMap<_, _> = old.elements.iter().map(|element| (&element.key, element)).collect();
    let mut changed: Vec<&SetElement> = Vec::new();
    for element in &new.elements {
        match before.remove(&element.key) {
            Some(known) if known.has_same_data(element) && lasts(known) && lasts(element) => (),
            _ => changed.push(element),
        }
    }
    changed.extend(before.into_values());
    changed.into_iter()
}

/// Nothing about it changes by itself. The timeout of the whole set is the same before and after.
fn lasts(element: &SetElement) -> bool {
    element.timeout.is_none()
        && element.time_left.is_none()
        && element.deadline.is_none()
        && element.stateful.is_empty()
}
