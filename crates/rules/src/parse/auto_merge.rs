//! Ranges of a set with `auto-merge`, joined as nft joins them.
use crate::ast::{Set, SetElement};

/// Joins ranges that overlap or touch. The first `known` elements were there before: as in nft 1.0.6 a range that grows has the timeout and the comment of the
/// one that made it grow, and one that is inside another adds nothing.
pub(super) fn merge_elements(set: &mut Set, known: usize) {
    if !set.auto_merge || !set.interval || set.data.is_some() || set.key.len() != 1 {
        return;
    }
    let mut rest = Vec::new();
    let mut ranges: Vec<((u128, u128), bool, SetElement)> = Vec::with_capacity(set.elements.len());
    for (at, element) in set.elements.drain(..).enumerate() {
        match element.key.as_deref() {
            Some([range]) => ranges.push((*range, at < known, element)),
            _ => rest.push(element),
        }
    }
    ranges.sort_by_key(|(range, known, _)| (*range, *known));
    let mut joined: Vec<((u128, u128), bool, SetElement)> = Vec::with_capacity(ranges.len());
    for ((first, last), known, element) in ranges {
        match joined.last_mut() {
            Some(((_, end), ..)) if last <= *end => (),
            Some(((start, end), before_known, before)) if first <= end.saturating_add(1) => {
                *end = last;
                if *before_known {
                    (*before_known, *before) = (known, element);
                }
                before.key = Some(vec![(*start, *end)]);
            }
            _ => joined.push(((first, last), known, element)),
        }
    }
    set.elements = joined.into_iter().map(|(.., element)| element).chain(rest).collect();
}
