//! The store that decides who holds a lease: one write after the other, by a clock of its own.
use crate::world::TTL;
use keepstate_cluster::{Epoch, LeaseAction, LeaseRequest};
use std::time::Duration;

#[derive(Default)]
pub struct LeaseStore {
    pub holder: Option<usize>,
    pub epoch: Epoch,
    expires: Duration,
}

impl LeaseStore {
    /// Is the request of `from` granted, that arrives at `arrives`?
    pub fn decide(&mut self, from: usize, request: &LeaseRequest, arrives: Duration) -> bool {
        if self.expires <= arrives {
            self.holder = None;
        }
        let granted = match request.action {
            LeaseAction::Acquire => self.holder.is_none(),
            LeaseAction::Renew | LeaseAction::Release => self.holder == Some(from) && self.epoch == request.epoch,
        };
        match request.action {
            _ if !granted => (),
            LeaseAction::Acquire => {
                self.epoch = self.epoch.next().max(request.epoch);
                (self.holder, self.expires) = (Some(from), arrives + TTL);
            }
            LeaseAction::Renew => self.expires = arrives + TTL,
            LeaseAction::Release => self.holder = None,
        }
        granted
    }
}
