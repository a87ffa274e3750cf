//! Which epochs a node takes when somebody promotes it by hand, so that no two nodes ever have the same one, even if neither hears of the other.
//!
//! A lease's store numbers who decides. By hand nobody does: a node counts on from the highest epoch that it has heard of, and so would another one that was cut off at the same time. Of `of` nodes
//! each takes therefore only the epochs that leave its place when divided by `of`. When two meet, the higher epoch goes on and the lower one stands down.
use crate::frame::Epoch;

/// So many takeovers may follow each other before ports are used again that a gateway before may have given.
const TAKEOVERS: u16 = 4;
/// Nodes, at most.
const MAX_NODES: u16 = 16;

/// A node's place among those that may be promoted. Without one ([`EpochShare::default`]) every epoch is the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochShare {
    place: u16,
    of: u16,
}

impl Default for EpochShare {
    fn default() -> EpochShare {
        EpochShare { place: 0, of: 1 }
    }
}

impl EpochShare {
    /// Number `place` of `of` nodes, from 0 on; `None` if there is no such place, or more than 16 nodes.
    pub const fn new(place: u16, of: u16) -> Option<EpochShare> {
        if place < of && of <= MAX_NODES { Some(EpochShare { place, of }) } else { None }
    }

    /// The lowest epoch above `known` that is this node's.
    #[must_use]
    pub fn next_after(self, known: Epoch) -> Epoch {
        let (place, of) = (u64::from(self.place), u64::from(self.of));
        let first = known.0.saturating_add(1);
        Epoch(first.saturating_add((place + of - first % of) % of))
    }

    /// Into so many parts a range of ports is divided, one of which an epoch gives: epochs of two nodes have never the same part, and those of one node have the same again only after four takeovers.
    pub const fn parts(self) -> u16 {
        self.of * TAKEOVERS
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn no_two_nodes_have_one_epoch_or_one_part_and_a_part_comes_again_after_four_takeovers() {
        assert_eq!(EpochShare::default().next_after(Epoch(7)), Epoch(8));
        assert_eq!((EpochShare::new(2, 2), EpochShare::new(0, 17)), (None, None));
        for of in 1..=MAX_NODES {
            let shares: Vec<EpochShare> = (0..of).map(|place| EpochShare::new(place, of).unwrap()).collect();
            for known in 0..100 {
                let next: Vec<Epoch> = shares.iter().map(|share| share.next_after(Epoch(known))).collect();
                let part = |epoch: &Epoch| epoch.0 % u64::from(shares[0].parts());
                for (at, epoch) in next.iter().enumerate() {
                    assert!((known + 1..=known + u64::from(of)).contains(&epoch.0), "{of} nodes, {known}: {epoch}");
                    assert!(next[..at].iter().all(|other| other != epoch && part(other) != part(epoch)));
                }
                // Whoever takes over, four times: the part of the first is another one all the way.
                let farthest =
                    (0..3).fold(next[0], |epoch, _| shares.iter().map(|share| share.next_after(epoch)).max().unwrap());
                assert!(farthest.0 - next[0].0 < u64::from(shares[0].parts()));
            }
        }
        assert_eq!(EpochShare::new(0, 2).unwrap().next_after(Epoch(u64::MAX)), Epoch(u64::MAX));
    }
}
