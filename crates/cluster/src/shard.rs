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
use crate::frame::{Epoch, FrameKind, StateFrame};
use crate::greeting::Greeting;
use crate::inbox::Inbox;
use crate::lease::LeaseClock;
use crate::names::{NodeName, ShardName};
use crate::outbox::Outbox;
use crate::role::{Decider, RoleChangeError, ShardAction, ShardRole, ShardStatus};
use crate::transport::{LeaseAction, LeaseRequest, TransportEvent};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two heartbeats of an active node whose shard is decided by hand.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a planned change waits for the last acknowledgement.
const DEMOTE_TIMEOUT: Duration = Duration::from_secs(10);
/// So many other shards count, at most, for how much longer a free lease is left to others.
const MAX_LOAD: u32 = 4;
/// Between two requests of a standby for a snapshot.
const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// A shard; see the module.
#[derive(Debug)]
pub struct Shard {
    name: ShardName,
    node: NodeName,
    decider: Decider,
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
    connected: bool,
    lost: u64,
    actions: VecDeque<ShardAction>,
    requests: VecDeque<StateFrame>,
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
            decider,
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
            connected: false,
            lost: 0,
            actions: VecDeque::new(),
            requests: VecDeque::new(),
        }
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
                self.lease_told(holder, epoch, answers, now);
            }
            // Its epoch is no evidence that somebody decides by it: one that was claimed and lost on the way is never used.
            TransportEvent::LeaseRefused { shard, action, answers, .. } if shard == self.name => {
                let ours = self.lease.refused(answers);
                self.acquiring = None;
                let is_active = matches!(self.role, ShardRole::Active | ShardRole::Demoting);
                if ours && action == LeaseAction::Renew && is_active {
                    self.fence("its lease was taken by another node");
                }
            }
            TransportEvent::Lease { .. } | TransportEvent::LeaseRefused { .. } => (),
            TransportEvent::Connected => self.connected = true,
            TransportEvent::Disconnected { reason } => {
                if self.connected {
                    self.note(format!("the cluster cannot be reached: {reason}"));
                }
                self.connected = false;
            }
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
            outbox.heartbeat();
        }
        if self.role == ShardRole::Demoting && now >= self.demote_deadline {
            self.fence(
                "demoted, but not all was acknowledged in time: the newest connections may be unknown to the next node",
            );
            self.release(now);
        }
        // Whoever has joined or missed something and has heard no snapshot asks again.
        if self.role == ShardRole::Standby && !self.inbox.in_step && self.inbox.sender.is_some() {
            self.request_snapshot(now);
        }
    }

    fn keep_lease(&mut self, ttl: Duration, now: Duration) {
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
                let may = self.claimed.is_none() && self.connected && now >= self.stand_back_until;
                if may && quiet && self.lease.rested(now, ttl / 4) {
                    self.request_lease(LeaseAction::Acquire, self.epoch.next(), now);
                }
            }
        }
    }

    fn request_lease(&mut self, action: LeaseAction, epoch: Epoch, now: Duration) {
        self.acquiring = Some(now).filter(|_| action == LeaseAction::Acquire);
        let number = self.lease.request(now);
        let request = LeaseRequest { shard: self.name.clone(), action, epoch, number };
        self.actions.push_back(ShardAction::RequestLease(request));
    }

    fn release(&mut self, now: Duration) {
        if let Decider::Lease(ttl) = self.decider {
            self.request_lease(LeaseAction::Release, self.epoch, now);
            self.stand_back_until = now.saturating_add(ttl * 10);
        }
        self.lease.end();
    }

    fn lease_told(&mut self, holder: Option<NodeName>, epoch: Epoch, answers: Option<u64>, now: Duration) {
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

    /// Makes this node active, as soon as its new epoch is on the disk. Nothing if it is already.
    ///
    /// # Errors
    /// It is being demoted.
    pub fn promote(&mut self, now: Duration) -> Result<(), RoleChangeError> {
        match (self.role, self.decider) {
            (ShardRole::Active, _) => Ok(()),
            (ShardRole::Demoting, _) => Err(RoleChangeError::Demoting),
            (_, Decider::Hand) => {
                self.claim(self.epoch.next());
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

    fn claim(&mut self, epoch: Epoch) {
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

    fn set_role(&mut self, role: ShardRole) {
        self.role = role;
        self.actions.push_back(ShardAction::Role(role, self.epoch));
    }

    fn fence(&mut self, why: &str) {
        self.note(format!("fenced in epoch {}: {why}", self.epoch));
        self.lease.end();
        self.outbox = None;
        self.set_role(ShardRole::Fenced);
    }

    fn become_standby(&mut self, now: Duration) {
        self.outbox = None;
        self.heard = now;
        self.set_role(ShardRole::Standby);
    }

    fn note(&mut self, text: String) {
        self.actions.push_back(ShardAction::Note(format!("shard {}: {text}", self.name)));
    }

    /// Somebody has an epoch above ours: whatever we were, we are not active.
    fn raise_epoch(&mut self, epoch: Epoch, by: &str, now: Duration) {
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

    fn receive(&mut self, frame: StateFrame, now: Duration) {
        if frame.shard != self.name || frame.node == self.node {
            return;
        }
        if frame.kind == FrameKind::SnapshotRequest {
            self.outbox.iter_mut().for_each(Outbox::want_snapshot);
            return;
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

    fn request_snapshot(&mut self, now: Duration) {
        let rested = self.last_snapshot_request.is_none_or(|last| now.saturating_sub(last) >= REQUEST_INTERVAL);
        if rested && self.requests.is_empty() {
            self.last_snapshot_request = Some(now);
            self.requests.push_back(StateFrame {
                shard: self.name.clone(),
                node: self.node.clone(),
                epoch: self.epoch,
                sequence: Default::default(),
                kind: FrameKind::SnapshotRequest,
                payload: Vec::new(),
            });
        }
    }

    /// What the owner has to do next.
    pub fn poll_action(&mut self) -> Option<ShardAction> {
        self.actions.pop_front()
    }

    /// The next frame for the transport.
    pub fn poll_frame(&mut self) -> Option<StateFrame> {
        self.requests.pop_front().or_else(|| self.outbox.as_mut().and_then(Outbox::pop))
    }

    /// The transport had no room for this frame, the one last taken.
    pub fn frame_refused(&mut self, frame: StateFrame) {
        if let Some(outbox) = &mut self.outbox {
            outbox.put_back(frame);
        }
    }

    /// Does it send, and has it room for a frame? If not, changes stay in the table's own list.
    pub fn has_room(&self) -> bool {
        self.connected && self.outbox.as_ref().is_some_and(Outbox::has_room)
    }

    /// Active: is a new snapshot to be begun? Then the caller goes through its table from the beginning.
    pub fn begin_snapshot(&mut self, now: Duration) -> bool {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| self.connected && outbox.snapshot_due(now)) else {
            return false;
        };
        outbox.begin_snapshot(&self.greeting, now);
        true
    }

    /// Active: was a snapshot begun, and not ended? After a loss the caller drops it, and one is begun anew.
    pub fn in_snapshot(&self) -> bool {
        self.outbox.as_ref().is_some_and(Outbox::in_snapshot)
    }

    /// Active: numbers a frame and puts it in the line, where [`Shard::has_room`] says there is room.
    pub fn push(&mut self, kind: FrameKind, payload: Vec<u8>) {
        if let Some(outbox) = &mut self.outbox {
            outbox.push(kind, payload);
        }
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
            differences: self.inbox.differences.clone(),
            counters: self.inbox.counters,
        }
    }
}
