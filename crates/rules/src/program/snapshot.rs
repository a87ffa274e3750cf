//! The state of a program, copied piece by piece, to be listed away from the packets.
#![allow(clippy::disallowed_types, reason = "the keys are of the ruleset, not a peer's")]
use super::compiled::{Listing, Program};
use super::set::DynElement;
use super::state::StatefulExpr;
use crate::ast::{Query, QueryKind, Rule, Set};
use keepstate_engine::Instant;
use std::collections::HashMap;
use std::sync::Arc;

/// An element: its key, and the rest.
type ListedElement = (Box<[u128]>, DynElement);

/// A copy of what a listing needs. [`Program::continue_snapshot`] completes it.
#[derive(Debug)]
pub struct RulesetSnapshot {
    pub(super) listing: Arc<Listing>,
    pub(super) counters: Vec<(u64, u64)>,
    /// What quotas have used, by index.
    pub(super) used: Vec<u64>,
    /// Elements of the sets asked for, by set.
    pub(super) elements: HashMap<usize, Vec<ListedElement>>,
    /// The elements `*`, by set.
    pub(super) catchalls: HashMap<usize, DynElement>,
    pub(super) now: Instant,
    /// Sets that are still to be copied, the next one last.
    pending: Vec<usize>,
    /// Elements of that one that were copied, and the room of its table: more room means that they were moved.
    position: (usize, usize),
    /// Sets of which only these elements are still to be copied.
    named: Vec<(usize, Vec<Box<[u128]>>)>,
}

impl Program {
    /// Begins a copy for these queries: counters and quotas at once, elements later.
    pub fn start_snapshot(&self, queries: &[Query], now: Instant) -> RulesetSnapshot {
        let listing = Arc::clone(&self.listing);
        let (mut pending, mut named) = (Vec::new(), Vec::new());
        for (table, listed) in listing.tree.tables.iter().zip(&listing.tables) {
            for set in &table.sets {
                let asked = |query: &&Query| query.covers(table.family, &table.name) && query.shows_set(set);
                let Some(at) = listed.set_indices.get(&set.name).copied() else { continue };
                // Of a set that may be large only what is asked for is copied.
                let whole = |query: &Query| query.elements.is_empty() || !set.is_runtime();
                match queries.iter().filter(asked).any(whole) {
                    true => pending.push(at),
                    false => {
                        let keys: Vec<_> = queries.iter().filter(asked).flat_map(Query::exact_keys).collect();
                        named.extend((!keys.is_empty()).then_some((at, keys)));
                    }
                }
            }
            let declared = |name: &String| table.sets.iter().any(|set| set.name == *name);
            if queries.iter().any(|query| query.kind == QueryKind::Meters && query.covers(table.family, &table.name)) {
                pending.extend(listed.set_indices.iter().filter(|(name, _)| !declared(name)).map(|(_, at)| *at));
            }
        }
        let used = self.state.stateful.iter().map(|state| match state {
            StatefulExpr::Quota { used, .. } => *used,
            _ => 0,
        });
        let catchalls = self.sets.iter().enumerate();
        RulesetSnapshot {
            counters: self.state.counters.clone(),
            used: used.collect(),
            elements: HashMap::new(),
            catchalls: catchalls
                .filter_map(|(at, set)| {
                    Some((at, set.catchall.as_ref().filter(|element| element.lives(now))?.for_listing()))
                })
                .collect(),
            now,
            pending,
            position: (0, 0),
            named,
            listing,
        }
    }

    /// Copies at most about `count` elements. True when the copy is complete; `None` if the ruleset was replaced since it began, and another copy must be
    /// begun.
    pub fn continue_snapshot(&self, snapshot: &mut RulesetSnapshot, count: usize) -> Option<bool> {
        if !Arc::ptr_eq(&self.listing, &snapshot.listing) {
            return None;
        }
        let mut left = count;
        while let Some((at, keys)) = snapshot.named.last_mut() {
            if left == 0 {
                return Some(false);
            }
            let from = keys.len().saturating_sub(left);
            left -= keys.len() - from;
            let set = self.sets.get(*at);
            let copied = snapshot.elements.entry(*at).or_default();
            for key in keys.drain(from..) {
                let found = set.and_then(|set| set.dynamic.get(&key)).filter(|element| element.lives(snapshot.now));
                copied.extend(found.map(|element| (key, element.for_listing())));
            }
            if from == 0 {
                snapshot.named.pop();
            }
        }
        while let Some(at) = snapshot.pending.last().copied() {
            let Some(set) = self.sets.get(at) else {
                snapshot.pending.pop();
                continue;
            };
            let copied = snapshot.elements.entry(at).or_default();
            let (mut done, room) = snapshot.position;
            if room != set.dynamic.capacity() {
                copied.clear();
                done = 0;
            }
            let before = copied.len();
            let lives = |element: &DynElement| element.expires_at.is_none_or(|until| until > snapshot.now);
            let part = set.dynamic.iter().skip(done).take(left);
            copied.extend(
                part.filter(|(_, element)| lives(element)).map(|(key, element)| (key.clone(), element.for_listing())),
            );
            let all = set.dynamic.len();
            let end = done.saturating_add(left).min(all);
            left = left.saturating_sub((end - done.min(end)).max(copied.len() - before));
            if end < all {
                snapshot.position = (end, set.dynamic.capacity());
                return Some(false);
            }
            snapshot.pending.pop();
            snapshot.position = (0, 0);
        }
        Some(true)
    }
}

impl Query {
    /// Is this table asked for?
    pub(crate) fn covers(&self, family: crate::ast::TableFamily, table: &str) -> bool {
        self.family.is_none_or(|wanted| wanted == family) && self.table.as_ref().is_none_or(|wanted| wanted == table)
    }

    /// Is this set of such a table asked for?
    pub(crate) fn shows_set(&self, set: &Set) -> bool {
        let kind = match self.kind {
            QueryKind::Ruleset => true,
            QueryKind::Sets => set.data.is_none(),
            QueryKind::Maps => set.data.is_some(),
            QueryKind::Elements => true,
            _ => false,
        };
        kind && self.name.as_ref().is_none_or(|name| *name == set.name)
    }

    /// Is this rule of such a chain asked for?
    pub(crate) fn shows_rule(&self, rule: &Rule) -> bool {
        self.rule.is_none_or(|handle| handle == rule.handle)
    }

    /// The keys that it names, without those of ranges and `*`.
    fn exact_keys(&self) -> impl Iterator<Item = Box<[u128]>> {
        let keys = self.elements.iter().flatten();
        keys.map(|key| key.iter().map(|(first, _)| *first).collect())
    }
}
