//! `reset`: what counters and quotas had counted when they were listed is taken from them, not set to zero: what packets count in between is never lost.
use super::compiled::{Listing, Program};
use super::snapshot::RulesetSnapshot;
use super::state::StatefulExpr;
use crate::ast::{Query, QueryKind, TableFamily};
use std::ops::Range;
use std::sync::Arc;

/// What was listed of the elements of sets that queries reset: still to be taken from them.
#[derive(Debug, Default)]
pub struct ListedCounts {
    elements: Vec<ListedCount>,
}

#[derive(Debug)]
struct ListedCount {
    family: TableFamily,
    table: String,
    set: String,
    /// `None` is the element `*`.
    key: Option<Box<[u128]>>,
    stateful: Vec<StatefulExpr>,
}

impl Program {
    /// Takes from the counters and quotas that queries reset what a complete copy has of them. It does nothing once another ruleset is in use than the copy's.
    pub fn take_counts(&mut self, queries: &[Query], copy: &RulesetSnapshot) {
        let listing = Arc::clone(&self.listing);
        if !Arc::ptr_eq(&listing, &copy.listing) {
            return;
        }
        for range in queries.iter().filter(|query| query.reset).flat_map(|query| resets_of(&listing, query)) {
            match range {
                ResetRange::Counters(range) => {
                    let counted = copy.counters.get(range.clone()).unwrap_or_default();
                    for (own, counted) in self.state.counters.get_mut(range).unwrap_or_default().iter_mut().zip(counted)
                    {
                        *own = (own.0.saturating_sub(counted.0), own.1.saturating_sub(counted.1));
                    }
                }
                ResetRange::Quotas(range) => {
                    let counted = copy.used.get(range.clone()).unwrap_or_default();
                    for (own, counted) in self.state.stateful.get_mut(range).unwrap_or_default().iter_mut().zip(counted)
                    {
                        if let StatefulExpr::Quota { used, .. } = own {
                            *used = used.saturating_sub(*counted);
                        }
                    }
                }
            }
        }
    }

    /// The same for at most `count` elements, which go on counting in a set of the same name if another ruleset is in use by now. True when none is left.
    pub fn take_element_counts(&mut self, listed: &mut ListedCounts, count: usize) -> bool {
        let from = listed.elements.len().saturating_sub(count);
        for one in listed.elements.drain(from..) {
            let mut tables = self.listing.tables.iter();
            let table = tables.find(|table| table.family == one.family && table.name == one.table);
            let at = table.and_then(|table| table.set_indices.get(&one.set));
            let Some(set) = at.and_then(|at| self.sets.get_mut(*at)) else { continue };
            let element = match &one.key {
                None => set.catchall.as_mut(),
                Some(key) => set.dynamic.get_mut(key),
            };
            let Some(element) = element else { continue };
            element.stateful.iter_mut().zip(&one.stateful).for_each(|(own, counted)| own.take(counted));
        }
        listed.elements.is_empty()
    }
}

impl RulesetSnapshot {
    /// What this complete copy has of the elements that queries reset.
    pub fn listed_counts(&self, queries: &[Query]) -> ListedCounts {
        let mut counts = ListedCounts::default();
        for query in queries.iter().filter(|query| query.reset) {
            for (table, listed) in self.listing.tree.tables.iter().zip(&self.listing.tables) {
                let asked = |set: &&crate::ast::Set| query.covers(table.family, &table.name) && query.shows_set(set);
                for set in table.sets.iter().filter(asked) {
                    // What is not there was refused when it was listed.
                    let elements = self.listed_elements(listed, set, &query.elements).unwrap_or_default();
                    let mut keys = std::collections::BTreeSet::new();
                    for element in elements {
                        let (key, Some(state)) = (element.state_key(), element.state()) else { continue };
                        // One that was named twice has counted once.
                        if state.stateful.is_empty() || !keys.insert(key.clone()) {
                            continue;
                        }
                        counts.elements.push(ListedCount {
                            family: table.family,
                            table: table.name.clone(),
                            set: set.name.clone(),
                            key,
                            stateful: state.stateful.clone(),
                        });
                    }
                }
            }
        }
        counts
    }
}

enum ResetRange {
    Counters(Range<usize>),
    Quotas(Range<usize>),
}

/// The counters and quotas outside of sets that a query resets.
fn resets_of(listing: &Listing, query: &Query) -> Vec<ResetRange> {
    let mut found = Vec::new();
    let named = |name: &String| query.name.as_ref().is_none_or(|wanted| wanted == name);
    let tables = listing.tables.iter().zip(&listing.tree.tables);
    for (listed, table) in tables.filter(|(listed, _)| query.covers(listed.family, &listed.name)) {
        match query.kind {
            QueryKind::Counters => {
                let counters = listed.counters.iter().filter(|(name, _)| named(name));
                found.extend(counters.map(|(_, at)| ResetRange::Counters(*at..*at + 1)));
            }
            QueryKind::Quotas => {
                let quotas = listed.stateful.iter().filter(|((name, quota), _)| *quota && named(name));
                found.extend(quotas.map(|(_, at)| ResetRange::Quotas(*at..*at + 1)));
            }
            QueryKind::Rules => {
                let chains = table.chains.iter().filter(|chain| named(&chain.name));
                let rules = chains.flat_map(|chain| &chain.rules).filter(|rule| query.shows_rule(rule));
                for slots in rules.filter_map(|rule| listed.slots.get(&(rule.handle, rule.replaced))) {
                    found.push(ResetRange::Counters(slots.counters.clone()));
                    found.push(ResetRange::Quotas(slots.stateful.clone()));
                }
            }
            _ => (),
        }
    }
    found
}
