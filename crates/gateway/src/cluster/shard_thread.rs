//! The thread of a running gateway's shards: what has come and what is due, to each shard; what the shards want, to the table, the router, the disk and the transport.
//!
//! It takes the router's lock for bounded turns only, as every other part of the gateway does. The packet path knows of it nothing but the router's duty, which ends by the clock when this thread is late.
use super::address_takeover::AddressTakeover;
use super::cluster_time::ClusterTime;
use super::config::ClusterConfig;
use super::epoch_file::{self, EpochWriter};
use super::handle::{ClusterCommand, ClusterHandle};
use super::report::ClusterReport;
use super::running_balance::RunningBalance;
use super::running_shard::{RunningShard, SharedParts, monotonic};
use super::table_sender::TableSender;
use crate::clock::TimeSource;
use crate::shared::SharedGateway;
use crate::turns::TurnKind;
use anyhow::{Result, anyhow};
use keepstate_cluster::{Decider, Greeting, NodeInstance, Shard, ShardName, ShardRole, StateTransport, TransportEvent};
use keepstate_linux::poll::poll_readable;
use keepstate_router::ShardAddresses;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long the active one waits before it looks for changes again, and a standby before it looks at its clock: milliseconds.
const ACTIVE_WAIT_MS: i32 = 2;
const STANDBY_WAIT_MS: i32 = 10;
/// Events of the transport taken in one turn.
const MAX_EVENTS_PER_TURN: usize = 256;
/// How long a gateway that ends waits until it has handed over.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The shards before their gateway routes.
pub(crate) struct ClusterNode {
    shards: Vec<Shard>,
    config: ClusterConfig,
    greeting: Greeting,
    transport: Box<dyn StateTransport>,
    epochs: EpochWriter,
    takeover: Option<AddressTakeover>,
    time: Arc<ClusterTime>,
    handle: ClusterHandle,
    commands: Receiver<ClusterCommand>,
}

impl ClusterNode {
    /// Starts what needs files: the transport's thread and the one that writes epochs. To be called before this thread is limited.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn start(
        config: &ClusterConfig,
        greeting: Greeting,
        takeover: Option<AddressTakeover>,
    ) -> Result<ClusterNode> {
        if config.decider == Decider::Hand && config.nodes.is_empty() {
            tracing::warn!(
                "lease = \"manual\" without nodes: two gateways that are promoted while neither hears of the other may give one outside port twice; list all gateways in [cluster]: nodes = [\"{}\", …]",
                config.node
            );
        }
        let (epochs, transport) = epoch_file::start(config)?;
        let instance = getrandom::u64().map_err(|error| anyhow!("the kernel gives no random numbers: {error}"))?;
        let shards: Vec<Shard> = config
            .shards()
            .zip(&epochs.stored)
            .map(|(shard, stored)| {
                let names = (shard.name.clone(), config.node.clone());
                Shard::new(names, config.decider, greeting.clone(), *stored, monotonic())
                    .with_epoch_share(config.epoch_share)
                    .with_instance(NodeInstance(instance))
            })
            .collect();
        let reports = shards.iter().map(|shard| ClusterReport {
            cluster: config.cluster.to_string(),
            node: config.node.to_string(),
            shard: shard.name().to_string(),
            decider: config.decider,
            status: shard.status(),
            received: Default::default(),
            age: Duration::ZERO,
            unreachable: None,
            disk_error: None,
        });
        let addresses = config.shard_addresses().map(|all| all.iter().map(|(range, _)| range).collect());
        let (handle, commands) = ClusterHandle::new(reports.collect(), addresses);
        let time = Arc::new(if config.is_divided() { ClusterTime::running() } else { ClusterTime::held() });
        Ok(ClusterNode {
            shards,
            config: config.clone(),
            greeting,
            transport,
            epochs,
            takeover,
            time,
            handle,
            commands,
        })
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
        let ClusterNode { shards, config, greeting, transport, epochs, takeover, time, handle, commands } = self;
        let addresses = config.shard_addresses();
        let is_divided = addresses.is_some();
        let sender = addresses.clone().map_or_else(TableSender::default, TableSender::of_shards);
        let shared_addresses =
            ShardAddresses::new(&[config.shards().flat_map(|shard| shard.addresses.clone()).collect()]);
        let decided = vec![None; shards.len()];
        let shards = shards.into_iter().enumerate().map(|(at, shard)| RunningShard::new(at, shard, is_divided));
        let mut thread = ShardThread {
            shards: shards.collect(),
            balance: RunningBalance::new(&config, monotonic()),
            greeting,
            commands,
            sender,
            parts: SharedParts {
                gateway,
                config,
                transport,
                epochs,
                takeover,
                time,
                handle,
                addresses,
                shared_addresses,
                decided,
                unreachable: Some("it was not reached yet".into()),
            },
        };
        while !stop.load(Ordering::Relaxed) {
            thread.turn();
        }
        thread.hand_over();
    }
}

struct ShardThread<'a> {
    shards: Vec<RunningShard>,
    balance: RunningBalance,
    greeting: Greeting,
    commands: Receiver<ClusterCommand>,
    sender: TableSender,
    parts: SharedParts<'a>,
}

impl ShardThread<'_> {
    fn turn(&mut self) {
        let commands: Vec<ClusterCommand> = self.commands.try_iter().collect();
        commands.into_iter().for_each(|command| self.command(command));
        for _ in 0..MAX_EVENTS_PER_TURN {
            let Some(event) = self.parts.transport.poll() else { break };
            self.note_event(&event);
            self.give_event(event);
        }
        while let Some((shard, written)) = self.parts.epochs.poll() {
            self.shards.get_mut(shard).into_iter().for_each(|shard| shard.epoch_written(written.clone()));
        }
        self.handle_time();
        self.balance.poll(&mut self.shards, &mut self.parts);
        let mut is_busy = self.send();
        for shard in &mut self.shards {
            is_busy |= shard.finish_turn(&mut self.parts);
        }
        if !is_busy {
            self.wait();
        }
    }

    fn wait(&self) {
        let stands = self.shards.iter().all(|shard| shard.shard.role() == ShardRole::Standby);
        let limit = if stands { STANDBY_WAIT_MS } else { ACTIVE_WAIT_MS };
        if poll_readable(self.parts.transport.wake_fd(), limit).is_err() {
            // Without descriptors to wait for there is still the clock.
            std::thread::sleep(Duration::from_millis(u64::from(limit.unsigned_abs())));
        }
    }

    fn note_event(&mut self, event: &TransportEvent) {
        match event {
            TransportEvent::Connected => self.parts.unreachable = None,
            TransportEvent::Disconnected { reason } => {
                if self.parts.unreachable.as_ref() != Some(reason) {
                    tracing::warn!("the cluster cannot be reached: {reason}");
                }
                self.parts.unreachable = Some(reason.clone());
            }
            _ => {}
        }
    }

    /// To the shard that it is about, or to all.
    fn give_event(&mut self, event: TransportEvent) {
        match shard_of_event(&event).cloned() {
            Some(name) => {
                if let Some(shard) = self.shards.iter_mut().find(|shard| *shard.shard.name() == name) {
                    shard.handle_event(event, &mut self.parts);
                }
            }
            None => self.shards.iter_mut().for_each(|shard| shard.handle_event(event.clone(), &mut self.parts)),
        }
    }

    /// What is due by the clock. Whoever decides shards already leaves free ones to others a little longer.
    fn handle_time(&mut self) {
        for at in 0..self.shards.len() {
            let now = monotonic();
            let others = self.shards.iter().enumerate().filter(|(other, _)| *other != at);
            let load = others.filter(|(_, shard)| shard.shard.is_load(now)).count();
            if let Some(shard) = self.shards.get_mut(at) {
                shard.handle_time(u32::try_from(load).unwrap_or(u32::MAX), &mut self.parts);
            }
        }
    }

    /// Sends what there is, as far as the transport takes it; true if there is more and it takes more.
    fn send(&mut self) -> bool {
        let now = self.parts.gateway.now();
        let mut shards: Vec<&mut Shard> = self.shards.iter_mut().map(|shard| &mut shard.shard).collect();
        let mut turn = self.parts.gateway.lock(TurnKind::Cluster);
        let more = self.sender.poll(&mut shards, turn.router.engine_mut(), monotonic(), now);
        drop(turn);
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.publish(!self.sender.has_more(at), &mut self.parts);
        }
        more && self.shards.iter().any(|shard| shard.shard.has_room())
    }

    fn command(&mut self, command: ClusterCommand) {
        match command {
            ClusterCommand::Promote(shard, reply) => {
                if let Some(shard) = self.shards.get_mut(shard) {
                    shard.promote(reply, &mut self.parts);
                }
            }
            ClusterCommand::Demote(shard, reply) => {
                if let Some(shard) = self.shards.get_mut(shard) {
                    shard.demote(reply, &mut self.parts);
                }
            }
            ClusterCommand::Rebalance(reply) => self.balance.want(reply, &self.shards, &self.parts),
            ClusterCommand::Reloaded([ruleset, services]) => {
                self.greeting = Greeting { ruleset, services, ..self.greeting.clone() };
                self.shards.iter_mut().for_each(|shard| shard.shard.set_greeting(self.greeting.clone()));
            }
        }
    }

    /// The gateway ends: nothing that others do not know is lost, and they need not wait for a lease to end.
    fn hand_over(&mut self) {
        let was_active: Vec<bool> = self.shards.iter_mut().map(RunningShard::begin_handover).collect();
        let deadline = monotonic().saturating_add(HANDOVER_TIMEOUT);
        let is_done = |thread: &ShardThread<'_>| {
            let active = thread.shards.iter().zip(&was_active).filter(|(_, was_active)| **was_active);
            active.into_iter().all(|(shard, _)| shard.is_handed_over(&thread.parts))
        };
        while monotonic() < deadline && !is_done(self) {
            self.turn();
        }
    }
}

/// The shard that an event is about; `None`: it is about the way to all of them.
fn shard_of_event(event: &TransportEvent) -> Option<&ShardName> {
    match event {
        TransportEvent::Received(frame) => Some(&frame.shard),
        TransportEvent::Acknowledged { shard, .. }
        | TransportEvent::Lease { shard, .. }
        | TransportEvent::LeaseRefused { shard, .. }
        | TransportEvent::LeaseFailed { shard, .. }
        | TransportEvent::Undecodable { shard, .. }
        | TransportEvent::Lost { shard, .. } => Some(shard),
        TransportEvent::Connected | TransportEvent::Disconnected { .. } => None,
    }
}
