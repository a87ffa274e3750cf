//! One shard of a running gateway: what its role means for the table, the router and those who wait for a change of it.
//!
//! It lives as long as its gateway. With several shards each has one; what they share, the gateway and its transport, is [`SharedParts`].
use super::address_takeover::AddressTakeover;
use super::cluster_time::ClusterTime;
use super::config::ClusterConfig;
use super::epoch_file::EpochWriter;
use super::handle::{ClusterHandle, ClusterReply};
use super::own_connections::OwnConnections;
use super::port_part;
use super::table_receiver::TableReceiver;
use crate::clock::{SystemTimeSource, TimeSource};
use crate::shared::SharedGateway;
use crate::turns::TurnKind;
use keepstate_cluster::{Decider, Epoch, Shard, ShardAction, ShardRole, StateTransport, TableChange, TransportEvent};
use keepstate_engine::{ConnId, Entry, Instant, OwnSources, PartUse};
use keepstate_router::{ClusterDuty, ConnectionShard, FibTable, Router, ShardAddresses};
use std::sync::Arc;
use std::time::Duration;

/// For so long after a takeover no port is given that the gateway before may just have given; afterwards they are given last.
const OTHER_PORTS_FOR: Duration = Duration::from_secs(120);
/// How long a promotion may take.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(5);
/// Slots of the table looked at in one turn of a walk, and turns of it between two looks at everything else.
const WALK_SLOTS_PER_TURN: u32 = 2048;
const WALK_TURNS: usize = 16;

/// What the shards of a gateway share.
pub(super) struct SharedParts<'a> {
    pub(super) gateway: &'a SharedGateway,
    pub(super) config: ClusterConfig,
    pub(super) transport: Box<dyn StateTransport>,
    pub(super) epochs: EpochWriter,
    /// Addresses that this gateway moves by itself.
    pub(super) takeover: Option<AddressTakeover>,
    pub(super) time: Arc<ClusterTime>,
    pub(super) handle: ClusterHandle,
    /// Of several shards.
    pub(super) addresses: Option<ShardAddresses>,
    /// Addresses that move with shards, of all of them.
    pub(super) shared_addresses: ShardAddresses,
    /// By shard: the epoch that this gateway decides it in, and how its ports are used.
    pub(super) decided: Vec<Option<(Epoch, PartUse)>>,
    pub(super) unreachable: Option<String>,
}

/// One shard; see the module.
pub(super) struct RunningShard {
    /// Its place among the shards.
    at: usize,
    pub(super) shard: Shard,
    receiver: TableReceiver,
    own: OwnConnections,
    /// As the router has it.
    duty: ClusterDuty,
    /// The generation of flows that begins with its last duty.
    flow_generation: u64,
    /// When it became active, while ports of others are avoided.
    activated: Option<(Duration, Epoch)>,
    /// Of several shards: the next slot of the walk that holds its connections, or lets them go on.
    walk: Option<u32>,
    /// When all was last known to be with the cluster.
    safe_at: Duration,
    heard_at: Duration,
    promoting: Vec<ClusterReply>,
    demoting: Vec<ClusterReply>,
    promote_deadline: Duration,
    disk_error: Option<String>,
    /// The lease was given back.
    released: bool,
}

/// Time since boot: that of leases and heartbeats.
pub(super) fn monotonic() -> Duration {
    Duration::from_nanos(SystemTimeSource.now().0)
}

/// Is it a connection of the machine itself, and nobody else's?
fn is_own(entry: &Entry, fib: &FibTable, shared: &ShardAddresses) -> bool {
    let ends = [entry.original.source, entry.reply.source];
    ends.into_iter().any(|end| fib.is_local(end) && shared.of_address(end).is_none())
}

/// The shard of a connection, of several.
fn shard_of(addresses: &ShardAddresses, entry: &Entry) -> Option<usize> {
    match addresses.of_connection(&entry.original, &entry.reply) {
        ConnectionShard::Of(shard) => Some(shard),
        ConnectionShard::Local | ConnectionShard::Unassigned => None,
    }
}

impl SharedParts<'_> {
    /// Tells source NAT which ports it may take, and of several shards which addresses.
    fn apply_sources(&self, router: &mut Router) {
        let part = |shard: usize| self.decided.get(shard).copied().flatten();
        let engine = router.engine_mut();
        match &self.addresses {
            None => {
                if let Some((epoch, port_use)) = part(0) {
                    engine.set_port_part(port_part(epoch, self.config.epoch_share, port_use));
                }
            }
            Some(addresses) => {
                let own = addresses.iter().filter_map(|(range, shard)| {
                    part(shard).map(|(epoch, port_use)| (range, port_part(epoch, self.config.epoch_share, port_use)))
                });
                engine.set_own_sources(Some(own.collect::<OwnSources>()));
            }
        }
    }
}

impl RunningShard {
    pub(super) fn new(at: usize, shard: Shard, is_divided: bool) -> RunningShard {
        let now = monotonic();
        RunningShard {
            at,
            shard,
            receiver: if is_divided { TableReceiver::holding() } else { TableReceiver::default() },
            own: OwnConnections::new(now),
            duty: ClusterDuty::Standby,
            flow_generation: 0,
            activated: None,
            // A data path may have kept connections over a restart.
            walk: Some(0).filter(|_| is_divided),
            safe_at: now,
            heard_at: now,
            promoting: Vec::new(),
            demoting: Vec::new(),
            promote_deadline: now,
            disk_error: None,
            released: false,
        }
    }

    /// What has happened at the transport, of this shard or of all.
    pub(super) fn handle_event(&mut self, event: TransportEvent, parts: &mut SharedParts<'_>) {
        match &event {
            TransportEvent::Received(frame) if frame.node != parts.config.node => self.heard_at = monotonic(),
            TransportEvent::Lease { holder: None, answers: Some(_), .. } => self.released = true,
            _ => {}
        }
        self.shard.handle_event(event, monotonic());
        self.take_actions(parts);
    }

    /// An epoch of it was written, or not.
    pub(super) fn epoch_written(&mut self, written: Result<Epoch, String>) {
        match written {
            Ok(epoch) => {
                self.disk_error = None;
                self.shard.epoch_stored(epoch, monotonic());
            }
            Err(error) => {
                tracing::error!("shard {}: the epoch cannot be written: {error}", self.shard.name());
                self.disk_error = Some(error);
            }
        }
    }

    /// What is due by the clock, beside so many other shards that this gateway decides.
    pub(super) fn handle_time(&mut self, load: u32, parts: &mut SharedParts<'_>) {
        self.shard.set_load(load);
        self.shard.handle_time(monotonic());
        self.take_actions(parts);
    }

    /// After its changes were sent: everything else of a turn. True if there is more to do.
    pub(super) fn finish_turn(&mut self, parts: &mut SharedParts<'_>) -> bool {
        self.take_actions(parts);
        self.keep_duty(parts);
        self.age_own(parts);
        let walks = self.poll_walk(parts);
        self.answer(parts);
        self.report(parts);
        walks
    }

    /// Makes it active; the answer comes when it is.
    pub(super) fn promote(&mut self, reply: ClusterReply, parts: &mut SharedParts<'_>) {
        let now = monotonic();
        match self.shard.promote(now) {
            Ok(()) => {
                self.promote_deadline = now.saturating_add(PROMOTE_TIMEOUT);
                self.promoting.push(reply);
            }
            Err(error) => drop(reply.send(Err(format!("shard {}: {error}", self.shard.name())))),
        }
        self.take_actions(parts);
    }

    /// Hands it over; the answer comes when that is done.
    pub(super) fn demote(&mut self, reply: ClusterReply, parts: &mut SharedParts<'_>) {
        match self.shard.demote(monotonic()) {
            Ok(()) => self.demoting.push(reply),
            Err(error) => drop(reply.send(Err(format!("shard {}: {error}", self.shard.name())))),
        }
        self.take_actions(parts);
    }

    /// Hands it over to a gateway with fewer shards.
    pub(super) fn give_away(&mut self, parts: &mut SharedParts<'_>) {
        match self.shard.demote(monotonic()) {
            Ok(()) => tracing::info!("shard {}: handed over to a gateway that decides fewer", self.shard.name()),
            Err(error) => tracing::warn!("shard {}: not handed over: {error}", self.shard.name()),
        }
        self.take_actions(parts);
    }

    /// The gateway ends: begins to hand it over; false if there is nothing to hand over.
    pub(super) fn begin_handover(&mut self) -> bool {
        self.released = false;
        self.shard.demote(monotonic()).is_ok() && self.shard.role() == ShardRole::Demoting
    }

    /// Is it handed over?
    pub(super) fn is_handed_over(&self, parts: &SharedParts<'_>) -> bool {
        let has_lease = parts.config.decider != Decider::Hand;
        self.shard.role() != ShardRole::Demoting && (!has_lease || self.released)
    }

    /// Gives the transport its frames. `is_flushed`: its table has no change left that was not pushed.
    pub(super) fn publish(&mut self, is_flushed: bool, parts: &mut SharedParts<'_>) {
        while let Some(frame) = self.shard.poll_frame() {
            if parts.transport.publish(frame.clone()).is_err() {
                self.shard.frame_refused(frame);
                break;
            }
        }
        if is_flushed && self.shard.status().unacknowledged == 0 {
            self.safe_at = monotonic();
        }
    }

    fn take_actions(&mut self, parts: &mut SharedParts<'_>) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                ShardAction::StoreEpoch(epoch) => parts.epochs.store(self.at, epoch),
                ShardAction::RequestLease(request) => parts.transport.request_lease(request),
                ShardAction::Table(change) => self.change_table(&change, parts),
                ShardAction::Role(role, epoch) => self.set_role(role, epoch, parts),
                ShardAction::Note(text) => tracing::warn!("{text}"),
            }
        }
    }

    /// A change in one bounded turn, or in several.
    fn change_table(&mut self, change: &TableChange, parts: &SharedParts<'_>) {
        let now = parts.gateway.now();
        // What another shard that is decided here has, or this machine alone, is not given up for what is told.
        let may_replace = |entry: &Entry| {
            let Some(addresses) = &parts.addresses else { return true };
            let decided = |shard: usize| parts.decided.get(shard).is_some_and(Option::is_some);
            shard_of(addresses, entry).is_some_and(|shard| shard == self.at || !decided(shard))
        };
        let mut turn = parts.gateway.lock(TurnKind::Cluster);
        self.receiver.apply(change, turn.router.engine_mut(), may_replace, now);
        drop(turn);
        if *change != TableChange::Sweep {
            return;
        }
        let stays = |entry: &Entry, fib: &FibTable| {
            let is_others = parts.addresses.as_ref().is_some_and(|all| shard_of(all, entry) != Some(self.at));
            is_others || is_own(entry, fib, &parts.shared_addresses)
        };
        loop {
            let mut turn = parts.gateway.lock(TurnKind::Cluster);
            let (engine, fib) = turn.router.engine_and_fib();
            if !self.receiver.poll_sweep(engine, |entry| stays(entry, fib), now) {
                return;
            }
        }
    }

    /// The machine's own connections on a standby of the only shard, whose time stands still.
    fn age_own(&mut self, parts: &SharedParts<'_>) {
        let monotonic = monotonic();
        let stands = parts.addresses.is_none() && self.shard.role() == ShardRole::Standby;
        if stands && self.own.is_due(monotonic) {
            let now = parts.gateway.now();
            let mut turn = parts.gateway.lock(TurnKind::Cluster);
            let (engine, fib) = turn.router.engine_and_fib();
            let shared = &parts.shared_addresses;
            self.own.poll(engine, |entry| is_own(entry, fib, shared), monotonic, now);
        }
    }

    fn set_role(&mut self, role: ShardRole, epoch: Epoch, parts: &mut SharedParts<'_>) {
        tracing::info!("shard {}: {} in epoch {epoch}", self.shard.name(), role.name());
        let is_divided = parts.addresses.is_some();
        let gateway = parts.gateway;
        let mut turn = gateway.lock(TurnKind::Cluster);
        let router = &mut turn.router;
        if let Some(decided) = parts.decided.get_mut(self.at) {
            *decided = (role == ShardRole::Active).then_some((epoch, PartUse::Only));
        }
        match role {
            ShardRole::Active => {
                if !is_divided {
                    parts.time.release();
                }
                self.walk = Some(0).filter(|_| is_divided);
                self.activated = Some((monotonic(), epoch));
                self.safe_at = monotonic();
                if !router.services().is_empty() {
                    // What was taken over counts for its backends.
                    router.begin_adoption();
                }
                self.receiver.forget();
            }
            ShardRole::Demoting | ShardRole::Fenced => {}
            ShardRole::Standby => {
                if !is_divided {
                    parts.time.hold();
                }
                self.walk = Some(0).filter(|_| is_divided);
                self.activated = None;
                self.own = OwnConnections::new(monotonic());
            }
        }
        parts.apply_sources(router);
        self.duty = self.duty_of(role, parts);
        self.tell_duty(router, is_divided);
        router.set_shard_settling(self.at, self.walk.is_some());
        self.flow_generation = router.flow_generation();
        drop(turn);
        // After the router: what comes to the address then is answered.
        parts.takeover.iter().for_each(|takeover| takeover.set_role(self.at, role));
    }

    fn tell_duty(&self, router: &mut Router, is_divided: bool) {
        if is_divided {
            router.set_shard_duty(self.at, self.duty);
        } else {
            router.set_duty(self.duty);
        }
    }

    fn duty_of(&self, role: ShardRole, parts: &SharedParts<'_>) -> ClusterDuty {
        match role {
            ShardRole::Active => {
                let engine_time =
                    |machine: Duration| parts.time.at(Instant(u64::try_from(machine.as_nanos()).unwrap_or(u64::MAX)));
                let is_by_hand = parts.config.decider == Decider::Hand;
                // A lease that has no end is none.
                let until = self.shard.may_create_until().unwrap_or_default();
                ClusterDuty::Active { until: (!is_by_hand).then(|| engine_time(until)) }
            }
            ShardRole::Demoting | ShardRole::Fenced => ClusterDuty::Fenced,
            ShardRole::Standby => ClusterDuty::Standby,
        }
    }

    /// A renewed lease, and ports that are no longer avoided.
    fn keep_duty(&mut self, parts: &mut SharedParts<'_>) {
        let duty = self.duty_of(self.shard.role(), parts);
        if duty != self.duty {
            self.duty = duty;
            self.tell_duty(&mut parts.gateway.lock(TurnKind::Cluster).router, parts.addresses.is_some());
        }
        if let Some((at, epoch)) = self.activated
            && monotonic().saturating_sub(at) >= OTHER_PORTS_FOR
        {
            self.activated = None;
            if let Some(decided) = parts.decided.get_mut(self.at) {
                *decided = decided.map(|_| (epoch, PartUse::First));
            }
            parts.apply_sources(&mut parts.gateway.lock(TurnKind::Cluster).router);
        }
    }

    /// Of several shards: holds the connections of one that another gateway decides now, or lets them go on; a bounded number a turn. True if there is more.
    fn poll_walk(&mut self, parts: &SharedParts<'_>) -> bool {
        let Some(addresses) = &parts.addresses else { return false };
        let holds = self.shard.role() == ShardRole::Standby;
        for _ in 0..WALK_TURNS {
            let Some(from) = self.walk else { return false };
            let now = parts.gateway.now();
            let mut turn = parts.gateway.lock(TurnKind::Cluster);
            let (engine, fib) = turn.router.engine_and_fib();
            let mut found: Vec<ConnId> = Vec::new();
            self.walk = engine.dump_range(from, WALK_SLOTS_PER_TURN, now, |entry| {
                if shard_of(addresses, &entry) == Some(self.at) && !is_own(&entry, fib, &parts.shared_addresses) {
                    found.push(entry.conn_id);
                }
            });
            for conn_id in found {
                if holds {
                    engine.hold(conn_id, now);
                } else {
                    engine.release(conn_id, now);
                }
            }
            if self.walk.is_none() {
                turn.router.set_shard_settling(self.at, false);
            }
        }
        self.walk.is_some()
    }

    /// Tells those who wait for a change of the role.
    fn answer(&mut self, parts: &SharedParts<'_>) {
        let shard = self.shard.name().clone();
        let role = self.shard.role();
        let status = self.shard.status();
        let tell = |waiting: &mut Vec<ClusterReply>, answer: Result<String, String>| {
            // A client may have hung up.
            waiting.drain(..).for_each(|reply| drop(reply.send(answer.clone())));
        };
        if role == ShardRole::Active {
            tell(&mut self.promoting, Ok(format!("shard {shard}: active in epoch {}\n", status.epoch)));
        } else if monotonic() >= self.promote_deadline {
            let why = match (&self.disk_error, &parts.unreachable, &status.sender) {
                (Some(error), ..) => format!("its epoch cannot be written: {error}"),
                (_, Some(reason), _) => format!("the cluster cannot be reached: {reason}"),
                (.., Some(sender)) => {
                    format!("{sender} holds the lease: on that gateway, keepstate control demote {shard}")
                }
                _ => status.lease_error.clone().unwrap_or_else(|| "nobody has granted the lease".into()),
            };
            tell(&mut self.promoting, Err(format!("shard {shard}: it is still {}: {why}", role.name())));
        }
        match role {
            // The data path still forwards what it knew.
            ShardRole::Standby if parts.gateway.flows_synced() < self.flow_generation => {}
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

    fn report(&self, parts: &SharedParts<'_>) {
        let now = monotonic();
        let status = self.shard.status();
        let since =
            if matches!(status.role, ShardRole::Active | ShardRole::Demoting) { self.safe_at } else { self.heard_at };
        parts.handle.update_report(self.at, |report| {
            report.status = status;
            report.received = self.receiver.counters;
            report.age = now.saturating_sub(since);
            report.unreachable = parts.unreachable.clone();
            report.disk_error = self.disk_error.clone();
        });
    }
}
