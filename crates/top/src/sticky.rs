//! Rows that do not jump: whoever is still on the page keeps its place, newcomers get the places that became free.
use keepstate_live::{FlowKey, FlowRow};
use std::collections::HashMap;

/// Orders the rows of a page so that those that were shown before, in `before`, stay where they were.
pub(crate) fn keep_places(before: &[FlowKey], rows: Vec<FlowRow>) -> Vec<FlowRow> {
    let places: HashMap<&FlowKey, usize> = before.iter().enumerate().map(|(at, key)| (key, at)).collect();
    let count = rows.len();
    let mut placed: Vec<Option<FlowRow>> = Vec::new();
    placed.resize_with(count, || None);
    let mut others = Vec::new();
    for row in rows {
        match places.get(&row.key).and_then(|at| placed.get_mut(*at)) {
            Some(place @ None) => *place = Some(row),
            _ => others.push(row),
        }
    }
    let mut others = others.into_iter();
    placed.into_iter().filter_map(|place| place.or_else(|| others.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::row;

    #[test]
    fn who_stays_keeps_its_place_and_the_rest_fills_the_gaps() {
        let keys = |ports: &[u16]| ports.iter().map(|port| row(*port).key).collect::<Vec<_>>();
        let ordered = |before: &[u16], now: &[u16]| {
            let rows = keep_places(&keys(before), now.iter().map(|port| row(*port)).collect());
            rows.iter().map(|row| row.key.ports[0]).collect::<Vec<_>>()
        };
        assert_eq!(ordered(&[1, 2, 3], &[9, 1, 3]), [1, 9, 3]);
        assert_eq!(ordered(&[1, 2, 3], &[3, 2, 1]), [1, 2, 3]);
        assert_eq!(ordered(&[], &[5, 4]), [5, 4]);
        assert_eq!(ordered(&[1, 2, 3, 4], &[4, 8]), [4, 8], "its place is gone with the rows");
    }
}
