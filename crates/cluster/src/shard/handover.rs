//! A shard as one of several that are shared out: who decides it, who asks for it.
use super::Shard;
use crate::balance::{HandoverRequest, ShardHolding};
use crate::frame::{FrameKind, StateFrame};
use crate::role::{Decider, ShardRole};
use std::time::Duration;

impl Shard {
    /// What this node knows of it, to share shards out.
    pub fn holding(&self, now: Duration) -> ShardHolding {
        let is_ours = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
        let patience = match self.decider {
            Decider::Lease(ttl) => ttl * 2,
            Decider::Hand => Duration::MAX,
        };
        let is_heard = now.saturating_sub(self.heard) < patience;
        let other = self.inbox.sender.clone().filter(|_| is_heard && self.role == ShardRole::Standby);
        ShardHolding {
            decider: if is_ours { Some(self.node.clone()) } else { other },
            in_step: self.role == ShardRole::Standby && self.inbox.in_step,
            in_motion: self.role == ShardRole::Demoting || !is_ours && self.is_load(now),
        }
    }

    /// Asks whoever decides it to hand it over.
    pub fn ask_for_handover(&mut self, request: HandoverRequest) {
        self.queue_request(FrameKind::HandoverRequest, request.to_bytes());
    }

    /// What another node has asked for since this was last called.
    pub fn take_handover_request(&mut self) -> Option<HandoverRequest> {
        self.handover_request.take()
    }

    /// One that is meant for an epoch that has ended, or that cannot be read, is none.
    pub(super) fn note_handover_request(&mut self, frame: &StateFrame) {
        if self.role == ShardRole::Active && frame.epoch == self.epoch {
            self.handover_request = HandoverRequest::from_bytes(&frame.payload);
        }
    }
}
