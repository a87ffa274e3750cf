//! One gateway of the simulation: shards, an engine, a disk; no thread, no clock of its own.
use keepstate_cluster::{
    Decider, Epoch, EpochShare, Greeting, LeaseRequest, Shard, ShardAction, ShardBalance, ShardHolding, ShardRole,
    StateFrame, TransportEvent,
};
use keepstate_engine::{
    Direction, Engine, Entry, Instant, Manip, NatRange, NatResult, OwnSources, PartUse, PortSelection, Secret, Sysctl,
    Sysctls, Tuple, Zone,
};
use keepstate_gateway::cluster::{StandingClock, TableReceiver, TableSender, port_part};
use keepstate_router::{ConnectionShard, ShardAddresses};
use keepstate_wire::Packet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The outside ports of a part of them, of each shard: few, so that a port given twice is found.
const PORTS_OF_PART: u16 = 64;
const FIRST_PORT: u16 = 40_000;
/// Shards, at most.
pub const MAX_SHARDS: usize = 4;

/// Seconds.
const UDP_TIMEOUT: u64 = 12;

/// What survives a crash.
#[derive(Clone, Copy, Default)]
pub struct Disk {
    epochs: [Epoch; MAX_SHARDS],
}

/// A node's name, its number of shards, who decides, how they are shared out.
#[derive(Clone, Copy)]
pub struct NodeOptions<'a> {
    pub name: &'a str,
    pub shards: usize,
    pub decider: Decider,
    /// Promoted by hand: its epochs.
    pub share: EpochShare,
    /// Between two moves of shards that are shared out.
    pub balance: Option<Duration>,
}

/// One shard of a node.
struct NodeShard {
    shard: Shard,
    receiver: TableReceiver,
    /// All changes were handed over in the last turn.
    is_flushed: bool,
    /// It has become active, and nobody has looked.
    is_new_active: bool,
}

pub struct Node {
    pub name: String,
    pub disk: Disk,
    pub engine: Engine,
    shards: Vec<NodeShard>,
    /// Of several shards.
    addresses: Option<ShardAddresses>,
    sender: TableSender,
    balance: ShardBalance,
    share: EpochShare,
    /// Shards that it has handed over to one with fewer: when, by its own clock.
    pub given: Vec<Duration>,
    clock: StandingClock,
    /// Its monotonic clock: where it began, and how fast it goes, in thousandths.
    base: Duration,
    speed: u32,
}

/// The outside address of a shard.
fn outside(shard: usize) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 1 + u8::try_from(shard).unwrap()).into()
}

/// The name of a shard.
pub fn shard_name(shard: usize) -> keepstate_cluster::ShardName {
    format!("shard{shard}").parse().unwrap()
}

fn shard_of(addresses: Option<&ShardAddresses>, original: &Tuple, reply: &Tuple) -> usize {
    let Some(addresses) = addresses else { return 0 };
    match addresses.of_connection(original, reply) {
        ConnectionShard::Of(shard) => shard,
        other => panic!("{other:?}: {original:?} {reply:?}"),
    }
}

impl Node {
    pub fn start(
        NodeOptions { name, shards, decider, share, balance }: NodeOptions<'_>,
        disk: Disk,
        (base, speed): (Duration, u32),
        at: Duration,
    ) -> Node {
        let is_divided = shards > 1;
        let outsides: Vec<_> = (0..shards).map(|shard| vec![outside(shard)..=outside(shard)]).collect();
        let addresses = is_divided.then(|| ShardAddresses::new(&outsides));
        let mut sysctls = Sysctls::default();
        if is_divided {
            // Shorter than most connections live: what is held would be gone if its timer went on.
            sysctls.set(Sysctl::UdpTimeout, UDP_TIMEOUT).unwrap();
        }
        let mut node = Node {
            name: name.into(),
            disk,
            engine: Engine::new(sysctls, Secret([7; 16])),
            shards: Vec::new(),
            sender: addresses.clone().map_or_else(TableSender::default, TableSender::of_shards),
            addresses,
            balance: ShardBalance::new(balance, base + at * speed / 1000),
            share,
            given: Vec::new(),
            clock: StandingClock::default(),
            base,
            speed,
        };
        let monotonic = node.monotonic(at);
        node.shards = (0..shards)
            .map(|shard| {
                let names = (shard_name(shard), name.parse().unwrap());
                NodeShard {
                    shard: Shard::new(names, decider, Greeting::default(), disk.epochs[shard], monotonic)
                        .with_epoch_share(share),
                    receiver: if is_divided { TableReceiver::holding() } else { TableReceiver::default() },
                    is_flushed: false,
                    is_new_active: false,
                }
            })
            .collect();
        if is_divided {
            node.apply_sources();
        } else {
            node.clock.hold(node.machine(at));
        }
        node
    }

    pub fn shard(&self, shard: usize) -> &Shard {
        &self.shards[shard].shard
    }

    pub fn shard_mut(&mut self, shard: usize) -> &mut Shard {
        &mut self.shards[shard].shard
    }

    pub fn is_flushed(&self, shard: usize) -> bool {
        self.shards[shard].is_flushed
    }

    /// A shard that has become active since it was last asked.
    pub fn take_new_active(&mut self) -> Option<usize> {
        self.shards.iter_mut().position(|shard| std::mem::take(&mut shard.is_new_active))
    }

    pub fn may_create(&self, shard: usize, at: Duration) -> bool {
        self.shard(shard).may_create(self.monotonic(at))
    }

    pub fn monotonic(&self, at: Duration) -> Duration {
        self.base + at * self.speed / 1000
    }

    fn machine(&self, at: Duration) -> Instant {
        Instant(u64::try_from(self.monotonic(at).as_nanos()).unwrap())
    }

    pub fn now(&self, at: Duration) -> Instant {
        self.clock.now(self.machine(at))
    }

    pub fn event(&mut self, event: &TransportEvent, at: Duration) {
        let monotonic = self.monotonic(at);
        self.shards.iter_mut().for_each(|shard| shard.shard.handle_event(event.clone(), monotonic));
        self.actions(at);
    }

    /// What a gateway's main loop does in a turn: the frames and lease requests that it has for others.
    pub fn turn(&mut self, at: Duration) -> (Vec<StateFrame>, Vec<LeaseRequest>) {
        let monotonic = self.monotonic(at);
        let mut all = Vec::new();
        for shard in 0..self.shards.len() {
            let others = self.shards.iter().enumerate().filter(|(other, _)| *other != shard);
            let load = others.filter(|(_, other)| other.shard.is_load(monotonic)).count();
            self.shard_mut(shard).set_load(u32::try_from(load).unwrap());
            self.shard_mut(shard).handle_time(monotonic);
            all.extend(self.actions(at));
        }
        self.share_out(monotonic);
        all.extend(self.actions(at));
        let now = self.now(at);
        if self.addresses.is_some() && at.as_millis().is_multiple_of(1000) {
            self.keep_alive(now);
        }
        // Of several shards the clock goes on, whoever decides them.
        if self.addresses.is_some() || self.shard(0).role() == ShardRole::Active {
            self.engine.poll(now);
        }
        let mut shards: Vec<&mut Shard> = self.shards.iter_mut().map(|shard| &mut shard.shard).collect();
        self.sender.poll(&mut shards, &mut self.engine, monotonic, now);
        for (at, shard) in self.shards.iter_mut().enumerate() {
            shard.is_flushed = !self.sender.has_more(at);
        }
        all.extend(self.actions(at));
        let frames = self.shards.iter_mut().flat_map(|shard| std::iter::from_fn(|| shard.shard.poll_frame()));
        (frames.collect(), all)
    }

    /// What a gateway does with its balance.
    fn share_out(&mut self, monotonic: Duration) {
        let me = self.name.parse().unwrap();
        let holdings = |shards: &[NodeShard]| -> Vec<ShardHolding> {
            shards.iter().map(|shard| shard.shard.holding(monotonic)).collect()
        };
        for shard in 0..self.shards.len() {
            let request = self.shards[shard].shard.take_handover_request();
            let known = holdings(&self.shards);
            if request.is_some_and(|request| self.balance.grants(request, &me, &known, monotonic)) {
                self.shards[shard].shard.demote(monotonic).unwrap();
                self.given.push(monotonic);
            }
        }
        let known = holdings(&self.shards);
        if let Some((shard, request)) = self.balance.poll(&me, &known, monotonic) {
            self.shards[shard].shard.ask_for_handover(request);
        }
    }

    /// Packets of all connections of shards that it decides or has decided last: nobody else is told of what they refresh.
    fn keep_alive(&mut self, now: Instant) {
        let alive: Vec<u16> = self
            .engine
            .entries(now)
            .filter(|entry| {
                let shard = shard_of(self.addresses.as_ref(), &entry.original, &entry.reply);
                self.shard(shard).role() != ShardRole::Standby
            })
            .map(|entry| entry.original.source_key)
            .collect();
        for client in alive {
            self.engine.handle(&Packet::parse(&packet(client)).unwrap(), Zone::default(), now);
        }
    }

    fn actions(&mut self, at: Duration) -> Vec<LeaseRequest> {
        let mut requests = Vec::new();
        for shard in 0..self.shards.len() {
            while let Some(action) = self.shard_mut(shard).poll_action() {
                requests.extend(self.action(shard, action, at));
            }
        }
        requests
    }

    fn action(&mut self, shard: usize, action: ShardAction, at: Duration) -> Option<LeaseRequest> {
        match action {
            ShardAction::StoreEpoch(epoch) => {
                self.disk.epochs[shard] = self.disk.epochs[shard].max(epoch);
                let monotonic = self.monotonic(at);
                self.shard_mut(shard).epoch_stored(epoch, monotonic);
            }
            ShardAction::RequestLease(request) => return Some(request),
            ShardAction::Table(change) => {
                let now = self.now(at);
                let addresses = self.addresses.as_ref();
                let shard_of = |entry: &Entry| shard_of(addresses, &entry.original, &entry.reply);
                let decided: Vec<bool> =
                    self.shards.iter().map(|shard| shard.shard.role() == ShardRole::Active).collect();
                let may_replace = |entry: &Entry| addresses.is_none() || !decided[shard_of(entry)];
                let receiver = &mut self.shards[shard].receiver;
                receiver.apply(&change, &mut self.engine, may_replace, now);
                let stays = |entry: &Entry| shard_of(entry) != shard;
                while receiver.poll_sweep(&mut self.engine, stays, now) {}
            }
            ShardAction::Role(role, epoch) => self.set_role(shard, (role, epoch), at),
            ShardAction::Note(_) => (),
        }
        None
    }

    fn set_role(&mut self, shard: usize, (role, epoch): (ShardRole, Epoch), at: Duration) {
        self.shards[shard].is_new_active |= role == ShardRole::Active;
        if self.addresses.is_none() {
            match role {
                ShardRole::Active => {
                    self.clock.release(self.machine(at));
                    self.engine.set_port_part(port_part(epoch, self.share, PartUse::Only));
                }
                ShardRole::Standby => self.clock.hold(self.machine(at)),
                ShardRole::Demoting | ShardRole::Fenced => (),
            }
            return;
        }
        self.apply_sources();
        let now = self.now(at);
        let addresses = self.addresses.clone();
        let its: Vec<_> = self
            .engine
            .entries(now)
            .filter(|entry| shard_of(addresses.as_ref(), &entry.original, &entry.reply) == shard)
            .map(|entry| entry.conn_id)
            .collect();
        for conn_id in its {
            match role {
                ShardRole::Active => self.engine.release(conn_id, now),
                ShardRole::Standby => assert!(self.engine.hold(conn_id, now)),
                ShardRole::Demoting | ShardRole::Fenced => (),
            }
        }
    }

    /// Of several shards: new connections get addresses of those that are decided here.
    fn apply_sources(&mut self) {
        let active = self.shards.iter().enumerate().filter(|(_, shard)| shard.shard.role() == ShardRole::Active);
        let own = active.map(|(at, shard)| {
            (outside(at)..=outside(at), port_part(shard.shard.status().epoch, self.share, PartUse::Only))
        });
        self.engine.set_own_sources(Some(own.collect::<OwnSources>()));
    }

    /// A client's first packet: its shard and outside port, if the node may and can give one.
    pub fn open(&mut self, client: u16, at: Duration) -> Option<(usize, u16)> {
        let count = self.shards.len();
        if !(0..count).any(|shard| self.may_create(shard, at)) {
            return None;
        }
        let now = self.now(at);
        let bytes = packet(client);
        let packet = Packet::parse(&bytes).unwrap();
        let mut ctx = self.engine.track(&packet, Zone::default(), now);
        let range = NatRange {
            addresses: Some(outside(0)..=outside(count - 1)),
            ports: Some(FIRST_PORT..=FIRST_PORT + PORTS_OF_PART * self.share.parts() - 1),
            port_selection: PortSelection::Random,
            ..NatRange::to(outside(0))
        };
        if self.engine.translate(&mut ctx, Manip::Source, &range, now) != NatResult::Changed {
            return None;
        }
        // As the router asks before it confirms.
        let new = ctx.unconfirmed().unwrap();
        let shard = shard_of(self.addresses.as_ref(), &new.original(), &new.reply());
        if !self.may_create(shard, at) {
            return None;
        }
        self.engine.confirm(ctx, now);
        self.port_of(client, at).map(|port| (shard, port))
    }

    /// A later packet: the outside port it leaves with, if the connection is known here.
    pub fn send(&mut self, client: u16, at: Duration) -> Option<u16> {
        let port = self.port_of(client, at)?;
        let bytes = packet(client);
        self.engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), self.now(at));
        Some(port)
    }

    pub fn close(&mut self, client: u16, at: Duration) {
        let now = self.now(at);
        if let Some((conn_id, _)) = self.engine.find(&tuple(client), Zone::default(), now) {
            self.engine.remove(conn_id, now);
        }
    }

    pub fn port_of(&self, client: u16, at: Duration) -> Option<u16> {
        let now = self.now(at);
        let (conn_id, direction) = self.engine.find(&tuple(client), Zone::default(), now)?;
        assert_eq!(direction, Direction::Original);
        self.engine.entry(conn_id, now).map(|entry| entry.reply.destination_key)
    }

    /// A shard's table, to be compared.
    pub fn table(&self, shard: usize, at: Duration) -> Vec<(u16, u16)> {
        let addresses = self.addresses.as_ref();
        let entries = self.engine.entries(self.now(at));
        let its = entries.filter(|entry| shard_of(addresses, &entry.original, &entry.reply) == shard);
        let mut all: Vec<_> = its.map(|entry| (entry.original.source_key, entry.reply.destination_key)).collect();
        all.sort_unstable();
        all
    }
}

fn tuple(client: u16) -> Tuple {
    let (source, destination) = ([10, 1, 0, 2].into(), [10, 2, 0, 9].into());
    Tuple { source, destination, protocol: 17, source_key: client, destination_key: 53 }
}

fn packet(client: u16) -> Vec<u8> {
    let [high, low] = client.to_be_bytes();
    let mut bytes =
        vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9, high, low, 0, 53, 0, 8, 0, 0];
    let sum: u32 = bytes.chunks(2).take(10).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}
