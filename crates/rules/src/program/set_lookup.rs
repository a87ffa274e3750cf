//! Which key of which set was looked up, and which lookups a change of sets concerns.
//!
//! An evaluation notes its lookups in named sets ([`EvalTrace`](super::EvalTrace)). When elements come or go, whoever goes by the outcome of an evaluation asks the change's [`LookupScope`]: a lookup
//! outside finds what it has found before. A lookup is kept in few bytes: names, and the parts of a key behind the first, are hashed. So a scope may hold more lookups than it concerns, never fewer.
use crate::ast::TableFamily;
use keepstate_wire::jhash::jhash;

/// A lookup of a key in a named set. In ascending order those of a set stand together, and of those the ones with the same first part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetLookup {
    /// The number of the set.
    set: u32,
    /// The first part of the key: its upper and its lower half.
    first: (u64, u64),
    /// A hash of the further parts.
    rest: u32,
}

impl SetLookup {
    /// Stands for any lookup, where more were made than are noted. Every change concerns it.
    pub const ANY: SetLookup = SetLookup { set: 0, first: (0, 0), rest: 0 };

    pub(super) fn new(set: u32, key: &[u128]) -> SetLookup {
        let (first, rest) = key.split_first().unwrap_or((&0, &[]));
        SetLookup { set, first: halves(*first), rest: hash_of_rest(rest.iter().copied()) }
    }
}

/// The number of a named set, the same in every program that has it.
pub(super) fn set_number(family: TableFamily, table: &str, name: &str) -> u32 {
    jhash(format!("{family} {table} {name}").as_bytes(), 0).max(SetLookup::ANY.set + 1)
}

fn hash_of_rest(parts: impl Iterator<Item = u128>) -> u32 {
    parts.fold(0, |hash, part| jhash(&part.to_be_bytes(), hash))
}

fn halves(value: u128) -> (u64, u64) {
    ((value >> 64) as u64, (value & u128::from(u64::MAX)) as u64)
}

/// Lookups next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupRange {
    /// The first one.
    pub first: SetLookup,
    /// The last one.
    pub last: SetLookup,
    /// Of these, only lookups with this hash of the further parts.
    rest: Option<u32>,
}

impl LookupRange {
    const ANY: LookupRange = LookupRange { first: SetLookup::ANY, last: SetLookup::ANY, rest: None };

    /// All lookups in a set.
    pub(super) fn whole_set(set: u32) -> LookupRange {
        LookupRange {
            first: SetLookup { set, ..SetLookup::ANY },
            last: SetLookup { set, first: (u64::MAX, u64::MAX), rest: u32::MAX },
            rest: None,
        }
    }

    /// The lookups of one key.
    pub(super) fn of_key(set: u32, key: &[u128]) -> LookupRange {
        let lookup = SetLookup::new(set, key);
        LookupRange { first: lookup, last: lookup, rest: None }
    }

    /// The lookups that find an element: a range for each part of its key, or everything (`*`).
    pub(super) fn of_element(set: u32, key: Option<&[(u128, u128)]>) -> LookupRange {
        let Some(((first, last), rest)) = key.and_then(<[_]>::split_first) else {
            return LookupRange::whole_set(set);
        };
        let rest =
            rest.iter().all(|(first, last)| first == last).then(|| hash_of_rest(rest.iter().map(|(value, _)| *value)));
        LookupRange {
            first: SetLookup { set, first: halves(*first), rest: 0 },
            last: SetLookup { set, first: halves(*last), rest: u32::MAX },
            rest,
        }
    }

    /// Is this lookup one of them?
    pub fn contains(&self, lookup: SetLookup) -> bool {
        (self.first..=self.last).contains(&lookup) && self.rest.is_none_or(|rest| rest == lookup.rest)
    }
}

/// The lookups whose outcome a change may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupScope {
    /// Everything that has been evaluated: rules have changed.
    All,
    /// Those of these ranges alone.
    Ranges(Vec<LookupRange>),
}

impl Default for LookupScope {
    fn default() -> LookupScope {
        LookupScope::Ranges(Vec::new())
    }
}

impl LookupScope {
    /// Adds lookups.
    pub(super) fn add(&mut self, range: LookupRange) {
        let LookupScope::Ranges(ranges) = self else { return };
        if ranges.is_empty() {
            ranges.push(LookupRange::ANY);
        }
        ranges.push(range);
    }

    /// Adds the lookups of a set that find these elements; all lookups in it if the elements are many.
    pub(super) fn add_of_set(&mut self, set: u32, elements: impl Iterator<Item = LookupRange>) {
        let mut few = Vec::new();
        for element in elements {
            if few.len() >= MAX_RANGES_OF_SET {
                return self.add(LookupRange::whole_set(set));
            }
            few.push(element);
        }
        few.into_iter().for_each(|element| self.add(element));
    }

    /// Adds what another scope has.
    pub(super) fn extend(&mut self, other: LookupScope) {
        match other {
            LookupScope::All => *self = LookupScope::All,
            LookupScope::Ranges(ranges) => ranges.into_iter().for_each(|range| self.add(range)),
        }
    }

    /// Is this lookup one of them?
    pub fn contains(&self, lookup: SetLookup) -> bool {
        match self {
            LookupScope::All => true,
            LookupScope::Ranges(ranges) => ranges.iter().any(|range| range.contains(lookup)),
        }
    }
}

/// More changed elements of a set count as the whole set.
const MAX_RANGES_OF_SET: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_concerns_the_lookups_that_find_it() {
        let lookup = |key: &[u128]| SetLookup::new(7, key);
        let exact = LookupRange::of_element(7, Some(&[(5, 5), (80, 80)]));
        assert!(exact.contains(lookup(&[5, 80])));
        for other in [lookup(&[5, 81]), lookup(&[6, 80]), lookup(&[5]), SetLookup::new(8, &[5, 80])] {
            assert!(!exact.contains(other), "{other:?}");
        }
        let net = LookupRange::of_element(7, Some(&[(0x0a00_0000, 0x0aff_ffff), (80, 80)]));
        assert!(net.contains(lookup(&[0x0a01_0203, 80])));
        assert!(!net.contains(lookup(&[0x0a01_0203, 81])) && !net.contains(lookup(&[0x0b00_0000, 80])));
        let ports = LookupRange::of_element(7, Some(&[(5, 5), (80, 90)]));
        assert!(ports.contains(lookup(&[5, 85])) && !ports.contains(lookup(&[6, 85])));
        let wide = LookupRange::of_element(7, Some(&[(1 << 100, 2 << 100)]));
        assert!(wide.contains(lookup(&[(1 << 100) + 9])) && !wide.contains(lookup(&[9])));
        let all = LookupRange::of_element(7, None);
        assert!(all.contains(lookup(&[u128::MAX, 3])) && !all.contains(SetLookup::new(6, &[0])));
        assert_eq!(LookupRange::of_key(7, &[5, 80]).first, lookup(&[5, 80]));
    }

    #[test]
    fn every_change_concerns_what_was_not_noted_but_no_change_none() {
        let mut scope = LookupScope::default();
        assert!(!scope.contains(SetLookup::ANY));
        scope.add_of_set(7, (0..9).map(|key| LookupRange::of_key(7, &[key])));
        assert!(scope.contains(SetLookup::ANY) && scope.contains(SetLookup::new(7, &[8])));
        assert!(!scope.contains(SetLookup::new(7, &[9])));
        scope.add_of_set(7, (0..5000).map(|key| LookupRange::of_key(7, &[key])));
        assert!(scope.contains(SetLookup::new(7, &[1 << 90])) && !scope.contains(SetLookup::new(8, &[0])));
        scope.extend(LookupScope::All);
        assert_eq!(scope, LookupScope::All);
    }
}
