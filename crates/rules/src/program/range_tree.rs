//! Lookup of keys of several parts with ranges: boxes in several dimensions, in a binary space partition.
//!
//! Each inner node compares one part of the key with one value; a leaf holds a handful of boxes that are scanned. A set of 10,000 such elements costs twice
//! what one of 100 costs, not a hundred times. A box that a split goes through is stored on both sides; [`MAX_DUPLICATION`] bounds how often.
/// A range for each part of a key.
pub(super) type KeyRanges = Box<[(u128, u128)]>;

/// Up to this many boxes are scanned in a leaf.
const MAX_LEAF_SCAN: usize = 8;
/// Average number of leaves that hold a box, at most; nodes that cannot be split within it become larger leaves.
const MAX_DUPLICATION: usize = 16;

/// The boxes and the tree over them.
#[derive(Clone, Debug)]
pub(super) struct RangeTree<V> {
    entries: Vec<(KeyRanges, V)>,
    nodes: Vec<Node>,
    /// Indices into `entries`, leaf by leaf.
    leaves: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    /// Keys with this part less than `at` go to `below`, the others to `above`.
    Split { part: usize, at: u128, below: usize, above: usize },
    /// A range of `leaves`.
    Leaf { from: usize, to: usize },
}

impl<V> Default for RangeTree<V> {
    fn default() -> RangeTree<V> {
        RangeTree { entries: Vec::new(), nodes: Vec::new(), leaves: Vec::new() }
    }
}

impl<V> RangeTree<V> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn push(&mut self, ranges: KeyRanges, found: V) {
        self.entries.push((ranges, found));
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, found)| found)
    }

    /// Builds the tree after the last box was inserted.
    pub(super) fn build(&mut self) {
        self.nodes.clear();
        self.leaves.clear();
        let places = (0..self.entries.len() as u32).collect();
        let mut budget = MAX_DUPLICATION * self.entries.len();
        self.build_node(places, &mut budget);
    }

    /// Builds a tree of these boxes with a budget of duplicates; returns its root. Its depth is bounded: a split leaves some boxes on either side.
    fn build_node(&mut self, places: Vec<u32>, budget: &mut usize) -> usize {
        let root = self.nodes.len();
        self.nodes.push(Node::Leaf { from: 0, to: 0 });
        let node = match self.best_split(&places) {
            Some((part, at, twice)) if twice <= *budget => {
                *budget -= twice;
                let (mut low, mut high) = (Vec::new(), Vec::new());
                for place in places {
                    let Some((first, last)) = self.entry_range(place, part) else { continue };
                    low.extend((*first < at).then_some(place));
                    high.extend((*last >= at).then_some(place));
                }
                let below = self.build_node(low, budget);
                let above = self.build_node(high, budget);
                Node::Split { part, at, below, above }
            }
            _ => {
                let from = self.leaves.len();
                self.leaves.extend(places);
                Node::Leaf { from, to: self.leaves.len() }
            }
        };
        if let Some(place) = self.nodes.get_mut(root) {
            *place = node;
        }
        root
    }

    /// The best split, into the smallest halves: part, value, and number of duplicated boxes. `None` for few boxes, or if no split makes them fewer.
    fn best_split(&self, places: &[u32]) -> Option<(usize, u128, usize)> {
        if places.len() <= MAX_LEAF_SCAN {
            return None;
        }
        let parts =
            places.first().and_then(|place| self.entries.get(*place as usize)).map_or(0, |(ranges, _)| ranges.len());
        let mut best: Option<(usize, usize, usize, u128)> = None;
        for part in 0..parts {
            let ranges: Vec<(u128, u128)> =
                places.iter().filter_map(|place| self.entry_range(*place, part).copied()).collect();
            let mut ends: Vec<u128> =
                ranges.iter().flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten().collect();
            let middle = ends.len() / 2;
            let (_, at, _) = ends.select_nth_unstable(middle);
            let below = ranges.iter().filter(|(first, _)| *first < *at).count();
            let above = ranges.iter().filter(|(_, last)| *last >= *at).count();
            let (larger, sum) = (below.max(above), below + above);
            // A split that leaves nearly everything on one side is useless, and would make the tree deep.
            let worth = larger + places.len().div_ceil(MAX_LEAF_SCAN) <= places.len();
            if worth && best.is_none_or(|(before, doubled, ..)| (larger, sum) < (before, doubled)) {
                best = Some((larger, sum, part, *at));
            }
        }
        best.map(|(_, sum, part, at)| (part, at, sum - places.len()))
    }

    fn entry_range(&self, place: u32, part: usize) -> Option<&(u128, u128)> {
        self.entries.get(place as usize)?.0.get(part)
    }

    /// The value of the first inserted box that contains this key.
    pub(super) fn find(&self, key: &[u128]) -> Option<&V> {
        let mut node = self.nodes.first()?;
        loop {
            match *node {
                Node::Split { part, at, below, above } => {
                    node = self.nodes.get(if *key.get(part)? < at { below } else { above })?;
                }
                Node::Leaf { from, to } => {
                    let places = self.leaves.get(from..to)?;
                    let here = places.iter().filter_map(|place| self.entries.get(*place as usize));
                    return here.into_iter().find(|(ranges, _)| contains(ranges, key)).map(|(_, found)| found);
                }
            }
        }
    }
}

fn contains(ranges: &[(u128, u128)], key: &[u128]) -> bool {
    ranges.iter().zip(key).all(|((first, last), part)| (*first..=*last).contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pseudo-random number.
    fn next_random(seed: &mut u64) -> u128 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u128::from(*seed >> 33)
    }

    #[test]
    fn lookup_matches_linear_scan() {
        let mut seed = 7;
        for round in 0..60_u128 {
            let count = [1, 7, 9, 40, 300][round as usize % 5];
            let parts = 2 + round as usize % 3;
            // Wide boxes overlap often, narrow ones hardly ever.
            let width = [3, 50, 400][round as usize / 5 % 3];
            let mut boxes = RangeTree::default();
            for number in 0..count {
                let ranges = (0..parts).map(|_| {
                    let first = next_random(&mut seed) % 1000;
                    (first, first + next_random(&mut seed) % width)
                });
                boxes.push(ranges.collect(), number);
            }
            boxes.build();
            assert!(
                boxes.leaves.len() <= (MAX_DUPLICATION + 1) * boxes.len() + MAX_LEAF_SCAN,
                "{}",
                boxes.leaves.len()
            );
            for _ in 0..2000 {
                let key: Vec<u128> = (0..parts).map(|_| next_random(&mut seed) % 1100).collect();
                let slow = boxes.entries.iter().find(|(ranges, _)| contains(ranges, &key)).map(|(_, found)| found);
                assert_eq!(boxes.find(&key), slow, "round {round}, key {key:?}");
            }
        }
    }

    #[test]
    fn leaf_scan_stays_bounded_with_50k_ranges() {
        let mut boxes = RangeTree::default();
        // Networks of 256 addresses, each with its own port range; every tenth has all ports.
        for number in 0..50_000_u128 {
            let ports = if number % 10 == 0 { (0, 65_535) } else { (number % 60_000, number % 60_000 + 99) };
            boxes.push(Box::new([(number << 8, (number << 8) + 255), ports]), number);
        }
        boxes.build();
        let longest =
            boxes.nodes.iter().map(|node| if let Node::Leaf { from, to } = node { to - from } else { 0 }).max();
        assert!(longest <= Some(MAX_LEAF_SCAN), "{longest:?}");
        assert_eq!(boxes.find(&[(777 << 8) + 3, 800]), Some(&777));
        assert_eq!(boxes.find(&[(777 << 8) + 3, 900]), None);
    }

    #[test]
    fn full_width_and_single_value_ranges() {
        let mut boxes = RangeTree::default();
        for number in 0..100 {
            boxes.push(Box::new([(0, u128::MAX), (number, number)]), number);
            boxes.push(Box::new([(u128::MAX, u128::MAX), (0, u128::MAX)]), 1000);
        }
        boxes.build();
        assert_eq!(boxes.find(&[5, 99]), Some(&99));
        assert_eq!(boxes.find(&[u128::MAX, 5000]), Some(&1000));
        assert_eq!(boxes.find(&[5, 100]), None);
        assert_eq!(RangeTree::<u128>::default().find(&[5, 100]), None);
    }
}
