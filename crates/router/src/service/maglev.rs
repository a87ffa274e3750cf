//! Maglev's table (Eisenbud and others, NSDI 2016, section 3.4): each backend has its own permutation of all slots, and in turn takes its next free slot.
//!
//! The table depends on the backends alone, not on their order or an earlier table: routers with the same backends have the same table.
//! When a backend leaves, its slots are distributed, and few others change.
use super::candidate::Candidate;

/// Number of slots; a prime, so that every step reaches all of them. 65537 is Maglev's own choice for up to some 650 backends.
pub(super) const TABLE_SIZE: usize = 65_537;

/// The candidate of each slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Maglev {
    slots: Vec<u16>,
}

/// The permutation of the slots of one backend.
struct Permutation {
    next: usize,
    step: usize,
}

impl Maglev {
    /// The table of these candidates, which must be in a canonical order.
    pub(super) fn new(candidates: &[Candidate]) -> Maglev {
        let heaviest = candidates.iter().map(|candidate| u64::from(candidate.weight)).max().unwrap_or(0);
        if heaviest == 0 {
            return Maglev::default();
        }
        let mut preferences: Vec<Permutation> = candidates.iter().map(Permutation::new).collect();
        let mut places = vec![EMPTY_SLOT; TABLE_SIZE];
        let mut free = TABLE_SIZE;
        // In each round the heaviest takes a slot, the others in proportion to their weight.
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

    /// The candidate for `hash`.
    pub(super) fn pick(&self, hash: u64) -> Option<usize> {
        let place = hash.checked_rem(self.slots.len() as u64)?;
        self.slots.get(usize::try_from(place).ok()?).map(|number| usize::from(*number))
    }
}

impl Permutation {
    fn new(candidate: &Candidate) -> Permutation {
        let [place, step] = candidate.hashes;
        // Both remainders are below TABLE_SIZE.
        Permutation { next: (place % TABLE_SIZE as u64) as usize, step: (step % (TABLE_SIZE as u64 - 1)) as usize + 1 }
    }

    /// The next free slot, if there is one.
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

/// A free slot: no candidate has this number, there are at most 4096.
const EMPTY_SLOT: u16 = u16::MAX;
