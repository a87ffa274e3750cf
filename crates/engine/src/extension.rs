//! What only few connections have, outside their records: labels, a noted segment, a helper, a master, timeouts, a promise.
use crate::helper::HelperState;
use crate::nat::seqadj::SeqAdj;
use crate::protocol::IgnoredSyn;
use crate::{Direction, SynproxyState, TimeoutPolicyId, Tuple};
use hashbrown::HashMap;

/// What one connection has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extension {
    pub(crate) labels: Option<[u8; 16]>,
    pub(crate) ignored_syn: Option<IgnoredSyn>,
    /// What its helper keeps, if it has one.
    pub(crate) helper_state: Option<HelperState>,
    /// Who announced it, if it was expected.
    pub(crate) master: Option<Master>,
    /// Segments each way until the window of a TCP connection that was kept over a gap is strict again.
    pub(crate) lenient_segments_left: Option<[u8; 2]>,
    /// How much longer its streams have become, if a helper wrote into them.
    pub(crate) seqadj: Option<SeqAdj>,
    /// Living connections that it announced.
    pub(crate) children: u32,
    /// Timeouts of its own.
    pub(crate) timeout_policy: Option<TimeoutPolicyId>,
    /// What its client was promised, if its handshake was answered for its server.
    pub(crate) synproxy: Option<SynproxyState>,
}

impl Extension {
    /// Is there nothing to keep?
    pub(crate) const fn is_empty(&self) -> bool {
        let quiet =
            self.labels.is_none() && self.ignored_syn.is_none() && self.helper_state.is_none() && self.seqadj.is_none();
        let alone = self.master.is_none() && self.children == 0 && self.synproxy.is_none();
        quiet && alone && self.lenient_segments_left.is_none() && self.timeout_policy.is_none()
    }
}

/// By slot. A record's `EXTRAS` flag says whether to look here.
pub(crate) struct Extensions(HashMap<u32, Extension>);

impl Extensions {
    pub(crate) fn new() -> Self {
        Extensions(HashMap::new())
    }

    pub(crate) fn find(&self, slot: u32) -> Option<&Extension> {
        self.0.get(&slot)
    }

    /// What `slot` has, made empty if it had nothing. The caller sets the record's flag.
    pub(crate) fn find_or_insert(&mut self, slot: u32) -> &mut Extension {
        self.0.entry(slot).or_default()
    }

    /// What the helper of `slot` keeps, if it has one.
    pub(crate) fn helper_state_mut(&mut self, slot: u32) -> Option<&mut HelperState> {
        self.0.get_mut(&slot)?.helper_state.as_mut()
    }

    /// How many segments each way a connection that was kept over a gap is not yet strict.
    pub(crate) fn lenient_segments_left_mut(&mut self, slot: u32) -> Option<&mut [u8; 2]> {
        self.0.get_mut(&slot)?.lenient_segments_left.as_mut()
    }

    /// A segment of a connection that was kept over a gap has passed. True once it is the last for which the window is not strict.
    #[cold]
    pub(crate) fn count_lenient_segment(&mut self, slot: u32, direction: Direction) -> bool {
        let Some(extra) = self.0.get_mut(&slot) else { return false };
        let Some(left) = &mut extra.lenient_segments_left else { return false };
        left[direction as usize] = left[direction as usize].saturating_sub(1);
        let regained = *left == [0; 2];
        extra.lenient_segments_left = extra.lenient_segments_left.filter(|_| !regained);
        regained
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Extension> {
        self.0.remove(&slot)
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Extension)> {
        self.0.iter().map(|(slot, extra)| (*slot, extra))
    }
}

/// A child's master, as the child remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) slot: u32,
    /// Which life of the slot: a later connection in the same place is nobody's master.
    pub(crate) generation: u32,
    /// Its original tuple, which outlives it.
    pub(crate) tuple: Tuple,
    pub(crate) mark: u32,
}
