//! One shard as one node sees it: its role, and what it does when something happens. Sans-IO.
//!
//! ```text
//!                 lease granted, or promoted by hand
//!   Standby ──────────────▶ its epoch on the disk ──────▶ Active ──── demote ────▶ Demoting ── all acknowledged ──▶ Standby
//!      ▲                                                    │ lease not renewed in time, or lost
//!      └────────────── a higher epoch is seen ──────────────┴──▶ Fenced ── lease granted again, or promoted ──▶ …
//! ```
//! A [`Shard`] lives as long as its gateway. Only an Active one creates translations, and asks [`Shard::may_create`] each time. An epoch is used only once it is on this machine's disk, so that after a crash
//! it is not used again. What is to be done is taken with [`Shard::poll_action`] and [`Shard::poll_frame`].
mod handover;
mod lease_renewal;
mod namesake;
mod reception;
mod role_change;
mod sending;

use crate::balance::HandoverRequest;
use crate::epoch_share::EpochShare;
use crate::frame::{Epoch, Sequence, StateFrame};
use crate::greeting::Greeting;
use crate::inbox::Inbox;
use crate::lease::LeaseClock;
use crate::names::{NodeInstance, NodeName, ShardName};
use crate::outbox::Outbox;
use crate::role::{Decider, ShardAction, ShardRole, ShardStatus};
use crate::transport::{LeaseAction, TransportEvent};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two heartbeats of an active node whose shard is decided by hand.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);

/// A shard; see the module.
#[derive(Debug)]
pub struct Shard {
    name: ShardName,
    node: NodeName,
    instance: NodeInstance,
    decider: Decider,
    share: EpochShare,
    greeting: Greeting,
    role: ShardRole,
    /// The highest epoch known anywhere.
    epoch: Epoch,
    /// On this machine's disk.
    stored_epoch: Epoch,
    /// Becomes ours once it is on the disk.
    claimed: Option<Epoch>,
    inbox: Inbox,
    outbox: Option<Outbox>,
    lease: LeaseClock,
    holder: Option<NodeName>,
    /// When the active node was last heard of.
    heard: Duration,
    /// Until then the lease is left to others: after a planned change.
    stand_back_until: Duration,
    /// When the lease was last asked for, while there is no answer.
    acquiring: Option<Duration>,
    /// Other shards that this node decides.
    load: u32,
    demote_deadline: Duration,
    last_heartbeat: Duration,
    last_snapshot_request: Option<Duration>,
    /// Behind its sender: what was last used, since when nothing more comes.
    behind: Option<(Sequence, Duration)>,
    connected: bool,
    lost: u64,
    actions: VecDeque<ShardAction>,
    requests: VecDeque<StateFrame>,
    /// Another node asks for it.
    handover_request: Option<HandoverRequest>,
    /// When a process with this node's name was last heard of, that is active.
    namesake_heard: Option<Duration>,
    /// Why its lease could not be asked for.
    lease_error: Option<String>,
}

impl Shard {
    /// A standby that knows nothing but the epoch on its disk.
    pub fn new(
        (name, node): (ShardName, NodeName),
        decider: Decider,
        greeting: Greeting,
        stored_epoch: Epoch,
        now: Duration,
    ) -> Shard {
        Shard {
            name,
            node,
            instance: NodeInstance::default(),
            decider,
            share: EpochShare::default(),
            greeting,
            role: ShardRole::Standby,
            epoch: stored_epoch,
            stored_epoch,
            claimed: None,
            inbox: Inbox::default(),
            outbox: None,
            lease: LeaseClock::default(),
            holder: None,
            heard: now,
            stand_back_until: now,
            acquiring: None,
            load: 0,
            demote_deadline: now,
            last_heartbeat: now,
            last_snapshot_request: None,
            behind: None,
            connected: false,
            lost: 0,
            actions: VecDeque::new(),
            requests: VecDeque::new(),
            handover_request: None,
            namesake_heard: None,
            lease_error: None,
        }
    }

    /// Promoted by hand it takes the epochs of this share alone.
    #[must_use]
    pub fn with_epoch_share(mut self, share: EpochShare) -> Shard {
        self.share = share;
        self
    }

    /// Heartbeats of its name that are not this instance's are another process's.
    #[must_use]
    pub fn with_instance(mut self, instance: NodeInstance) -> Shard {
        self.instance = instance;
        self
    }

    /// Its name.
    pub fn name(&self) -> &ShardName {
        &self.name
    }

    /// The role, after [`Shard::handle_time`].
    pub fn role(&self) -> ShardRole {
        self.role
    }

    /// May a connection be created now? To be asked for each: a process that was stopped for a while does not know it.
    pub fn may_create(&self, now: Duration) -> bool {
        self.role == ShardRole::Active && (self.decider == Decider::Hand || self.lease.is_valid(now))
    }

    /// Until when [`Shard::may_create`] holds, if nothing happens: `None` if without end, or not at all.
    pub fn may_create_until(&self) -> Option<Duration> {
        if self.role == ShardRole::Active && self.decider != Decider::Hand { self.lease.valid_until() } else { None }
    }

    /// Does this node decide it, or is about to? Counts for [`Shard::set_load`] of its other shards.
    pub fn is_load(&self, now: Duration) -> bool {
        let is_active = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
        let Decider::Lease(ttl) = self.decider else { return is_active };
        let asks = self.acquiring.is_some_and(|since| now.saturating_sub(since) < ttl);
        is_active || asks || self.claimed.is_some()
    }

    /// How many other shards this node decides: it waits so much longer before it takes this one's lease, a quarter of the lease for each, that a node with fewer comes first.
    pub fn set_load(&mut self, others: u32) {
        self.load = others;
    }

    /// What the sender of a later greeting is compared with, after a reload.
    pub fn set_greeting(&mut self, greeting: Greeting) {
        if self.greeting != greeting {
            self.greeting = greeting;
            // Active: the others are told with a new snapshot.
            self.outbox.iter_mut().for_each(Outbox::want_snapshot);
        }
    }

    /// What has happened at the transport.
    pub fn handle_event(&mut self, event: TransportEvent, now: Duration) {
        match event {
            TransportEvent::Received(frame) => self.receive(frame, now),
            TransportEvent::Acknowledged { shard, epoch, sequence } => {
                if shard == self.name
                    && epoch == self.epoch
                    && let Some(outbox) = &mut self.outbox
                {
                    outbox.acknowledge(sequence);
                }
            }
            TransportEvent::Lease { shard, holder, epoch, answers } if shard == self.name => {
                self.lease_error = None;
                self.lease_told(holder, epoch, answers, now);
            }
            // Its epoch is no evidence that somebody decides by it: one that was claimed and lost on the way is never used.
            TransportEvent::LeaseRefused { shard, action, answers, .. } if shard == self.name => {
                let ours = self.lease.refused(answers);
                (self.acquiring, self.lease_error) = (None, None);
                let is_active = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
                if ours && action == LeaseAction::Renew && is_active {
                    self.fence("its lease was taken by another node");
                }
            }
            TransportEvent::Undecodable { shard, error } if shard == self.name => self.note_undecodable(&error),
            TransportEvent::LeaseFailed { shard, reason } if shard == self.name => self.lease_failed(reason),
            TransportEvent::Lease { .. }
            | TransportEvent::LeaseRefused { .. }
            | TransportEvent::LeaseFailed { .. }
            | TransportEvent::Undecodable { .. } => {}
            TransportEvent::Connected => self.connected = true,
            TransportEvent::Disconnected { .. } => self.connected = false,
            TransportEvent::Lost { shard, frames } => {
                if shard == self.name {
                    self.lost = self.lost.saturating_add(frames);
                    self.outbox.iter_mut().for_each(Outbox::lost);
                }
            }
        }
    }

    /// What is due by the clock. To be called before anything is created, and at least every few milliseconds.
    pub fn handle_time(&mut self, now: Duration) {
        self.forget_namesake(now);
        if let Decider::Lease(ttl) = self.decider {
            self.keep_lease(ttl, now);
        }
        let interval = match self.decider {
            Decider::Lease(ttl) => HEARTBEAT_INTERVAL.min(ttl / 4),
            Decider::Hand => HEARTBEAT_INTERVAL,
        };
        if now.saturating_sub(self.last_heartbeat) >= interval
            && let Some(outbox) = &mut self.outbox
            && outbox.has_room()
        {
            self.last_heartbeat = now;
            outbox.heartbeat(self.instance);
        }
        if self.role == ShardRole::Demoting && now >= self.demote_deadline {
            self.fence(
                "demoted, but not all was acknowledged in time: the newest connections may be unknown to the next node",
            );
            self.release(now);
        }
        self.watch_lag(now);
        // Whoever has joined or missed something and has heard no snapshot asks again.
        let has_use = self.inbox.sender.is_some() && !self.inbox.is_other_table();
        if self.role == ShardRole::Standby && !self.inbox.in_step && has_use {
            self.request_snapshot(now);
        }
    }

    fn note(&mut self, text: String) {
        self.actions.push_back(ShardAction::Note(format!("shard {}: {text}", self.name)));
    }

    /// What the owner has to do next.
    pub fn poll_action(&mut self) -> Option<ShardAction> {
        self.actions.pop_front()
    }

    /// What an operator wants to know.
    pub fn status(&self) -> ShardStatus {
        let unacknowledged = self.outbox.as_ref().map_or(0, Outbox::unacknowledged);
        let is_active = self.outbox.is_some();
        ShardStatus {
            role: self.role,
            epoch: self.epoch,
            sender: self.inbox.sender.clone(),
            in_step: if is_active { unacknowledged == 0 } else { self.inbox.in_step },
            lag: self.inbox.lag(),
            sequence: self.outbox.as_ref().map_or(self.inbox.last(), Outbox::last),
            unacknowledged,
            lost: self.lost,
            connected: self.connected,
            name_taken: self.is_name_taken(),
            lease_error: self.lease_error.clone(),
            differences: self.inbox.differences.clone(),
            counters: self.inbox.counters,
        }
    }
}
