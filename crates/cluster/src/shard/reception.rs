//! What other nodes send about a shard, and what is asked of them.
use super::Shard;
use crate::frame::{FrameDecodeError, FrameKind, StateFrame};
use crate::greeting::GreetingDifference;
use crate::outbox::Outbox;
use crate::role::{ShardAction, ShardRole};
use std::time::Duration;

/// What its sender has stored and a standby does not get within this is lost on its way: longer than NATS takes to elect a leader.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests of a standby for a snapshot.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

impl Shard {
    pub(super) fn receive(&mut self, frame: StateFrame, now: Duration) {
        if frame.shard != self.name {
            return;
        }
        if frame.node == self.node {
            return self.receive_own_name(&frame, now);
        }
        if frame.kind == FrameKind::SnapshotRequest {
            self.outbox.iter_mut().for_each(Outbox::want_snapshot);
            return;
        }
        if frame.kind == FrameKind::HandoverRequest {
            return self.note_handover_request(&frame);
        }
        if frame.epoch < self.epoch {
            self.inbox.counters.stale_epoch += 1;
            return;
        }
        self.raise_epoch(frame.epoch, frame.node.as_str(), now);
        if matches!(self.role, ShardRole::Active | ShardRole::Demoting) {
            // Two in one epoch: nobody can tell who was first. The one whose name comes first goes on, the other takes over its table.
            if self.node < frame.node {
                return;
            }
            self.note(format!("{} is active in the same epoch {}: it goes on", frame.node, frame.epoch));
            self.lease.end();
            self.inbox.follow(None);
            self.become_standby(now);
        }
        match &self.inbox.sender {
            None => self.inbox.sender = Some(frame.node.clone()),
            Some(sender) if *sender == frame.node => (),
            Some(sender) if *sender < frame.node => {
                self.inbox.counters.stale_epoch += 1;
                return;
            }
            Some(_) => self.inbox.follow(Some(frame.node.clone())),
        }
        if self.role == ShardRole::Fenced {
            // Late frames of an epoch that we know; ours is the newer table.
            self.become_standby(now);
        }
        self.heard = now;
        let before = self.inbox.differences.clone();
        let sender = frame.node.clone();
        let reception = self.inbox.receive(frame, &self.greeting);
        self.actions.extend(reception.changes.into_iter().map(ShardAction::Table));
        if reception.found_gap {
            self.note(format!("frames of {sender} are missing: asking for a new snapshot"));
            self.request_snapshot(now);
        }
        if self.inbox.differences != before {
            for difference in self.inbox.differences.clone() {
                self.note(format!("{sender} does not run the same: {difference}"));
            }
        }
    }

    /// Another version may write frames that this one cannot read: nothing of its table is here then. What is damaged or somebody else's is said alone.
    pub(super) fn note_undecodable(&mut self, error: &FrameDecodeError) {
        self.note(format!("frames are not used: {error}"));
        if matches!(error, FrameDecodeError::Version(_) | FrameDecodeError::Kind(_)) && self.role == ShardRole::Standby
        {
            self.inbox.in_step = false;
            self.inbox.differences = vec![GreetingDifference::FrameFormat];
        }
    }

    /// A lost frame is found by the next one; if none follows, by the heartbeats, which say what was the last.
    pub(super) fn watch_lag(&mut self, now: Duration) {
        let last = self.inbox.last();
        let is_behind = self.role == ShardRole::Standby && self.inbox.in_step && self.inbox.lag() > 0;
        match self.behind {
            _ if !is_behind => self.behind = None,
            Some((before, since)) if before == last => {
                if now.saturating_sub(since) >= BEHIND_TIMEOUT {
                    self.behind = None;
                    self.inbox.note_gap();
                    self.note("frames that were stored do not come: asking for a new snapshot".into());
                    self.request_snapshot(now);
                }
            }
            _ => self.behind = Some((last, now)),
        }
    }

    pub(super) fn request_snapshot(&mut self, now: Duration) {
        let rested = self.last_snapshot_request.is_none_or(|last| now.saturating_sub(last) >= REQUEST_INTERVAL);
        if rested && self.requests.is_empty() {
            self.last_snapshot_request = Some(now);
            self.queue_request(FrameKind::SnapshotRequest, Vec::new());
        }
    }
}
