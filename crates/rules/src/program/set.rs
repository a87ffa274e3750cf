//! Compiled sets and maps: exact keys in a hash table, ranges of one part by binary search, ranges in concatenations in a [`RangeTree`].
#![allow(clippy::disallowed_types, reason = "std's map hashes with SipHash-1-3 and a random key")]
use super::instr::CompiledVerdict;
use super::range_tree::{KeyRanges, RangeTree};
use super::state::StatefulExpr;
use crate::ast::DEFAULT_DYNSET_SIZE;
use keepstate_engine::Instant;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::time::Duration;

/// A set or a map. Only its dynamic elements change.
#[derive(Clone, Debug, Default)]
pub(super) struct CompiledSet {
    exact: HashMap<Box<[u128]>, ElementValue>,
    /// Ranges of a key of one part, sorted by start, without overlaps.
    ranges: Vec<(u128, u128, ElementValue)>,
    /// Keys of several parts with ranges.
    concat_ranges: RangeTree<ElementValue>,
    /// The catch-all element `*`.
    pub(super) catchall: Option<DynElement>,
    /// Elements that packets add or delete, that expire, or that have state.
    pub(super) dynamic: HashMap<Box<[u128]>, DynElement>,
    pub(super) timeout: Option<u64>,
    /// Most elements, if the set says so.
    pub(super) max_size: Option<usize>,
    /// Something is to be kept when the ruleset is read again: elements of packets and scripts, timeouts that run, state of elements.
    pub(super) has_state: bool,
    /// How many of the dynamic elements the ruleset's file has named.
    pub(super) declared: usize,
    /// When expired elements are searched for again to make room.
    next_cleanup: Instant,
    /// Packets add or delete elements.
    pub(super) packets_update: bool,
    /// An element of the ruleset's text expires.
    pub(super) expires: bool,
    /// A range has state ([`ElementValue::Kept`]).
    pub(super) has_kept_ranges: bool,
    /// Its number in lookups, if scripts can change its elements: it has a name.
    pub(super) number: Option<u32>,
}

/// The least time between two searches for expired elements of a full set: a packet's work must not grow with the set.
const CLEANUP_INTERVAL: Duration = Duration::from_millis(100);

/// What an element maps to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ElementValue {
    /// No value: an element of a set.
    #[default]
    Present,
    Values(KeyRanges),
    Verdict(CompiledVerdict),
    /// A value with a timeout in seconds; the end is set when the first packet is evaluated.
    Expiring(Box<ElementValue>, u64, Option<Instant>),
    /// The element is a range that has state: value and state stand among the dynamic elements, under this key ([`kept_key`]).
    Kept(Box<[u128]>),
}

/// The key of an element in the dynamic part of a set: a value for each part, or both ends of each part if one of them is a range.
pub(super) fn kept_key(key: &[(u128, u128)]) -> Box<[u128]> {
    match key.iter().all(|(first, last)| first == last) {
        true => key.iter().map(|(first, _)| *first).collect(),
        false => key.iter().flat_map(|(first, last)| [*first, *last]).collect(),
    }
}

impl ElementValue {
    /// The value, unless it has expired.
    fn unexpired(&self, now: Instant) -> Option<&ElementValue> {
        match self {
            ElementValue::Expiring(found, _, end) => end.is_none_or(|end| end > now).then_some(found),
            found => Some(found),
        }
    }

    fn start_timeout(&mut self, now: Instant) {
        if let ElementValue::Expiring(_, seconds, end @ None) = self {
            *end = Some(now.after(Duration::from_secs(*seconds)));
        }
    }
}

/// An element in the dynamic part of a set.
#[derive(Clone, Debug, Default)]
pub(super) struct DynElement {
    /// Timeout in seconds, of an element that a ruleset or a script names: from the first packet on, or from the script on.
    pub(super) timeout: Option<u64>,
    /// What was left of it when the text was written.
    pub(super) time_left: Option<u64>,
    /// The ruleset's file names it.
    pub(super) declared: bool,
    pub(super) expires_at: Option<Instant>,
    pub(super) stateful: Vec<StatefulExpr>,
    pub(super) value: ElementValue,
    pub(super) comment: Option<Box<str>>,
}

impl DynElement {
    /// Has it not ended yet?
    pub(super) fn lives(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|until| until > now)
    }

    /// Does whoever has found the one find the same in the other, for ever? Not if one expires or counts.
    pub(super) fn is_like(&self, other: &DynElement) -> bool {
        let lasts = |one: &DynElement| one.timeout.is_none() && one.expires_at.is_none() && one.stateful.is_empty();
        lasts(self) && lasts(other) && self.value == other.value
    }

    /// A copy without the connections that it counts, which no listing shows.
    pub(super) fn for_listing(&self) -> DynElement {
        let stateful = self.stateful.iter().map(StatefulExpr::for_listing).collect();
        DynElement { stateful, value: self.value.clone(), comment: self.comment.clone(), ..*self }
    }
}

/// Why an element cannot be added.
pub(super) enum ElementConflict {
    /// It overlaps another element, and the set does not merge them.
    Overlap,
    /// The same key already maps to another value.
    DuplicateKey,
}

impl CompiledSet {
    /// An empty set with a default timeout in seconds and a maximum number of dynamic elements.
    pub(super) fn new(timeout: Option<u64>, max_size: Option<usize>) -> CompiledSet {
        CompiledSet { timeout, max_size, ..CompiledSet::default() }
    }

    /// May a lookup of this key give another result for the next packet, though nobody has changed the ruleset? What is not found stays so, unless packets add it.
    pub(super) fn changes_by_itself(&self, key: &[u128]) -> bool {
        let changes = |element: &DynElement| {
            element.timeout.is_some() || element.expires_at.is_some() || !element.stateful.is_empty()
        };
        self.packets_update
            || self.expires
            || self.dynamic.get(key).is_some_and(changes)
            || self.kept_range(key, Instant::default()).is_some()
            || self.catchall.as_ref().is_some_and(changes)
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.ranges.len() + self.concat_ranges.len() + self.dynamic.len()
    }

    pub(super) fn insert(&mut self, key: Option<&[(u128, u128)]>, found: ElementValue) -> Result<(), ElementConflict> {
        self.expires |= matches!(found, ElementValue::Expiring(..));
        let Some(key) = key else {
            self.catchall = Some(DynElement { value: found, declared: true, ..DynElement::default() });
            return Ok(());
        };
        if key.iter().all(|(first, last)| first == last) {
            let key: Box<[u128]> = key.iter().map(|(first, _)| *first).collect();
            let before = self.exact.insert(key, found.clone());
            return if before.is_some_and(|before| before != found) {
                Err(ElementConflict::DuplicateKey)
            } else {
                Ok(())
            };
        }
        match key {
            [(first, last)] => self.ranges.push((*first, *last, found)),
            _ => self.concat_ranges.push(key.into(), found),
        }
        Ok(())
    }

    /// Builds the lookup structures after the last element was inserted.
    pub(super) fn build(&mut self, merges: bool) -> Result<(), ElementConflict> {
        self.concat_ranges.build();
        self.ranges.sort_by_key(|(first, last, _)| (*first, *last));
        let mut joined: Vec<(u128, u128, ElementValue)> = Vec::with_capacity(self.ranges.len());
        for (first, last, found) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some((start, end, before)) if (first, last, &found) == (*start, *end, before) => (),
                Some((_, end, before)) if first <= *end => {
                    if !(merges && found == *before) {
                        return Err(ElementConflict::Overlap);
                    }
                    *end = last.max(*end);
                }
                _ => joined.push((first, last, found)),
            }
        }
        self.ranges = joined;
        if self.ranges.is_empty() || merges {
            return Ok(());
        }
        let inside = |key: &[u128]| matches!(key, [only] if self.find_range(*only).is_some());
        if self.exact.keys().any(|key| inside(key)) { Err(ElementConflict::Overlap) } else { Ok(()) }
    }

    /// Starts the timeouts of the ruleset's elements.
    pub(super) fn start_timeouts(&mut self, now: Instant) {
        self.exact.values_mut().for_each(|found| found.start_timeout(now));
        self.ranges.iter_mut().for_each(|(.., found)| found.start_timeout(now));
        self.concat_ranges.values_mut().for_each(|found| found.start_timeout(now));
        self.catchall.iter_mut().for_each(|element| element.value.start_timeout(now));
        for element in self.dynamic.values_mut().chain(&mut self.catchall) {
            if element.expires_at.is_none()
                && let Some(seconds) = element.time_left.or(element.timeout)
            {
                element.expires_at = Some(now.after(Duration::from_secs(seconds)));
            }
        }
    }

    fn find_range(&self, value: u128) -> Option<&ElementValue> {
        let behind = self.ranges.partition_point(|(first, ..)| *first <= value);
        let (_, last, found) = self.ranges.get(behind.checked_sub(1)?)?;
        (value <= *last).then_some(found)
    }

    /// Value of a key.
    pub(super) fn find(&self, key: &[u128], now: Instant) -> Option<&ElementValue> {
        self.find_key(key, now)
            .or_else(|| self.catchall.as_ref().filter(|element| element.lives(now))?.value.unexpired(now))
    }

    /// The element that a key finds, if it is one with state.
    pub(super) fn element_mut(&mut self, key: &[u128], now: Instant) -> Option<&mut DynElement> {
        let by_catchall = self.catchall.as_ref().is_some_and(|element| !element.stateful.is_empty())
            && self.find_key(key, now).is_none();
        if by_catchall {
            return self.catchall.as_mut();
        }
        if self.dynamic.is_empty() {
            return None;
        }
        // Copied without an allocation: both ends of each of six parts fit.
        match self.kept_range(key, now).map(SmallVec::<[u128; 12]>::from_slice) {
            Some(kept) => self.dynamic.get_mut(kept.as_slice()),
            None => self.dynamic.get_mut(key).filter(|element| element.lives(now)),
        }
    }

    /// The key of the range with state that a key finds.
    fn kept_range(&self, key: &[u128], now: Instant) -> Option<&[u128]> {
        if !self.has_kept_ranges {
            return None;
        }
        match self.find_in_text(key, now) {
            Some(ElementValue::Kept(kept)) => Some(kept),
            _ => None,
        }
    }

    fn find_key(&self, key: &[u128], now: Instant) -> Option<&ElementValue> {
        match self.find_in_text(key, now) {
            Some(ElementValue::Kept(kept)) => return self.dynamic.get(kept).map(|element| &element.value),
            Some(found) => return Some(found),
            None => (),
        }
        if !self.dynamic.is_empty()
            && let Some(element) = self.dynamic.get(key)
            && element.lives(now)
        {
            return Some(&element.value);
        }
        None
    }

    /// What a key finds among the elements that were built once.
    fn find_in_text(&self, key: &[u128], now: Instant) -> Option<&ElementValue> {
        if let Some(found) = self.exact.get(key).and_then(|found| found.unexpired(now)) {
            return Some(found);
        }
        if let [only] = key
            && let Some(found) = self.find_range(*only).and_then(|found| found.unexpired(now))
        {
            return Some(found);
        }
        self.concat_ranges.find(key).and_then(|found| found.unexpired(now))
    }

    /// Is there room for one more dynamic element? Removes expired ones if the set is full.
    pub(super) fn make_room(&mut self, now: Instant) -> bool {
        let most = self.max_size.unwrap_or(DEFAULT_DYNSET_SIZE as usize);
        if self.dynamic.len() < most {
            return true;
        }
        if now < self.next_cleanup {
            return false;
        }
        self.next_cleanup = now.after(CLEANUP_INTERVAL);
        self.dynamic.retain(|_, element| element.expires_at.is_none_or(|until| until > now));
        self.dynamic.len() < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_is_searched_for_expired_elements_once_in_an_interval() {
        let mut set = CompiledSet::new(None, Some(2));
        let start = Instant::from_secs(100);
        for (key, seconds) in [(1, 5), (2, 60)] {
            assert!(set.make_room(start));
            let expires_at = Some(start.after(Duration::from_secs(seconds)));
            set.dynamic.insert([key].into(), DynElement { expires_at, ..DynElement::default() });
        }
        assert!(!set.make_room(start), "it is full, and nothing has expired");
        let due = start.after(CLEANUP_INTERVAL);
        let expired = Instant(due.0 - 1);
        if let Some(element) = set.dynamic.get_mut([1].as_slice()) {
            element.expires_at = Some(expired);
        }
        assert!(!set.make_room(expired), "it was searched just before");
        assert!(set.make_room(due));
        assert_eq!(set.dynamic.len(), 1);
    }
}
