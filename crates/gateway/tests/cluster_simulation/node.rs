//! One gateway of the simulation: a shard, an engine, a disk; no thread, no clock of its own.
use keepstate_cluster::{
    Decider, Epoch, Greeting, LeaseRequest, Shard, ShardAction, ShardRole, StateFrame, TransportEvent,
};
use keepstate_engine::{
    Direction, Engine, Instant, Manip, NatRange, NatResult, PartUse, PortSelection, Secret, Sysctls, Tuple, Zone,
};
use keepstate_gateway::cluster::{StandingClock, TableReceiver, TableSender, port_part};
use keepstate_wire::Packet;
use std::time::Duration;

/// The outside ports of the shard: few, so that a port given twice is found.
pub const PORTS: std::ops::RangeInclusive<u16> = 40_000..=40_255;

/// What survives a crash.
#[derive(Clone, Copy, Default)]
pub struct Disk {
    pub epoch: Epoch,
}

pub struct Node {
    pub name: String,
    pub disk: Disk,
    pub shard: Shard,
    pub engine: Engine,
    sender: TableSender,
    receiver: TableReceiver,
    clock: StandingClock,
    /// Its monotonic clock: where it began, and how fast it goes, in thousandths.
    base: Duration,
    speed: u32,
    /// All changes were handed over in the last turn.
    pub is_flushed: bool,
    /// It has become active, and nobody has looked.
    pub is_new_active: bool,
}

impl Node {
    pub fn start(name: &str, disk: Disk, decider: Decider, (base, speed): (Duration, u32), at: Duration) -> Node {
        let names = ("shard".parse().unwrap(), name.parse().unwrap());
        let mut node = Node {
            name: name.into(),
            disk,
            shard: Shard::new(names, decider, Greeting::default(), disk.epoch, Duration::ZERO),
            engine: Engine::new(Sysctls::default(), Secret([7; 16])),
            sender: TableSender::default(),
            receiver: TableReceiver::default(),
            clock: StandingClock::default(),
            base,
            speed,
            is_flushed: false,
            is_new_active: false,
        };
        let names = ("shard".parse().unwrap(), name.parse().unwrap());
        node.shard = Shard::new(names, decider, Greeting::default(), disk.epoch, node.monotonic(at));
        node.clock.hold(node.machine(at));
        node
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

    pub fn event(&mut self, event: TransportEvent, at: Duration) {
        self.shard.handle_event(event, self.monotonic(at));
        self.actions(at);
    }

    /// What a gateway's main loop does in a turn: the frames and lease requests that it has for others.
    pub fn turn(&mut self, at: Duration) -> (Vec<StateFrame>, Vec<LeaseRequest>) {
        let monotonic = self.monotonic(at);
        self.shard.handle_time(monotonic);
        let requests = self.actions(at);
        let now = self.now(at);
        if self.shard.role() == ShardRole::Active {
            self.engine.poll(now);
        }
        self.is_flushed = !self.sender.poll(&mut self.shard, &mut self.engine, monotonic, now);
        let mut all = self.actions(at);
        all.extend(requests);
        (std::iter::from_fn(|| self.shard.poll_frame()).collect(), all)
    }

    fn actions(&mut self, at: Duration) -> Vec<LeaseRequest> {
        let mut requests = Vec::new();
        while let Some(action) = self.shard.poll_action() {
            match action {
                ShardAction::StoreEpoch(epoch) => {
                    self.disk.epoch = self.disk.epoch.max(epoch);
                    self.shard.epoch_stored(epoch, self.monotonic(at));
                }
                ShardAction::RequestLease(request) => requests.push(request),
                ShardAction::Table(change) => {
                    let now = self.now(at);
                    self.receiver.apply(&change, &mut self.engine, now);
                    while self.receiver.poll_sweep(&mut self.engine, |_| false, now) {}
                }
                ShardAction::Role(ShardRole::Active, epoch) => {
                    self.is_new_active = true;
                    self.clock.release(self.machine(at));
                    self.engine.set_port_part(port_part(epoch, PartUse::Only));
                }
                ShardAction::Role(ShardRole::Standby, _) => self.clock.hold(self.machine(at)),
                ShardAction::Role(..) | ShardAction::Note(_) => (),
            }
        }
        requests
    }

    /// A client's first packet: its outside port, if the node may and can give one.
    pub fn open(&mut self, client: u16, at: Duration) -> Option<u16> {
        if !self.shard.may_create(self.monotonic(at)) {
            return None;
        }
        let now = self.now(at);
        let bytes = packet(client);
        let packet = Packet::parse(&bytes).unwrap();
        let mut ctx = self.engine.track(&packet, Zone::default(), now);
        let range = NatRange {
            ports: Some(PORTS),
            port_selection: PortSelection::Random,
            ..NatRange::to([192, 0, 2, 1].into())
        };
        if self.engine.translate(&mut ctx, Manip::Source, &range, now) != NatResult::Changed {
            return None;
        }
        self.engine.confirm(ctx, now);
        self.port_of(client, at)
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

    /// Its table, to be compared.
    pub fn table(&self, at: Duration) -> Vec<(u16, u16)> {
        let entries = self.engine.entries(self.now(at));
        let mut all: Vec<_> = entries.map(|entry| (entry.original.source_key, entry.reply.destination_key)).collect();
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
