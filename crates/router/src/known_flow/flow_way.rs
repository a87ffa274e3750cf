//! What counts the packets of known flows beside their connections: interfaces, and the counters of rules on their way. Many flows go the same way, so a report of thousands of them asks for a few ways.
//!
//! A way's life: held by each direction of a known connection that goes it; released with the last one; then its place is another's, and whoever still has its name finds nothing.
use keepstate_rules::{MovedCounters, RuleCounters};
use keepstate_wire::keyed_hash::{KeyedMap, SipKey};
use std::net::IpAddr;

/// Where packets of a flow come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowSource {
    /// They come in by the interface of this index.
    Interface(u32),
    /// The machine itself sends them by the interface of this index.
    Host(u32),
}

/// Where they go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowTarget {
    /// Out by an interface, to this neighbour.
    Forward {
        /// The index of the interface.
        oif: u32,
        /// The neighbour.
        next_hop: IpAddr,
    },
    /// To the machine itself.
    Host,
    /// Out, as they were about to leave.
    LetOut,
}

/// The name of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowWay {
    place: u32,
    generation: u32,
}

/// A way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CountedWay {
    pub(crate) source: FlowSource,
    pub(crate) target: FlowTarget,
    pub(crate) counters: RuleCounters,
}

#[derive(Debug, Default)]
struct WayPlace {
    /// `None`: nobody's.
    way: Option<CountedWay>,
    holders: usize,
    generation: u32,
}

/// The ways of all known flows.
#[derive(Debug)]
pub(crate) struct FlowWays {
    places: Vec<WayPlace>,
    free: Vec<u32>,
    by_content: KeyedMap<CountedWay, u32>,
}

impl FlowWays {
    pub(crate) fn new(key: SipKey) -> FlowWays {
        FlowWays { places: Vec::new(), free: Vec::new(), by_content: key.map() }
    }

    /// The name of a way, for one more that goes it.
    pub(crate) fn hold(&mut self, way: CountedWay) -> FlowWay {
        let place = match self.by_content.get(&way) {
            Some(place) => *place,
            None => {
                let place = self.free.pop().unwrap_or_else(|| {
                    self.places.push(WayPlace::default());
                    self.places.len() as u32 - 1
                });
                self.by_content.insert(way.clone(), place);
                if let Some(of) = self.places.get_mut(place as usize) {
                    of.way = Some(way);
                }
                place
            }
        };
        let generation = self.places.get_mut(place as usize).map_or(0, |of| {
            of.holders += 1;
            of.generation
        });
        FlowWay { place, generation }
    }

    /// One less goes it.
    pub(crate) fn release(&mut self, way: FlowWay) {
        let Some(of) = self.places.get_mut(way.place as usize).filter(|of| of.generation == way.generation) else {
            return;
        };
        of.holders = of.holders.saturating_sub(1);
        if of.holders == 0 {
            of.generation = of.generation.wrapping_add(1);
            if let Some(content) = of.way.take().filter(|way_of| self.by_content.get(way_of) == Some(&way.place)) {
                self.by_content.remove(&content);
            }
            self.free.push(way.place);
        }
    }

    pub(crate) fn get(&self, way: FlowWay) -> Option<&CountedWay> {
        self.places.get(way.place as usize).filter(|of| of.generation == way.generation)?.way.as_ref()
    }

    /// Counters of rules have other indices now.
    pub(crate) fn move_rule_counters(&mut self, moved: &MovedCounters) {
        self.change_counters(|counters| counters.iter().filter_map(|counter| moved.get(counter).copied()).collect());
    }

    /// Counters of rules mean other rules now.
    pub(crate) fn forget_rule_counters(&mut self) {
        self.change_counters(|_| RuleCounters::new());
    }

    fn change_counters(&mut self, change: impl Fn(&RuleCounters) -> RuleCounters) {
        self.by_content.clear();
        for (place, of) in (0..).zip(&mut self.places) {
            if let Some(way) = &mut of.way {
                way.counters = change(&way.counters);
                // Two that are alike now stay two: the one that is not found any more goes with its holders.
                self.by_content.insert(way.clone(), place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(iif: u32, counters: &[u32]) -> CountedWay {
        CountedWay { source: FlowSource::Interface(iif), target: FlowTarget::Host, counters: counters.into() }
    }

    #[test]
    fn a_way_lasts_as_long_as_somebody_goes_it() {
        let mut ways = FlowWays::new(SipKey::new(1, 2));
        let [first, second, other] = [1, 1, 2].map(|iif| ways.hold(way(iif, &[7])));
        assert_eq!(first, second);
        ways.release(first);
        assert_eq!(ways.get(second), Some(&way(1, &[7])));
        ways.release(second);
        assert_eq!((ways.get(second), ways.get(other)), (None, Some(&way(2, &[7]))));
        // Its place is another's.
        let third = ways.hold(way(3, &[]));
        assert_eq!((third.place, ways.get(first), ways.get(third)), (first.place, None, Some(&way(3, &[]))));
        ways.release(first);
        assert_eq!(ways.get(third), Some(&way(3, &[])));
    }

    #[test]
    fn ways_that_become_alike_are_released_each_for_itself() {
        let mut ways = FlowWays::new(SipKey::new(1, 2));
        let [one, two] = [&[1_u32][..], &[2]].map(|counters| ways.hold(way(1, counters)));
        ways.move_rule_counters(&[(1, 5), (2, 6)].into_iter().collect());
        assert_eq!([ways.get(one), ways.get(two)], [Some(&way(1, &[5])), Some(&way(1, &[6]))]);
        ways.forget_rule_counters();
        let again = ways.hold(way(1, &[]));
        let third = if again == one { two } else { one };
        ways.release(third);
        assert_eq!((ways.get(third), ways.get(again)), (None, Some(&way(1, &[]))));
        ways.release(again);
        ways.release(again);
        assert_eq!([ways.get(one), ways.get(two)], [None, None]);
        assert_eq!(ways.free.len(), 2);
    }
}
