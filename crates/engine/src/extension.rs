//! Connection extensions (`nf_ct_ext`): data that only few connections have, stored outside their records.
//!
//! An [`Extension`] is created on first use and removed with its connection. The record's flag `HAS_EXTENSION` must be set whenever one exists:
//! without the flag nothing looks here.
#![allow(clippy::disallowed_types, reason = "the keys are slots, which the engine numbers")]
use crate::helper::HelperState;
use crate::nat::seqadj::SeqAdj;
use crate::protocol::{IgnoredSyn, Tcp};
use crate::table::record::{HotRecord, RecordKind};
use crate::{Direction, SynproxyState, TimeoutPolicyId, Tuple};
use hashbrown::HashMap;

/// The extension of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extension {
    pub(crate) labels: Option<[u8; 16]>,
    pub(crate) ignored_syn: Option<IgnoredSyn>,
    /// The state of its helper, if it has one.
    pub(crate) helper_state: Option<HelperState>,
    /// Its master, if it was expected.
    pub(crate) master: Option<Master>,
    /// For a TCP connection restored after a gap: segments per direction until window checks are strict again.
    pub(crate) lenient_segments_left: Option<[u8; 2]>,
    /// Sequence number offsets, if a helper changed the length of its payload.
    pub(crate) seqadj: Option<SeqAdj>,
    /// A rule expects connections of it.
    pub(crate) expects: bool,
    /// The number of its existing child connections.
    pub(crate) children: u32,
    /// Its own timeout policy.
    pub(crate) timeout_policy: Option<TimeoutPolicyId>,
    /// Its synproxy state, if synproxy did the handshake with the client.
    pub(crate) synproxy: Option<SynproxyState>,
}

impl Extension {
    /// Is every field empty?
    pub(crate) const fn is_empty(&self) -> bool {
        let no_data =
            self.labels.is_none() && self.ignored_syn.is_none() && self.helper_state.is_none() && self.seqadj.is_none();
        let no_relations = !self.expects && self.master.is_none() && self.children == 0 && self.synproxy.is_none();
        no_data && no_relations && self.lenient_segments_left.is_none() && self.timeout_policy.is_none()
    }
}

/// Extensions by slot. A record's flag `HAS_EXTENSION` says whether it has one.
#[derive(Clone)]
pub(crate) struct Extensions(HashMap<u32, Extension>);

impl Extensions {
    pub(crate) fn new() -> Self {
        Extensions(HashMap::new())
    }

    pub(crate) fn find(&self, slot: u32) -> Option<&Extension> {
        self.0.get(&slot)
    }

    /// The extension of `slot`, created empty if there was none. The caller sets the record's flag.
    pub(crate) fn find_or_insert(&mut self, slot: u32) -> &mut Extension {
        self.0.entry(slot).or_default()
    }

    /// The helper state of `slot`, if it has a helper.
    pub(crate) fn helper_state_mut(&mut self, slot: u32) -> Option<&mut HelperState> {
        self.0.get_mut(&slot)?.helper_state.as_mut()
    }

    /// For a connection restored after a gap: the segments per direction that are still checked leniently.
    pub(crate) fn lenient_segments_left_mut(&mut self, slot: u32) -> Option<&mut [u8; 2]> {
        self.0.get_mut(&slot)?.lenient_segments_left.as_mut()
    }

    /// Counts one segment of a connection restored after a gap. True if it was the last lenient one: from now on windows are strict.
    #[cold]
    pub(crate) fn count_lenient_segment(&mut self, slot: u32, direction: Direction) -> bool {
        let Some(extension) = self.0.get_mut(&slot) else { return false };
        let Some(left) = &mut extension.lenient_segments_left else { return false };
        left[direction as usize] = left[direction as usize].saturating_sub(1);
        let is_last = *left == [0; 2];
        extension.lenient_segments_left = extension.lenient_segments_left.filter(|_| !is_last);
        is_last
    }

    /// A connection's segments pass elsewhere from now on: what was left of its lenient ones is void. True if there were any.
    pub(crate) fn end_leniency(&mut self, slot: u32) -> bool {
        self.0.get_mut(&slot).is_some_and(|extension| extension.lenient_segments_left.take().is_some())
    }

    /// Makes the window checks of a TCP connection strict again. Nothing of its lenient time stays: with an extension each of its packets would take the long way.
    pub(crate) fn make_strict(&mut self, slot: u32, hot: &mut HotRecord) {
        Tcp::from_record_mut(hot).clear_liberal();
        if self.0.get(&slot).is_none_or(Extension::is_empty) {
            self.0.remove(&slot);
            hot.kind.clear(RecordKind::HAS_EXTENSION);
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Extension> {
        self.0.remove(&slot)
    }

    /// All extensions, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Extension)> {
        self.0.iter().map(|(slot, extension)| (*slot, extension))
    }
}

/// A child's reference to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) slot: u32,
    /// The generation of the slot: a later connection in the same slot is not the master.
    pub(crate) generation: u32,
    /// The master's original tuple; valid after the master has ended.
    pub(crate) tuple: Tuple,
    pub(crate) mark: u32,
}
