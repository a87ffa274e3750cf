//! A shard's lease: asked for while nobody has it, renewed while this node is active, given up after a planned change.
use super::Shard;
use crate::frame::Epoch;
use crate::names::NodeName;
use crate::role::{Decider, ShardAction, ShardRole};
use crate::transport::{LeaseAction, LeaseRequest};
use std::time::Duration;

/// So many other shards count, at most, for how much longer a free lease is left to others.
const MAX_LOAD: u32 = 4;

impl Shard {
    pub(super) fn keep_lease(&mut self, ttl: Duration, now: Duration) {
        match self.role {
            ShardRole::Active | ShardRole::Demoting => {
                if !self.lease.is_valid(now) {
                    self.fence("its lease could not be renewed in time");
                } else if self.lease.rested(now, ttl / 4) {
                    self.request_lease(LeaseAction::Renew, self.epoch, now);
                }
            }
            ShardRole::Standby | ShardRole::Fenced => {
                // One that is complete comes first.
                let patience = if self.inbox.in_step { ttl } else { ttl * 2 };
                let patience = patience + ttl / 4 * self.load.min(MAX_LOAD);
                let quiet = now.saturating_sub(self.heard) >= patience;
                let may = self.claimed.is_none() && self.connected && now >= self.stand_back_until && !self.is_name_taken()
                    // Who cannot use the table would take the shard from those who can.
                    && !self.inbox.is_other_table();
                if may && quiet && self.lease.rested(now, ttl / 4) {
                    self.request_lease(LeaseAction::Acquire, self.epoch.next(), now);
                }
            }
        }
    }

    pub(super) fn request_lease(&mut self, action: LeaseAction, epoch: Epoch, now: Duration) {
        self.acquiring = Some(now).filter(|_| action == LeaseAction::Acquire);
        let number = self.lease.request(now);
        let request = LeaseRequest { shard: self.name.clone(), action, epoch, number };
        self.actions.push_back(ShardAction::RequestLease(request));
    }

    pub(super) fn release(&mut self, now: Duration) {
        if let Decider::Lease(ttl) = self.decider {
            self.request_lease(LeaseAction::Release, self.epoch, now);
            self.stand_back_until = now.saturating_add(ttl * 10);
        }
        self.lease.end();
    }

    /// Said once; asked again by the clock.
    pub(super) fn lease_failed(&mut self, reason: String) {
        if self.decider == Decider::Hand {
            return;
        }
        if self.lease_error.is_none() {
            self.note(format!("its lease cannot be asked for: {reason}"));
        }
        self.lease_error = Some(reason);
    }

    pub(super) fn lease_told(&mut self, holder: Option<NodeName>, epoch: Epoch, answers: Option<u64>, now: Duration) {
        let Decider::Lease(ttl) = self.decider else { return };
        let is_ours = holder.as_ref() == Some(&self.node);
        let released = holder.is_none();
        self.holder = holder;
        if !is_ours {
            if !released {
                self.raise_epoch(epoch, "its lease", now);
            }
            if released && self.inbox.in_step && self.role == ShardRole::Standby {
                // Given up: nobody has to be waited for.
                self.heard = now.saturating_sub(ttl);
            }
            return;
        }
        let Some(number) = answers else { return };
        self.acquiring = None;
        // An answer to a request of an earlier life of ours does not count.
        if epoch < self.epoch || !self.lease.granted(number, ttl) || !self.lease.is_valid(now) {
            return;
        }
        let is_active = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
        if !is_active && epoch > self.epoch {
            self.claim(epoch);
        }
    }
}
