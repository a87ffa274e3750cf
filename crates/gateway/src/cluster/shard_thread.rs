//! The thread of a running gateway's shard: what has come and what is due, to the shard; what the shard wants, to the table, the router, the disk and the transport.
//!
//! It takes the router's lock for bounded turns only, as every other part of the gateway does. The packet path knows of it nothing but the router's duty, which ends by the clock when this thread is late.
use super::cluster_time::ClusterTime;
use super::config::ClusterConfig;
use super::epoch_file::{self, EpochWriter};
use super::handle::{ClusterCommand, ClusterHandle, ClusterReply};
use super::own_connections::OwnConnections;
use super::port_part;
use super::report::ClusterReport;
use super::table_receiver::TableReceiver;
use super::table_sender::TableSender;
use crate::clock::{SystemTimeSource, TimeSource};
use crate::shared::SharedGateway;
use crate::turns::TurnKind;
use anyhow::Result;
use keepstate_cluster::{
    Decider, Epoch, Greeting, Shard, ShardAction, ShardRole, StateTransport, TableChange, TransportEvent,
};
use keepstate_engine::{Entry, Instant, PartUse};
use keepstate_linux::poll::poll_readable;
use keepstate_router::{ClusterDuty, FibTable};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long the active one waits before it looks for changes again, and a standby before it looks at its clock: milliseconds.
const ACTIVE_WAIT_MS: i32 = 2;
const STANDBY_WAIT_MS: i32 = 10;
/// Events of the transport taken in one turn.
const MAX_EVENTS_PER_TURN: usize = 256;
/// For so long after a takeover no port is given that the gateway before may just have given; afterwards they are given last.
const OTHER_PORTS_FOR: Duration = Duration::from_secs(120);
/// How long a promotion may take.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a gateway that ends waits until it has handed over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// A shard before its gateway routes.
pub(crate) struct ClusterNode {
    shard: Shard,
    config: ClusterConfig,
    greeting: Greeting,
    transport: Box<dyn StateTransport>,
    epochs: EpochWriter,
    time: Arc<ClusterTime>,
    handle: ClusterHandle,
    commands: Receiver<ClusterCommand>,
}

impl ClusterNode {
    /// Starts what needs files: the transport's thread and the one that writes epochs. To be called before this thread is limited.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn start(config: &ClusterConfig, greeting: Greeting) -> Result<ClusterNode> {
        let (epochs, transport) = epoch_file::start(config)?;
        let names = (config.shard.clone(), config.node.clone());
        let shard = Shard::new(names, config.decider, greeting.clone(), epochs.stored, monotonic());
        let (handle, commands) = ClusterHandle::new(ClusterReport {
            cluster: config.cluster.to_string(),
            node: config.node.to_string(),
            shard: config.shard.to_string(),
            decider: config.decider,
            status: shard.status(),
            received: Default::default(),
            age: Duration::ZERO,
            unreachable: None,
            disk_error: None,
        });
        let (config, time) = (config.clone(), Arc::new(ClusterTime::held()));
        Ok(ClusterNode { shard, config, greeting, transport, epochs, time, handle, commands })
    }

    /// The clocks that the gateway must go by.
    pub(crate) fn time(&self) -> Arc<dyn TimeSource> {
        Arc::clone(&self.time) as Arc<dyn TimeSource>
    }

    /// For control clients.
    pub(crate) fn handle(&self) -> ClusterHandle {
        self.handle.clone()
    }

    /// Runs until `stop`, and hands over then, if there is something to hand over.
    pub(crate) fn run(self, gateway: &SharedGateway, stop: &AtomicBool) {
        let now = monotonic();
        let mut thread = ShardThread {
            node: self,
            gateway,
            sender: TableSender::default(),
            receiver: TableReceiver::default(),
            own: OwnConnections::new(now),
            duty: ClusterDuty::Standby,
            flow_generation: 0,
            activated: None,
            safe_at: now,
            heard_at: now,
            promoting: Vec::new(),
            demoting: Vec::new(),
            promote_deadline: now,
            unreachable: Some("it was not reached yet".into()),
            disk_error: None,
            released: false,
        };
        while !stop.load(Ordering::Relaxed) {
            thread.turn();
        }
        thread.hand_over();
    }
}

/// Time since boot: that of leases and heartbeats.
fn monotonic() -> Duration {
    Duration::from_nanos(SystemTimeSource.now().0)
}

/// Is it a connection of the machine itself, and nobody else's?
fn is_own(entry: &Entry, fib: &FibTable, shared: &[IpAddr]) -> bool {
    let ends = [entry.original.source, entry.reply.source];
    ends.into_iter().any(|end| fib.is_local(end) && !shared.contains(&end))
}

struct ShardThread<'a> {
    node: ClusterNode,
    gateway: &'a SharedGateway,
    sender: TableSender,
    receiver: TableReceiver,
    own: OwnConnections,
    /// As the router has it.
    duty: ClusterDuty,
    /// The generation of flows that begins with its last duty.
    flow_generation: u64,
    /// When it became active, while ports of others are avoided.
    activated: Option<(Duration, Epoch)>,
    /// When all was last known to be with the cluster.
    safe_at: Duration,
    heard_at: Duration,
    promoting: Vec<ClusterReply>,
    demoting: Vec<ClusterReply>,
    promote_deadline: Duration,
    unreachable: Option<String>,
    disk_error: Option<String>,
    /// The lease was given back.
    released: bool,
}

impl ShardThread<'_> {
    fn turn(&mut self) {
        let commands: Vec<ClusterCommand> = self.node.commands.try_iter().collect();
        commands.into_iter().for_each(|command| self.command(command));
        for _ in 0..MAX_EVENTS_PER_TURN {
            let Some(event) = self.node.transport.poll() else { break };
            self.note_event(&event);
            self.node.shard.handle_event(event, monotonic());
            self.take_actions();
        }
        while let Some(stored) = self.node.epochs.poll() {
            match stored {
                Ok(epoch) => {
                    self.disk_error = None;
                    self.node.shard.epoch_stored(epoch, monotonic());
                }
                Err(error) => {
                    tracing::error!("shard {}: the epoch cannot be written: {error}", self.node.config.shard);
                    self.disk_error = Some(error);
                }
            }
        }
        self.node.shard.handle_time(monotonic());
        self.take_actions();
        let is_busy = self.send();
        self.take_actions();
        self.keep_duty();
        self.age_own();
        self.answer();
        self.report();
        if !is_busy {
            self.wait();
        }
    }

    fn wait(&self) {
        let limit = if self.node.shard.role() == ShardRole::Standby { STANDBY_WAIT_MS } else { ACTIVE_WAIT_MS };
        if poll_readable(self.node.transport.wake_fd(), limit).is_err() {
            // Without descriptors to wait for there is still the clock.
            std::thread::sleep(Duration::from_millis(u64::from(limit.unsigned_abs())));
        }
    }

    fn note_event(&mut self, event: &TransportEvent) {
        match event {
            TransportEvent::Received(frame) if frame.node != self.node.config.node => self.heard_at = monotonic(),
            TransportEvent::Connected => self.unreachable = None,
            TransportEvent::Disconnected { reason } => {
                if self.unreachable.as_ref() != Some(reason) {
                    tracing::warn!("the cluster cannot be reached: {reason}");
                }
                self.unreachable = Some(reason.clone());
            }
            TransportEvent::Lease { holder: None, answers: Some(_), .. } => self.released = true,
            _ => {}
        }
    }

    fn take_actions(&mut self) {
        while let Some(action) = self.node.shard.poll_action() {
            match action {
                ShardAction::StoreEpoch(epoch) => self.node.epochs.store(epoch),
                ShardAction::RequestLease(request) => self.node.transport.request_lease(request),
                ShardAction::Table(change) => self.change_table(&change),
                ShardAction::Role(role, epoch) => self.set_role(role, epoch),
                ShardAction::Note(text) => tracing::warn!("{text}"),
            }
        }
    }

    /// A change in one bounded turn, or in several.
    fn change_table(&mut self, change: &TableChange) {
        let now = self.gateway.now();
        self.receiver.apply(change, self.gateway.lock(TurnKind::Cluster).router.engine_mut(), now);
        if *change != TableChange::Sweep {
            return;
        }
        loop {
            let mut turn = self.gateway.lock(TurnKind::Cluster);
            let (engine, fib) = turn.router.engine_and_fib();
            let shared = &self.node.config.shared_addresses;
            if !self.receiver.poll_sweep(engine, |entry| is_own(entry, fib, shared), now) {
                return;
            }
        }
    }

    /// The machine's own connections on a standby, whose time stands still.
    fn age_own(&mut self) {
        let monotonic = monotonic();
        if self.node.shard.role() == ShardRole::Standby && self.own.is_due(monotonic) {
            let now = self.gateway.now();
            let mut turn = self.gateway.lock(TurnKind::Cluster);
            let (engine, fib) = turn.router.engine_and_fib();
            let shared = &self.node.config.shared_addresses;
            self.own.poll(engine, |entry| is_own(entry, fib, shared), monotonic, now);
        }
    }

    fn set_role(&mut self, role: ShardRole, epoch: Epoch) {
        tracing::info!("shard {}: {} in epoch {epoch}", self.node.config.shard, role.name());
        let mut turn = self.gateway.lock(TurnKind::Cluster);
        match role {
            ShardRole::Active => {
                self.node.time.release();
                self.activated = Some((monotonic(), epoch));
                self.safe_at = monotonic();
                let router = &mut turn.router;
                router.engine_mut().set_port_part(port_part(epoch, PartUse::Only));
                if !router.services().is_empty() {
                    // What was taken over counts for its backends.
                    router.begin_adoption();
                }
                self.receiver.forget();
            }
            ShardRole::Demoting | ShardRole::Fenced => {}
            ShardRole::Standby => {
                self.node.time.hold();
                self.activated = None;
                self.own = OwnConnections::new(monotonic());
            }
        }
        self.duty = self.duty_of(role);
        turn.router.set_duty(self.duty);
        self.flow_generation = turn.router.flow_generation();
    }

    fn duty_of(&self, role: ShardRole) -> ClusterDuty {
        match role {
            ShardRole::Active => {
                let engine_time = |machine: Duration| {
                    self.node.time.at(Instant(u64::try_from(machine.as_nanos()).unwrap_or(u64::MAX)))
                };
                let is_by_hand = self.node.config.decider == Decider::Hand;
                // A lease that has no end is none.
                let until = self.node.shard.may_create_until().unwrap_or_default();
                ClusterDuty::Active { until: (!is_by_hand).then(|| engine_time(until)) }
            }
            ShardRole::Demoting | ShardRole::Fenced => ClusterDuty::Fenced,
            ShardRole::Standby => ClusterDuty::Standby,
        }
    }

    /// A renewed lease, and ports that are no longer avoided.
    fn keep_duty(&mut self) {
        let duty = self.duty_of(self.node.shard.role());
        if duty != self.duty {
            self.duty = duty;
            self.gateway.lock(TurnKind::Cluster).router.set_duty(duty);
        }
        if let Some((at, epoch)) = self.activated
            && monotonic().saturating_sub(at) >= OTHER_PORTS_FOR
        {
            self.activated = None;
            let mut turn = self.gateway.lock(TurnKind::Cluster);
            turn.router.engine_mut().set_port_part(port_part(epoch, PartUse::First));
        }
    }

    /// Sends what there is, as far as the transport takes it; true if there is more and it takes more.
    fn send(&mut self) -> bool {
        let shard = &mut self.node.shard;
        let now = self.gateway.now();
        let more = self.sender.poll(shard, self.gateway.lock(TurnKind::Cluster).router.engine_mut(), monotonic(), now);
        while let Some(frame) = shard.poll_frame() {
            if self.node.transport.publish(frame.clone()).is_err() {
                shard.frame_refused(frame);
                break;
            }
        }
        let status = shard.status();
        if !more && status.unacknowledged == 0 {
            self.safe_at = monotonic();
        }
        more && shard.has_room()
    }

    fn command(&mut self, command: ClusterCommand) {
        let now = monotonic();
        match command {
            ClusterCommand::Promote(reply) => match self.node.shard.promote(now) {
                Ok(()) => {
                    self.promote_deadline = now.saturating_add(PROMOTE_TIMEOUT);
                    self.promoting.push(reply);
                }
                Err(error) => drop(reply.send(Err(format!("shard {}: {error}", self.node.config.shard)))),
            },
            ClusterCommand::Demote(reply) => match self.node.shard.demote(now) {
                Ok(()) => self.demoting.push(reply),
                Err(error) => drop(reply.send(Err(format!("shard {}: {error}", self.node.config.shard)))),
            },
            ClusterCommand::Reloaded([ruleset, services]) => {
                self.node.greeting = Greeting { ruleset, services, ..self.node.greeting.clone() };
                self.node.shard.set_greeting(self.node.greeting.clone());
            }
        }
        self.take_actions();
    }

    /// Tells those who wait for a change of the role.
    fn answer(&mut self) {
        let shard = &self.node.config.shard;
        let role = self.node.shard.role();
        let status = self.node.shard.status();
        let tell = |waiting: &mut Vec<ClusterReply>, answer: Result<String, String>| {
            // A client may have hung up.
            waiting.drain(..).for_each(|reply| drop(reply.send(answer.clone())));
        };
        if role == ShardRole::Active {
            tell(&mut self.promoting, Ok(format!("shard {shard}: active in epoch {}\n", status.epoch)));
        } else if monotonic() >= self.promote_deadline {
            let why = match (&self.disk_error, &self.unreachable, &status.sender) {
                (Some(error), ..) => format!("its epoch cannot be written: {error}"),
                (_, Some(reason), _) => format!("the cluster cannot be reached: {reason}"),
                (.., Some(sender)) => {
                    format!("{sender} holds the lease: on that gateway, keepstate control demote {shard}")
                }
                _ => "nobody has granted the lease".into(),
            };
            tell(&mut self.promoting, Err(format!("shard {shard}: it is still {}: {why}", role.name())));
        }
        match role {
            // The data path still forwards what it knew.
            ShardRole::Standby if self.gateway.flows_synced() < self.flow_generation => {}
            ShardRole::Standby => {
                tell(&mut self.demoting, Ok(format!("shard {shard}: standby in epoch {}\n", status.epoch)));
            }
            ShardRole::Fenced => tell(
                &mut self.demoting,
                Err(format!(
                    "shard {shard}: demoted, but not all was acknowledged in time: the newest connections may be unknown to the next gateway"
                )),
            ),
            ShardRole::Active | ShardRole::Demoting => {}
        }
    }

    fn report(&mut self) {
        let now = monotonic();
        let status = self.node.shard.status();
        let since =
            if matches!(status.role, ShardRole::Active | ShardRole::Demoting) { self.safe_at } else { self.heard_at };
        self.node.handle.set_report(ClusterReport {
            status,
            received: self.receiver.counters,
            age: now.saturating_sub(since),
            unreachable: self.unreachable.clone(),
            disk_error: self.disk_error.clone(),
            ..self.node.handle.report()
        });
    }

    /// The gateway ends: nothing that others do not know is lost, and they need not wait for a lease to end.
    fn hand_over(&mut self) {
        if self.node.shard.demote(monotonic()).is_err() {
            return;
        }
        let was_active = self.node.shard.role() == ShardRole::Demoting;
        self.released = false;
        let deadline = monotonic().saturating_add(HANDOVER_TIMEOUT);
        let is_done = |thread: &ShardThread<'_>| {
            let has_lease = thread.node.config.decider != Decider::Hand;
            thread.node.shard.role() != ShardRole::Demoting && (!has_lease || thread.released)
        };
        while was_active && monotonic() < deadline && !is_done(self) {
            self.turn();
        }
    }
}
