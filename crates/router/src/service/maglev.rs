//! Maglev's table (Eisenbud and others, NSDI 2016, section 3.4): each backend has its own order of preference of all places, and they take turns to take the next free one of it.
//!
//! The table is a function of the backends alone, not of their order or of what was before: routers that know the same backends have the same table.
//! When a backend leaves, its places are shared out, and few others change hands.
use super::candidate::Candidate;

/// Places; a prime, so that every step leads through all of them. 65537 is Maglev's own choice for up to some 650 backends.
pub(super) const TABLE_SIZE: usize = 65_537;

/// Who is meant, by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Maglev {
    slots: Vec<u16>,
}

/// One backend's way through the places.
struct Permutation {
    next: usize,
    step: usize,
}

impl Maglev {
    /// The table of these candidates, who must stand in an order of their own.
    pub(super) fn new(candidates: &[Candidate]) -> Maglev {
        let heaviest = candidates.iter().map(|candidate| u64::from(candidate.weight)).max().unwrap_or(0);
        if heaviest == 0 {
            return Maglev::default();
        }
        let mut preferences: Vec<Permutation> = candidates.iter().map(Permutation::new).collect();
        let mut places = vec![EMPTY_SLOT; TABLE_SIZE];
        let mut free = TABLE_SIZE;
        // In each round the heaviest takes a place, the others as often as their weight allows.
        for round in 1_u64.. {
            for ((number, candidate), preference) in (0_u16..).zip(candidates).zip(&mut preferences) {
                let due = |round: u64| round * u64::from(candidate.weight) / heaviest;
                if due(round) == due(round - 1) {
                    continue;
                }
                if let Some(place) = preference.next_free_slot(&places).and_then(|place| places.get_mut(place)) {
                    *place = number;
                    free -= 1;
                }
                if free == 0 {
                    return Maglev { slots: places };
                }
            }
        }
        Maglev { slots: places }
    }

    /// Who is meant by `hash`.
    pub(super) fn pick(&self, hash: u64) -> Option<usize> {
        let place = hash.checked_rem(self.slots.len() as u64)?;
        self.slots.get(usize::try_from(place).ok()?).map(|number| usize::from(*number))
    }
}

impl Permutation {
    fn new(candidate: &Candidate) -> Permutation {
        let [place, step] = candidate.hashes;
        // Both remainders are below PLACES.
        Permutation { next: (place % TABLE_SIZE as u64) as usize, step: (step % (TABLE_SIZE as u64 - 1)) as usize + 1 }
    }

    /// The next free place, as long as there is one.
    fn next_free_slot(&mut self, places: &[u16]) -> Option<usize> {
        for _ in 0..TABLE_SIZE {
            let place = self.next;
            self.next = (self.next + self.step) % TABLE_SIZE;
            if places.get(place) == Some(&EMPTY_SLOT) {
                return Some(place);
            }
        }
        None
    }
}

/// A place that nobody has: no candidate has this number, there are at most 4096.
const EMPTY_SLOT: u16 = u16::MAX;
