//! What a listing in JSON reads of a snapshot.
use super::compiled::ListedTable;
use super::listed_elements::ListedElement;
use super::listing;
use super::set::{DynElement, ElementValue};
use super::snapshot::RulesetSnapshot;
use super::state::StatefulExpr;
use crate::ast::{AnonymousChain, ElementName, Limit, ObjectBody, Query, QueryKind, Rule, Set, SetElement, Table};

/// A table and the state of what it has.
pub(crate) struct SnapshotTable<'a> {
    pub(crate) tree: &'a Table,
    listed: &'a ListedTable,
    snapshot: &'a RulesetSnapshot,
}

/// An element as a listing shows it.
pub(crate) enum ListedState<'a> {
    /// Of a set whose elements packets and scripts change one by one.
    InUse(ListedElementState),
    /// Of another set, with what it has counted if it counts.
    OfTree(&'a SetElement, Option<ListedElementState>),
}

/// An element of a set in use.
pub(crate) struct ListedElementState {
    /// `None` for the catch-all element.
    pub(crate) key: Option<Box<[u128]>>,
    pub(crate) values: Option<Vec<(u128, u128)>>,
    /// In seconds.
    pub(crate) timeout: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) comment: Option<String>,
    pub(crate) counter: Option<(u64, u64)>,
    pub(crate) limit: Option<Limit>,
    /// `over`, bytes, used.
    pub(crate) quota: Option<(bool, u64, u64)>,
}

/// A chain without a name as text; `counts` are the values of the counters in it.
pub(crate) fn anonymous_chain_text(chain: &AnonymousChain, counts: &mut impl Iterator<Item = (u64, u64)>) -> String {
    listing::anonymous_chain_text(chain, counts)
}

/// Does this kind of query show an object?
pub(crate) fn shows_object(kind: QueryKind, body: &ObjectBody) -> bool {
    listing::shows_object(kind, body)
}

impl RulesetSnapshot {
    /// All tables.
    pub(crate) fn tables(&self) -> impl Iterator<Item = SnapshotTable<'_>> {
        let tables = self.listing.tree.tables.iter().zip(&self.listing.tables);
        tables.map(|(tree, listed)| SnapshotTable { tree, listed, snapshot: self })
    }
}

impl SnapshotTable<'_> {
    pub(crate) fn is_asked_for(&self, query: &Query) -> bool {
        query.covers(self.tree.family, &self.tree.name)
    }

    /// Packets and bytes of a named counter.
    pub(crate) fn counter(&self, name: &str) -> (u64, u64) {
        let at = self.listed.counters.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
        at.and_then(|at| self.snapshot.counters.get(at).copied()).unwrap_or_default()
    }

    /// Bytes that a named quota has used.
    pub(crate) fn quota_used(&self, name: &str) -> u64 {
        let mut found = self.listed.stateful.iter().filter(|((known, quota), _)| known == name && *quota);
        found.next().and_then(|(_, at)| self.snapshot.used.get(*at).copied()).unwrap_or_default()
    }

    /// Packets and bytes of a rule's counters, in order.
    pub(crate) fn rule_counters(&self, rule: &Rule) -> &[(u64, u64)] {
        let slots = self.listed.slots.get(&(rule.handle, rule.replaced));
        slots.and_then(|slots| self.snapshot.counters.get(slots.counters.clone())).unwrap_or_default()
    }

    /// The elements of a set in the order of their keys: all, or those with these names.
    ///
    /// # Errors
    /// It does not have one of them.
    pub(crate) fn elements<'b>(
        &'b self,
        set: &'b Set,
        names: &'b [ElementName],
    ) -> Result<Vec<ListedState<'b>>, String> {
        let now = self.snapshot.now;
        let found = self.snapshot.listed_elements(self.listed, set, names);
        let found = found.map_err(|name| listing::missing_element(set, name))?;
        let states = found.into_iter().map(|one| match one {
            ListedElement::InUse(key, element) => ListedState::InUse(ListedElementState {
                key: key.map(Box::from),
                timeout: element.timeout.filter(|own| Some(*own) != set.timeout),
                expires: element.expires_at.map(|end| end.0.saturating_sub(now.0) / 1_000_000_000),
                ..ListedElementState::of(element)
            }),
            // Those without state of their own are as the tree has them.
            ListedElement::OfTree(element, state) => {
                ListedState::OfTree(element, state.filter(|_| !element.stateful.is_empty()).map(ListedElementState::of))
            }
        });
        Ok(states.collect())
    }
}

impl ListedElementState {
    /// Without a key and times.
    fn of(element: &DynElement) -> ListedElementState {
        let values = match &element.value {
            ElementValue::Values(values) => Some(values.to_vec()),
            _ => None,
        };
        let comment = element.comment.as_deref().map(str::to_owned);
        let (counter, limit, quota) = (None, None, None);
        let mut state =
            ListedElementState { key: None, values, timeout: None, expires: None, comment, counter, limit, quota };
        for own in &element.stateful {
            match own {
                StatefulExpr::Counter(packets, bytes) => state.counter = Some((*packets, *bytes)),
                StatefulExpr::Limit(limit, ..) => state.limit = Some(*limit),
                StatefulExpr::Quota { over, bytes, used } => state.quota = Some((*over, *bytes, *used)),
                StatefulExpr::ConnLimit { .. } => (),
            }
        }
        state
    }
}
