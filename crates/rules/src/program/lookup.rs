//! Sets and maps for looking up: exact keys by hash, ranges of one part by halving, ranges in keys of several parts by cutting (`boxes`).
use super::Verdict;
use super::boxes::{Boxes, Ranges};
use keepstate_engine::Instant;
use std::collections::HashMap;
use std::time::Duration;

/// A set or a map. Its elements never change but those that packets add.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    exact: HashMap<Box<[u128]>, Found>,
    /// Ranges of a key of one part, by their beginnings; none overlap.
    ranges: Vec<(u128, u128, Found)>,
    /// Keys of several parts with ranges among them.
    wide: Boxes,
    /// What every other key has.
    otherwise: Option<Found>,
    /// What packets have added.
    pub(super) living: HashMap<Box<[u128]>, Living>,
    pub(super) timeout: Option<u64>,
    pub(super) most: usize,
}

/// What an element maps to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: it is an element of a set.
    #[default]
    Here,
    Values(Ranges),
    Verdict(Verdict),
    /// Something that is over after so many seconds; when that is, is known once packets come.
    Timed(Box<Found>, u64, Option<Instant>),
}

impl Found {
    /// What it is now, if it is not over.
    fn at(&self, now: Instant) -> Option<&Found> {
        match self {
            Found::Timed(found, _, end) => end.is_none_or(|end| end > now).then_some(found),
            found => Some(found),
        }
    }

    fn begin(&mut self, now: Instant) {
        if let Found::Timed(_, seconds, end @ None) = self {
            *end = Some(now.after(Duration::from_secs(*seconds)));
        }
    }
}

/// An element that a packet has added, or can take away.
#[derive(Debug, Default)]
pub(super) struct Living {
    /// Of an element that the ruleset has: for how many seconds from its first packet on.
    pub(super) lasts: Option<u64>,
    pub(super) until: Option<Instant>,
    pub(super) each: Vec<super::state::Meter>,
    pub(super) found: Found,
}

/// Why an element cannot be in its set.
pub(super) enum Conflict {
    /// It overlaps another, and the set does not put them together.
    Overlap,
    /// The same key maps to something else already.
    Twice,
}

impl Lookup {
    /// An empty one, into which packets may put so many elements, for so many seconds.
    pub(super) fn new(timeout: Option<u64>, most: usize) -> Lookup {
        Lookup { timeout, most, ..Lookup::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.exact.len() + self.ranges.len() + self.wide.len() + self.living.len()
    }

    pub(super) fn put(&mut self, key: Option<&[(u128, u128)]>, found: Found) -> Result<(), Conflict> {
        let Some(key) = key else {
            self.otherwise = Some(found);
            return Ok(());
        };
        if key.iter().all(|(first, last)| first == last) {
            let key: Box<[u128]> = key.iter().map(|(first, _)| *first).collect();
            let before = self.exact.insert(key, found.clone());
            return if before.is_some_and(|before| before != found) { Err(Conflict::Twice) } else { Ok(()) };
        }
        match key {
            [(first, last)] => self.ranges.push((*first, *last, found)),
            _ => self.wide.push(key.into(), found),
        }
        Ok(())
    }

    /// When the last element was put in.
    pub(super) fn finish(&mut self, merges: bool) -> Result<(), Conflict> {
        self.wide.finish();
        self.ranges.sort_by_key(|(first, last, _)| (*first, *last));
        let mut joined: Vec<(u128, u128, Found)> = Vec::with_capacity(self.ranges.len());
        for (first, last, found) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some((_, end, before)) if first <= *end => {
                    if !(merges && found == *before) {
                        return Err(Conflict::Overlap);
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
        let inside = |key: &[u128]| matches!(key, [only] if self.range(*only).is_some());
        if self.exact.keys().any(|key| inside(key)) { Err(Conflict::Overlap) } else { Ok(()) }
    }

    /// From now on the time of its elements runs.
    pub(super) fn begin(&mut self, now: Instant) {
        self.exact.values_mut().for_each(|found| found.begin(now));
        self.ranges.iter_mut().for_each(|(.., found)| found.begin(now));
        self.wide.values_mut().for_each(|found| found.begin(now));
        for living in self.living.values_mut() {
            if let Some(seconds) = living.lasts.take() {
                living.until = Some(now.after(Duration::from_secs(seconds)));
            }
        }
    }

    fn range(&self, value: u128) -> Option<&Found> {
        let behind = self.ranges.partition_point(|(first, ..)| *first <= value);
        let (_, last, found) = self.ranges.get(behind.checked_sub(1)?)?;
        (value <= *last).then_some(found)
    }

    /// What the set has for a key.
    pub(super) fn find(&self, key: &[u128], now: Instant) -> Option<&Found> {
        if let Some(found) = self.exact.get(key).and_then(|found| found.at(now)) {
            return Some(found);
        }
        if let [only] = key
            && let Some(found) = self.range(*only).and_then(|found| found.at(now))
        {
            return Some(found);
        }
        if let Some(found) = self.wide.find(key).and_then(|found| found.at(now)) {
            return Some(found);
        }
        if !self.living.is_empty()
            && let Some(living) = self.living.get(key)
            && living.until.is_none_or(|until| until > now)
        {
            return Some(&living.found);
        }
        self.otherwise.as_ref()
    }

    /// Room for one more that a packet adds; what is over is thrown out first.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        if self.living.len() < self.most {
            return true;
        }
        self.living.retain(|_, living| living.until.is_none_or(|until| until > now));
        self.living.len() < self.most
    }
}
