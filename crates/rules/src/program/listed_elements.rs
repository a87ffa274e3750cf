//! The elements of a set that a listing shows: all, or those that a query names.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled::ListedTable;
use super::format_state::{format_element, format_tree_element};
use super::set::{DynElement, kept_key};
use super::snapshot::RulesetSnapshot;
use crate::ast::{ElementName, Set, SetElement};
use std::collections::HashMap;

/// An element with its state.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListedElement<'a> {
    /// Changed one by one in the program; `*` has no key.
    InUse(Option<&'a [u128]>, &'a DynElement),
    /// Of the tree; with what it has counted, if it counts.
    OfTree(&'a SetElement, Option<&'a DynElement>),
}

impl<'a> ListedElement<'a> {
    /// Its key as in a query; `*` is the last.
    fn name(&self) -> ElementName {
        match self {
            ListedElement::InUse(key, _) => key.map(|key| key.iter().map(|value| (*value, *value)).collect()),
            ListedElement::OfTree(element, _) => element.key.clone(),
        }
    }

    /// What stands for it among the dynamic elements of its set; `None` for `*`.
    pub(super) fn state_key(&self) -> Option<Box<[u128]>> {
        match self {
            ListedElement::InUse(key, _) => key.map(Box::from),
            ListedElement::OfTree(element, _) => element.key.as_deref().map(kept_key),
        }
    }

    pub(super) fn state(&self) -> Option<&'a DynElement> {
        match self {
            ListedElement::InUse(_, element) => Some(element),
            ListedElement::OfTree(_, state) => *state,
        }
    }

    /// As nft writes it.
    pub(super) fn format(&self, set: &Set, snapshot: &RulesetSnapshot, stateless: bool) -> String {
        match *self {
            ListedElement::InUse(key, element) => format_element(set, key, element, snapshot.now, stateless),
            ListedElement::OfTree(element, state) => {
                format_tree_element(set, element, state, (snapshot.now, stateless))
            }
        }
    }

    /// Does it hold all of this key?
    fn holds(&self, wanted: &[(u128, u128)]) -> bool {
        self.name().is_some_and(|key| {
            let mut pairs = key.iter().zip(wanted);
            key.len() == wanted.len() && pairs.all(|(own, part)| own.0 <= part.0 && part.1 <= own.1)
        })
    }
}

impl RulesetSnapshot {
    /// The elements of a set in the order of their keys; only those in `names`, if it has any, each as often as it is named. A range or value inside an element names it.
    ///
    /// # Errors
    /// The set does not have this one of `names`.
    pub(super) fn listed_elements<'a>(
        &'a self,
        listed: &ListedTable,
        set: &'a Set,
        names: &'a [ElementName],
    ) -> Result<Vec<ListedElement<'a>>, &'a ElementName> {
        let all = self.all_elements(listed, set);
        if names.is_empty() {
            return Ok(all);
        }
        let exact: HashMap<ElementName, ListedElement<'a>> = all.iter().map(|one| (one.name(), *one)).collect();
        let find = |name: &'a ElementName| {
            if let Some(found) = exact.get(name) {
                return Ok(*found);
            }
            let around = match name.as_deref() {
                None => None,
                // Elements of one part are in order and do not overlap.
                Some([(first, _)]) => {
                    let behind =
                        all.partition_point(|one| one.name().is_some_and(|key| key < vec![(*first, u128::MAX)]));
                    let ahead = behind.checked_sub(1).and_then(|at| all.get(at));
                    ahead.filter(|one| name.as_deref().is_some_and(|wanted| one.holds(wanted)))
                }
                Some(wanted) => all.iter().find(|one| one.holds(wanted)),
            };
            around.copied().ok_or(name)
        };
        let mut found = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        found.sort_by_cached_key(|one| (one.name().is_none(), one.name()));
        Ok(found)
    }

    fn all_elements<'a>(&'a self, listed: &ListedTable, set: &'a Set) -> Vec<ListedElement<'a>> {
        let at = listed.set_indices.get(&set.name);
        let found = at.and_then(|at| self.elements.get(at)).map(Vec::as_slice).unwrap_or_default();
        let catchall = at.and_then(|at| self.catchalls.get(at));
        if set.is_runtime() {
            let mut sorted: Vec<_> = found.iter().collect();
            sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
            return sorted
                .into_iter()
                .map(|(key, element)| ListedElement::InUse(Some(key), element))
                .chain(catchall.map(|element| ListedElement::InUse(None, element)))
                .collect();
        }
        let lives = set.elements.iter().filter(|element| element.deadline.is_none_or(|end| end > self.now));
        let mut sorted: Vec<_> = lives.collect();
        sorted.sort_by(|one, other| (one.key.is_none(), &one.key).cmp(&(other.key.is_none(), &other.key)));
        // What ranges and elements of maps to verdicts have counted.
        let in_use: HashMap<&[u128], &DynElement> = found.iter().map(|(key, element)| (&**key, element)).collect();
        let state_of = |element: &SetElement| match &element.key {
            None => catchall,
            Some(key) if !element.stateful.is_empty() => in_use.get(&*kept_key(key)).copied(),
            Some(_) => None,
        };
        sorted.into_iter().map(|element| ListedElement::OfTree(element, state_of(element))).collect()
    }
}
