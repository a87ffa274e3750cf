//! The roles of a shard: by a promise on the disk active, by hand or by a lease; demoted as planned; fenced, or a standby, when another node decides.
use super::Shard;
use crate::frame::Epoch;
use crate::outbox::Outbox;
use crate::role::{Decider, RoleChangeError, ShardAction, ShardRole};
use crate::transport::LeaseAction;
use std::time::Duration;

/// How long a planned change waits for the last acknowledgement.
const DEMOTE_TIMEOUT: Duration = Duration::from_secs(10);

impl Shard {
    /// Makes this node active, as soon as its new epoch is on the disk. Nothing if it is already.
    ///
    /// # Errors
    /// It is being demoted; another process with this node's name is active.
    pub fn promote(&mut self, now: Duration) -> Result<(), RoleChangeError> {
        match (self.role, self.decider) {
            (ShardRole::Active, _) => Ok(()),
            (ShardRole::Demoting, _) => Err(RoleChangeError::Demoting),
            _ if self.is_name_taken() => Err(RoleChangeError::NameTaken(self.node.clone())),
            (_, Decider::Hand) => {
                self.claim(self.share.next_after(self.epoch));
                Ok(())
            }
            (_, Decider::Lease(_)) => {
                self.stand_back_until = now;
                self.request_lease(LeaseAction::Acquire, self.epoch.next(), now);
                Ok(())
            }
        }
    }

    /// Hands the shard over: creates nothing any more and becomes a standby when all is acknowledged.
    ///
    /// # Errors
    /// It is not active here.
    pub fn demote(&mut self, now: Duration) -> Result<(), RoleChangeError> {
        match self.role {
            ShardRole::Active => {
                self.demote_deadline = now.saturating_add(DEMOTE_TIMEOUT);
                self.set_role(ShardRole::Demoting);
                Ok(())
            }
            ShardRole::Demoting | ShardRole::Standby => Ok(()),
            other => Err(RoleChangeError::NotActive(other.name())),
        }
    }

    /// Demoting: the table has no change left that was not pushed. Ends the handing over once all is acknowledged.
    pub fn table_flushed(&mut self, now: Duration) {
        let done = self.outbox.as_ref().is_some_and(|outbox| outbox.unacknowledged() == 0 && !outbox.in_snapshot());
        if self.role == ShardRole::Demoting && done {
            self.release(now);
            self.become_standby(now);
        }
    }

    pub(super) fn claim(&mut self, epoch: Epoch) {
        self.claimed = Some(epoch);
        self.actions.push_back(ShardAction::StoreEpoch(epoch));
    }

    /// An epoch is on the disk.
    pub fn epoch_stored(&mut self, epoch: Epoch, now: Duration) {
        self.stored_epoch = self.stored_epoch.max(epoch);
        if self.claimed != Some(epoch) {
            return;
        }
        self.claimed = None;
        let may = match self.decider {
            Decider::Hand => epoch > self.epoch,
            Decider::Lease(_) => epoch > self.epoch && self.lease.is_valid(now),
        };
        if !may {
            return;
        }
        self.epoch = epoch;
        self.inbox.follow(None);
        self.outbox = Some(Outbox::new(self.name.clone(), self.node.clone(), epoch));
        self.set_role(ShardRole::Active);
    }

    pub(super) fn set_role(&mut self, role: ShardRole) {
        self.role = role;
        self.actions.push_back(ShardAction::Role(role, self.epoch));
    }

    pub(super) fn fence(&mut self, why: &str) {
        self.note(format!("fenced in epoch {}: {why}", self.epoch));
        self.lease.end();
        self.outbox = None;
        self.set_role(ShardRole::Fenced);
    }

    pub(super) fn become_standby(&mut self, now: Duration) {
        self.outbox = None;
        self.heard = now;
        self.set_role(ShardRole::Standby);
    }

    /// Somebody has an epoch above ours: whatever we were, we are not active.
    pub(super) fn raise_epoch(&mut self, epoch: Epoch, by: &str, now: Duration) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        // It was left to others, and one has taken it: should that one die, nobody has to be waited for.
        self.stand_back_until = self.stand_back_until.min(now);
        self.claimed = self.claimed.filter(|claimed| *claimed > epoch);
        self.inbox.follow(None);
        if self.role != ShardRole::Standby {
            self.note(format!("epoch {epoch} was seen by {by}: another node decides"));
            self.lease.end();
            self.become_standby(now);
        }
        if self.stored_epoch < epoch {
            self.actions.push_back(ShardAction::StoreEpoch(epoch));
        }
    }
}
