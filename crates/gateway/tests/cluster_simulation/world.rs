//! What is around the gateways: the stream, the lease's store, the network and its faults, clients, and what must hold at any time. All of it follows from a seed.
mod clients;

use crate::lease_store::LeaseStore;
use crate::node::{Disk, MAX_SHARDS, Node, NodeOptions, shard_name};
use crate::rng::Rng;
use clients::Flow;
use keepstate_cluster::{
    Decider, EpochShare, FrameKind, LeaseRequest, ShardName, ShardRole, StateFrame, TransportEvent,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

pub const STEP: Duration = Duration::from_millis(10);
pub const TTL: Duration = Duration::from_secs(1);
/// A machine, with or without a running gateway.
struct Machine {
    node: Option<Node>,
    disk: Disk,
    clock: (Duration, u32),
    restarts_at: Duration,
    /// When it was last started, or had its network back.
    started: Duration,
    /// Counts its processes: what was sent to one that is dead is gone.
    life: u64,
    /// What came while it was stopped.
    backlog: VecDeque<TransportEvent>,
    stopped_until: Duration,
    cut_off_until: Duration,
    connected: bool,
    /// By shard, when it was last seen to have all that the active one has.
    followed: [Duration; MAX_SHARDS],
}

pub struct World {
    pub rng: Rng,
    pub at: Duration,
    decider: Decider,
    shards: usize,
    balance: Option<Duration>,
    machines: Vec<Machine>,
    /// What arrives when, where.
    mail: BTreeMap<(Duration, u64), ((usize, u64), TransportEvent)>,
    mail_count: u64,
    /// When the last frame arrives on a link.
    links: [[Duration; 3]; 3],
    /// By shard.
    streams: Vec<Vec<StateFrame>>,
    leases: Vec<LeaseStore>,
    flows: BTreeMap<u16, Flow>,
    next_client: u16,
    pub faults: bool,
    pub takeovers: u64,
    pub survived: u64,
    pub lost: u64,
    pub opened: u64,
    /// Steps at whose end the shards were decided by different machines.
    pub divided: u64,
    /// Takeovers of a shard by a machine that decided another one already.
    pub joined: u64,
}

impl World {
    /// Two or three machines with one shard, or three with several, which are shared out if there is a `balance`.
    pub fn new(seed: u64, decider: Decider, shards: usize, balance: Option<Duration>) -> World {
        let mut rng = Rng(seed);
        let count = if shards == 1 { 2 + rng.below(2) } else { 3 };
        let machines = (0..count).map(|_| Machine {
            node: None,
            disk: Disk::default(),
            clock: (rng.millis(0, 1_000_000), 980 + u32::try_from(rng.below(41)).unwrap()),
            restarts_at: Duration::ZERO,
            started: Duration::ZERO,
            life: 0,
            backlog: VecDeque::new(),
            stopped_until: Duration::ZERO,
            cut_off_until: Duration::ZERO,
            connected: false,
            followed: [Duration::ZERO; MAX_SHARDS],
        });
        let machines = machines.collect();
        World {
            rng,
            at: Duration::ZERO,
            decider,
            shards,
            balance,
            machines,
            mail: BTreeMap::new(),
            mail_count: 0,
            links: [[Duration::ZERO; 3]; 3],
            streams: vec![Vec::new(); shards],
            leases: (0..shards).map(|_| LeaseStore::default()).collect(),
            flows: BTreeMap::new(),
            next_client: 1024,
            faults: true,
            takeovers: 0,
            survived: 0,
            lost: 0,
            opened: 0,
            divided: 0,
            joined: 0,
        }
    }

    fn post(&mut self, to: usize, delay: Duration, event: TransportEvent) {
        self.mail_count += 1;
        self.mail.insert((self.at + delay, self.mail_count), ((to, self.machines[to].life), event));
    }

    pub fn step(&mut self) {
        self.at += STEP;
        if self.faults {
            self.make_faults();
        }
        for index in 0..self.machines.len() {
            self.keep_machine(index);
        }
        self.deliver();
        for index in 0..self.machines.len() {
            self.turn(index);
        }
        (0..self.shards).for_each(|shard| self.note_safe(shard));
        self.note_divided();
        self.clients();
    }

    fn make_faults(&mut self) {
        if !self.rng.one_in(250) {
            return;
        }
        let index = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap();
        let shard = self.some_shard();
        let active = self.machines.iter().position(|machine| is_active(machine, shard));
        // Mostly the active one.
        let index = active.filter(|_| !self.rng.one_in(3)).unwrap_or(index);
        let (at, length) = (self.at, self.rng.millis(100, 4000));
        match self.rng.below(5) {
            0 | 1 => {
                self.machines[index].node = None;
                self.machines[index].restarts_at = at + length;
            }
            2 => {
                let machine = &mut self.machines[index];
                machine.stopped_until = machine.stopped_until.max(at + length);
            }
            3 => self.machines[index].cut_off_until = at + length,
            _ => {
                let machine = &mut self.machines[index];
                if let Some(node) = &mut machine.node {
                    let monotonic = node.monotonic(at);
                    let _ = node.shard_mut(shard).demote(monotonic);
                }
            }
        }
        if self.decider == Decider::Hand {
            self.promote_somebody(shard);
        }
    }

    /// One of the shards by chance, which is not asked where there is one alone.
    fn some_shard(&mut self) -> usize {
        if self.shards == 1 { 0 } else { usize::try_from(self.rng.below(self.shards as u64)).unwrap() }
    }

    /// What keepalived or a person does: somebody who runs, and has had the time to read the stream, is made active, whether the one before has stopped or not.
    fn promote_somebody(&mut self, shard: usize) {
        let at = self.at;
        let has_read = |machine: &Machine| at.saturating_sub(machine.started) >= STEP * 3;
        let runs = |machine: &Machine| machine.node.is_some() && machine.stopped_until <= at && has_read(machine);
        let begin = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap();
        let count = self.machines.len();
        let chosen = (begin..begin + count).map(|index| index % count).find(|index| {
            let machine = &self.machines[*index];
            runs(machine) && machine.cut_off_until <= at && !is_active(machine, shard)
        });
        if let Some(machine) = chosen.and_then(|index| self.machines.get_mut(index))
            && let Some(node) = &mut machine.node
        {
            let monotonic = node.monotonic(at);
            let _ = node.shard_mut(shard).promote(monotonic);
        }
    }

    fn keep_machine(&mut self, index: usize) {
        let (at, decider, count) = (self.at, self.decider, self.machines.len());
        let machine = &mut self.machines[index];
        if machine.node.is_none() && machine.restarts_at <= at {
            let (shards, balance) = (self.shards, self.balance);
            let (share, name) = (share_of(decider, index, count), format!("n{index}"));
            let options = NodeOptions { name: &name, shards, decider, share, balance };
            machine.node = Some(Node::start(options, machine.disk, machine.clock, at));
            machine.connected = false;
            machine.life += 1;
            machine.backlog.clear();
            self.flows.values_mut().for_each(|flow| flow.known_to[index] = false);
        }
        let reachable = machine.node.is_some() && machine.cut_off_until <= at;
        if reachable == machine.connected {
            return;
        }
        machine.connected = reachable;
        machine.started = at;
        if !reachable {
            self.post(index, Duration::ZERO, TransportEvent::Disconnected { reason: "cut off".into() });
            return;
        }
        self.post(index, Duration::ZERO, TransportEvent::Connected);
        // Whoever joins gets the streams from the newest complete snapshot on.
        let newest = |stream: &Vec<StateFrame>| {
            let end = stream.iter().rposition(|frame| frame.kind == FrameKind::SnapshotEnd).unwrap_or(0);
            let begin = stream[..end].iter().rposition(|frame| frame.kind == FrameKind::Greeting).unwrap_or(0);
            stream[begin..].to_vec()
        };
        let backlog: Vec<StateFrame> = self.streams.iter().flat_map(newest).collect();
        for frame in backlog {
            let delay = self.rng.millis(1, 5);
            self.post(index, delay, TransportEvent::Received(frame));
        }
    }

    fn deliver(&mut self) {
        for index in 0..self.machines.len() {
            if self.machines[index].stopped_until <= self.at {
                let backlog = std::mem::take(&mut self.machines[index].backlog);
                backlog.into_iter().for_each(|event| self.receive(index, event));
            }
        }
        while let Some(entry) = self.mail.first_entry() {
            if entry.key().0 > self.at {
                break;
            }
            let ((to, life), event) = entry.remove();
            let machine = &mut self.machines[to];
            if machine.life != life {
                continue;
            }
            if machine.stopped_until > self.at {
                // A stopped process finds it in its socket later.
                machine.backlog.push_back(event);
                continue;
            }
            self.receive(to, event);
        }
    }

    fn receive(&mut self, index: usize, event: TransportEvent) {
        let machine = &mut self.machines[index];
        let told_locally = matches!(event, TransportEvent::Connected | TransportEvent::Disconnected { .. });
        if let Some(node) = &mut machine.node
            && (machine.connected || told_locally)
        {
            node.event(&event, self.at);
            machine.disk = node.disk;
            self.note_takeover(index);
        }
    }

    fn turn(&mut self, index: usize) {
        let at = self.at;
        let machine = &mut self.machines[index];
        let Some(node) = machine.node.as_mut().filter(|_| machine.stopped_until <= at) else { return };
        let (frames, requests) = node.turn(at);
        machine.disk = node.disk;
        let connected = machine.connected;
        self.note_takeover(index);
        for frame in frames {
            self.publish(index, frame, connected);
        }
        for request in requests.into_iter().filter(|_| connected) {
            self.lease_request(index, &request);
        }
    }

    /// What a new active node does not know is lost for all; what it was seen to have it must know.
    fn note_takeover(&mut self, index: usize) {
        let at = self.at;
        let Some(node) = &mut self.machines[index].node else { return };
        let Some(shard) = node.take_new_active() else { return };
        self.takeovers += 1;
        self.joined += u64::from((0..self.shards).any(|other| other != shard && node.may_create(other, at)));
        let lives = |flow: &Flow| flow.lost.is_none() && flow.shard == shard;
        for (client, flow) in self.flows.iter_mut().filter(|(_, flow)| lives(flow)) {
            let known = node.port_of(*client, at);
            let told = flow.known_to[index];
            assert!(
                known == Some(flow.port) || known.is_none() && !told,
                "client {client}, port {}, opened at {:?}, is {known:?} at {} at {at:?}; was it told: {told}",
                flow.port,
                flow.opened,
                node.name
            );
            if known.is_none() {
                flow.known_to = [false; 3];
            }
        }
        // More than one at a time.
        self.note_takeover(index);
    }

    fn publish(&mut self, from: usize, frame: StateFrame, connected: bool) {
        if !connected {
            if frame.kind.is_stored() {
                let lost = TransportEvent::Lost { shard: frame.shard, frames: 1 };
                self.post(from, Duration::ZERO, lost);
            }
            return;
        }
        let (shard, epoch, sequence) = (frame.shard.clone(), frame.epoch, frame.sequence);
        if frame.kind.is_stored() {
            self.streams[shard_index(&shard)].push(frame.clone());
            let delay = self.rng.millis(1, 20);
            self.post(from, delay, TransportEvent::Acknowledged { shard, epoch, sequence });
        }
        for to in (0..self.machines.len()).filter(|to| *to != from) {
            // In order, as a stream is delivered; but for some.
            let mut delay = self.rng.millis(1, 15).max(self.links[from][to].saturating_sub(self.at));
            self.links[from][to] = self.at + delay;
            if self.faults && self.rng.one_in(40) {
                continue;
            }
            if self.faults && self.rng.one_in(40) {
                delay += self.rng.millis(10, 3000);
            }
            self.post(to, delay, TransportEvent::Received(frame.clone()));
            if self.faults && self.rng.one_in(40) {
                let again = self.rng.millis(1, 3000);
                self.post(to, again, TransportEvent::Received(frame.clone()));
            }
        }
    }

    /// The store decides when the request arrives, a moment later than it was made; its answer comes later, or not at all.
    fn lease_request(&mut self, from: usize, request: &LeaseRequest) {
        let LeaseRequest { shard, action, number, .. } = request.clone();
        if self.faults && self.rng.one_in(30) {
            return;
        }
        let arrives = self.at + self.rng.millis(0, 10);
        let lease = &mut self.leases[shard_index(&shard)];
        let granted = lease.decide(from, request, arrives);
        let (epoch, holder) = (lease.epoch, lease.holder);
        let name = |index: usize| format!("n{index}").parse().unwrap();
        let delay = self.rng.millis(10, 60);
        let answer = match granted {
            true => TransportEvent::Lease { shard, holder: holder.map(name), epoch, answers: Some(number) },
            false => TransportEvent::LeaseRefused { shard, action, epoch, answers: number },
        };
        if !(self.faults && self.rng.one_in(30)) {
            self.post(from, delay, answer);
        }
    }

    /// When a standby has all that the one active node has, what was opened before is not lost any more by a takeover.
    fn note_safe(&mut self, shard: usize) {
        let believers: Vec<usize> =
            (0..self.machines.len()).filter(|index| is_active(&self.machines[*index], shard)).collect();
        let [active] = believers[..] else { return };
        // One that is stopped may have changed since its last turn.
        let runs = self.machines[active].stopped_until <= self.at;
        let Some(node) = self.machines[active].node.as_ref().filter(|_| runs) else { return };
        let status = node.shard(shard).status();
        if !node.is_flushed(shard) || status.unacknowledged > 0 {
            return;
        }
        let (epoch, sequence, at) = (status.epoch, status.sequence, self.at);
        // A connection lost before is not known to the active one either.
        let its = self.flows.iter().filter(|(_, flow)| flow.shard == shard).map(|(client, _)| *client);
        let known: Vec<u16> = its.filter(|client| node.port_of(*client, at).is_some()).collect();
        // The whole table takes a while.
        let whole = (at.as_millis() % 2000 == 0).then(|| node.table(shard, at));
        for (index, machine) in self.machines.iter_mut().enumerate() {
            let Some(node) = &machine.node else { continue };
            let status = node.shard(shard).status();
            let follows = status.in_step && (status.epoch, status.sequence) == (epoch, sequence);
            if index == active || follows {
                if let Some(whole) = whole.as_ref().filter(|_| index != active) {
                    assert_eq!(node.table(shard, at), *whole, "{} says that it has all, at {at:?}", node.name);
                }
                machine.followed[shard] = at;
                for (client, flow) in self.flows.iter_mut().filter(|(_, flow)| flow.shard == shard) {
                    flow.known_to[index] = known.binary_search(client).is_ok();
                }
            }
        }
    }

    fn note_divided(&mut self) {
        let deciders = (0..self.shards).map(|shard| self.machines.iter().position(|machine| is_active(machine, shard)));
        let deciders: Vec<usize> = deciders.flatten().collect();
        self.divided += u64::from(deciders.len() > 1 && deciders[0] != deciders[1]);
    }

    /// How many shards each machine decides.
    pub fn loads(&self) -> Vec<usize> {
        let load = |machine| (0..self.shards).filter(|shard| is_active(machine, *shard)).count();
        self.machines.iter().map(load).collect()
    }

    /// Shards handed over to share them out: by machine, when by its clock. What one did before it died is not known.
    pub fn moves(&self) -> Vec<&[Duration]> {
        self.machines.iter().map(|machine| machine.node.as_ref().map_or(&[][..], |node| &node.given)).collect()
    }

    /// After the faults: one decides each shard, all others have what it has.
    pub fn check_converged(&mut self) {
        for shard in 0..self.shards {
            if self.decider == Decider::Hand && !self.machines.iter().any(|machine| is_active(machine, shard)) {
                self.promote_somebody(shard);
                (0..500).for_each(|_| self.step());
            }
        }
        (0..self.shards).for_each(|shard| self.check_shard_converged(shard));
    }

    fn check_shard_converged(&self, shard: usize) {
        let active: Vec<&Machine> = self.machines.iter().filter(|machine| is_active(machine, shard)).collect();
        let nodes = || self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let all: Vec<_> = nodes().map(|node| node.shard(shard).status()).collect();
        assert_eq!(active.len(), 1, "active nodes: {all:#?}");
        for node in nodes() {
            let status = node.shard(shard).status();
            assert!(status.in_step || status.role == ShardRole::Active, "{}: {all:#?}", node.name);
        }
        // Traffic goes on: what is equal is equal once all is acknowledged, which `note_safe` has compared entry by entry.
        for machine in &self.machines {
            let followed = machine.followed[shard];
            let name = machine.node.as_ref().map(|node| &node.name);
            assert!(
                self.at - followed < Duration::from_secs(2),
                "{name:?} does not follow shard {shard} since {followed:?}: {all:#?}"
            );
        }
    }
}

/// Promoted by hand each machine has epochs of its own.
pub fn share_of(decider: Decider, index: usize, count: usize) -> EpochShare {
    let place = |at: usize| u16::try_from(at).unwrap();
    if decider == Decider::Hand { EpochShare::new(place(index), place(count)).unwrap() } else { EpochShare::default() }
}

fn is_active(machine: &Machine, shard: usize) -> bool {
    machine.node.as_ref().is_some_and(|node| node.shard(shard).role() == ShardRole::Active)
}

fn shard_index(name: &ShardName) -> usize {
    (0..MAX_SHARDS).find(|shard| shard_name(*shard) == *name).unwrap()
}
