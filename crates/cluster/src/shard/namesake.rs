//! Another process with this node's name: two machines with one copied configuration. Neither could be the other's standby, since a node ignores its own frames; so whoever is not active says it, and stays so.
use super::Shard;
use crate::frame::{FrameKind, StateFrame};
use crate::names::NodeInstance;
use crate::role::{Decider, ShardRole};
use std::time::Duration;

/// For so long after its last heartbeat a namesake is taken to be active.
const NAMESAKE_TIME: Duration = Duration::from_secs(10);

impl Shard {
    /// Was a process with this node's name, but not this one, heard of lately? Then this node does not become active.
    pub(super) fn is_name_taken(&self) -> bool {
        self.namesake_heard.is_some()
    }

    pub(super) fn forget_namesake(&mut self, now: Duration) {
        self.namesake_heard = self.namesake_heard.filter(|heard| now.saturating_sub(*heard) < NAMESAKE_TIME);
    }

    /// A frame under this node's name: our own that comes back, of this run or an earlier one, or a namesake's heartbeat.
    pub(super) fn receive_own_name(&mut self, frame: &StateFrame, now: Duration) {
        if frame.kind.is_stored() {
            return self.receive_own_past(frame, now);
        }
        let Some(instance) = instance_of(frame).filter(|instance| *instance != self.instance) else { return };
        if self.namesake_heard.replace(now).is_none() {
            self.note(format!(
                "another gateway calls itself {} too, and is active in epoch {}: give each gateway a node name of its own",
                self.node, frame.epoch
            ));
        }
        self.raise_epoch(frame.epoch, "another gateway with this node's name", now);
        let is_active = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
        // Promoted by hand, both in one epoch: one of them goes on.
        if is_active && frame.epoch == self.epoch && instance < self.instance {
            self.fence("another gateway with its name is active in the same epoch");
        }
    }
}

impl Shard {
    /// A frame that an earlier run of this node has stored. Its epoch is above what the disk knows only if that was lost; the others would refuse what comes with a lower one.
    fn receive_own_past(&mut self, frame: &StateFrame, now: Duration) {
        let was_active = self.role == ShardRole::Active;
        self.raise_epoch(frame.epoch, "an earlier run of this gateway", now);
        let is_ended = was_active && self.role == ShardRole::Standby;
        // Whoever promoted it does not do so again; a lease is taken by the clock.
        if is_ended && self.decider == Decider::Hand && !self.is_name_taken() {
            self.claim(self.share.next_after(self.epoch));
        }
    }
}

fn instance_of(frame: &StateFrame) -> Option<NodeInstance> {
    let bytes = frame.payload.as_slice().try_into().ok().filter(|_| frame.kind == FrameKind::Heartbeat)?;
    Some(NodeInstance(u64::from_le_bytes(bytes))).filter(|instance| *instance != NodeInstance::default())
}
