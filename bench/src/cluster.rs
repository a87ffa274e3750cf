//! `bench cluster`: what sharing the table costs: time per new connection beside the gateway's own, the rate that an active gateway carries with a nats-server beside it, bytes a connection,
//! time until a new standby has everything, memory.
//!
//! Engine, shard and transport are the gateway's own; the nats-server is a real one. The gateway's own cost of a new connection is the engine's alone (three packets, translated, confirmed),
//! without rules and without a driver: the ratio to a whole gateway's is lower.
use crate::state_store::{engine, now, open_connections};
use anyhow::{Result, ensure};
use clap::Args;
use keepstate_cluster::{
    Decider, FrameKind, Greeting, Shard, ShardAction, ShardRole, StateFrame, StateTransport, TransportEvent,
};
use keepstate_engine::Engine;
use keepstate_gateway::cluster::{TableReceiver, TableSender};
use keepstate_nats::{ClusterOptions, NatsOptions, NatsTransport};
use keepstate_test_support::NatsServers;
use std::time::{Duration, Instant as Clock};

/// Measure what a cluster costs: replication of new connections over a real nats-server
#[derive(Args)]
pub struct ClusterBench {
    /// Connections, all translated
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Packets between two looks for changes
    #[arg(long, default_value_t = 64)]
    turn: u32,
    /// Rounds of the first measurement; the medians are shown
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// A node that has not got what it waits for after this has failed.
const PATIENCE: Duration = Duration::from_secs(600);

impl ClusterBench {
    /// Runs the measurements, and prints the results.
    pub fn run(&self) -> Result<()> {
        ensure!(self.connections > 0 && self.turn > 0 && self.rounds > 0, "all numbers must be at least 1");
        println!("{}", load_line());
        println!("{} translated TCP connections, three packets each, {} packets a turn", self.connections, self.turn);
        self.measure_cost()?;
        let Some(servers) = NatsServers::start(1, "") else { return Ok(()) };
        self.measure_nats(&servers)
    }

    /// The same traffic with and without the code that collects, encodes and numbers changes; frames are acknowledged at once and carried nowhere.
    fn measure_cost(&self) -> Result<()> {
        let (mut bare, mut shared, mut bytes, mut frames) = (Vec::new(), Vec::new(), 0_u64, 0_u64);
        for _ in 0..self.rounds {
            bare.push(self.open(&mut engine()?, |_| Ok(()))?);
            let mut table = engine()?;
            let (mut shard, mut sender) = (active_shard()?, TableSender::default());
            (bytes, frames) = (0, 0);
            let took = self.open(&mut table, |engine| {
                flush(&mut shard, &mut sender, engine, |frame, shard| {
                    bytes += frame.to_bytes().len() as u64;
                    frames += 1;
                    shard.handle_event(acknowledged(&frame), monotonic());
                });
                Ok(())
            })?;
            shared.push(took);
        }
        let each = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times.get(times.len() / 2).map_or(0.0, |time| time.as_nanos() as f64 / f64::from(self.connections))
        };
        let (bare, shared) = (each(&mut bare), each(&mut shared));
        let count = f64::from(self.connections);
        println!("  the engine alone {bare:7.0} ns a connection");
        println!(
            "  with replication {shared:7.0} ns, {:+.0} ns = {:+.0} %",
            shared - bare,
            (shared / bare - 1.0) * 100.0
        );
        println!("  {:.0} bytes and {:.3} messages a connection", bytes as f64 / count, frames as f64 / count);
        Ok(())
    }

    /// An active node, a nats-server; then a standby that joins.
    fn measure_nats(&self, servers: &NatsServers) -> Result<()> {
        let memory = || Some((resident(std::process::id())?, resident(servers.pid(0)?)?));
        let before = memory();
        let mut active = Node::start(servers, "a")?;
        active.shard.promote(monotonic())?;
        active.run_until("a promotion", |node| node.shard.role() == ShardRole::Active)?;
        let mut table = engine()?;
        let begun = Clock::now();
        self.open(&mut table, |engine| active.turn(engine))?;
        active.flush_all(&mut table)?;
        let rate = f64::from(self.connections) / begun.elapsed().as_secs_f64();
        println!("  {rate:.0} connections a second, all acknowledged by the nats-server beside it");
        let middle = memory();
        let mut standby = Node::start(servers, "b")?;
        let begun = Clock::now();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let wanted = table.count();
        let took = std::thread::scope(|scope| {
            let follower = scope.spawn(move || -> Result<(Node, Engine, Duration)> {
                let mut held = engine()?;
                let deadline = Clock::now() + PATIENCE;
                while !(standby.shard.status().in_step && held.count() == wanted) {
                    ensure!(Clock::now() < deadline, "the standby is not complete: {} connections", held.count());
                    standby.turn(&mut held)?;
                    standby.wait();
                }
                drop(done);
                Ok((standby, held, begun.elapsed()))
            });
            while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                active.turn(&mut table)?;
                active.wait();
            }
            follower.join().map_err(|_| anyhow::anyhow!("the standby has failed"))?
        })?;
        let (_standby, _held, took) = took;
        println!("  a new standby has all {wanted} connections after {:.2} s", took.as_secs_f64());
        if let (Some(before), Some(middle), Some(after)) = (before, middle, memory()) {
            let mib = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1024.0;
            println!(
                "  memory: table and sender {:.0} MiB, nats-server {:.0} MiB, table and slots of a standby {:.0} MiB",
                mib(before.0, middle.0),
                mib(before.1, after.1),
                mib(middle.0, after.0)
            );
        }
        Ok(())
    }

    /// Opens every connection, and calls `turn` between the turns and at the end.
    fn open(&self, engine: &mut Engine, mut turn: impl FnMut(&mut Engine) -> Result<()>) -> Result<Duration> {
        let begun = Clock::now();
        open_connections(engine, self.connections, self.turn, |engine, _| turn(engine))?;
        turn(engine)?;
        Ok(begun.elapsed())
    }
}

/// A node as the gateway's cluster thread drives it.
struct Node {
    shard: Shard,
    sender: TableSender,
    receiver: TableReceiver,
    transport: NatsTransport,
}

impl Node {
    fn start(servers: &NatsServers, name: &str) -> Result<Node> {
        let (cluster, node) = ("bench".parse()?, name.parse()?);
        let options = ClusterOptions::new(cluster, node, vec!["main".parse()?], 1);
        let nats = NatsOptions { servers: servers.urls(), client_name: name.into(), ..NatsOptions::default() };
        let names = ("main".parse()?, name.parse()?);
        let shard = Shard::new(names, Decider::Hand, Greeting::default(), Default::default(), monotonic());
        let transport = NatsTransport::start(nats, options)?;
        Ok(Node { shard, sender: TableSender::default(), receiver: TableReceiver::default(), transport })
    }

    fn turn(&mut self, engine: &mut Engine) -> Result<()> {
        for _ in 0..256 {
            let Some(event) = self.transport.poll() else { break };
            self.shard.handle_event(event, monotonic());
            self.take_actions(engine);
        }
        self.shard.handle_time(monotonic());
        self.take_actions(engine);
        self.sender.poll(&mut [&mut self.shard], engine, monotonic(), now());
        while let Some(frame) = self.shard.poll_frame() {
            if self.transport.publish(frame.clone()).is_err() {
                self.shard.frame_refused(frame);
                break;
            }
        }
        Ok(())
    }

    fn take_actions(&mut self, engine: &mut Engine) {
        while let Some(action) = self.shard.poll_action() {
            match action {
                ShardAction::StoreEpoch(epoch) => self.shard.epoch_stored(epoch, monotonic()),
                ShardAction::RequestLease(request) => self.transport.request_lease(request),
                ShardAction::Table(change) => {
                    self.receiver.apply(&change, engine, |_| true, now());
                    while self.receiver.poll_sweep(engine, |_| false, now()) {}
                }
                ShardAction::Role(..) => (),
                ShardAction::Note(text) => eprintln!("{text}"),
            }
        }
    }

    /// As the gateway's thread waits between two turns.
    fn wait(&self) {
        // Without a descriptor to wait for there is still the clock.
        let _ = keepstate_linux::poll::poll_readable(self.transport.wake_fd(), 2);
    }

    fn run_until(&mut self, what: &str, holds: impl Fn(&Node) -> bool) -> Result<()> {
        let (deadline, mut empty) = (Clock::now() + PATIENCE, engine()?);
        while !holds(self) {
            ensure!(Clock::now() < deadline, "{what} has not come");
            self.turn(&mut empty)?;
            self.wait();
        }
        Ok(())
    }

    /// Until all is acknowledged.
    fn flush_all(&mut self, engine: &mut Engine) -> Result<()> {
        let deadline = Clock::now() + PATIENCE;
        loop {
            self.turn(engine)?;
            let more = self.sender.poll(&mut [&mut self.shard], engine, monotonic(), now());
            if !more && self.shard.status().unacknowledged == 0 {
                return Ok(());
            }
            ensure!(Clock::now() < deadline, "not all was acknowledged: {:?}", self.shard.status());
            self.wait();
        }
    }
}

/// A shard that is active and connected to nothing.
fn active_shard() -> Result<Shard> {
    let names = ("main".parse()?, "a".parse()?);
    let mut shard = Shard::new(names, Decider::Hand, Greeting::default(), Default::default(), monotonic());
    shard.handle_event(TransportEvent::Connected, monotonic());
    shard.promote(monotonic())?;
    while let Some(action) = shard.poll_action() {
        if let ShardAction::StoreEpoch(epoch) = action {
            shard.epoch_stored(epoch, monotonic());
        }
    }
    Ok(shard)
}

/// One turn of the sender, every frame handed to `carry`.
fn flush(
    shard: &mut Shard,
    sender: &mut TableSender,
    engine: &mut Engine,
    mut carry: impl FnMut(StateFrame, &mut Shard),
) {
    sender.poll(&mut [shard], engine, monotonic(), now());
    while let Some(frame) = shard.poll_frame() {
        carry(frame, shard);
    }
    while shard.poll_action().is_some() {}
}

fn acknowledged(frame: &StateFrame) -> TransportEvent {
    let StateFrame { shard, epoch, sequence, kind, .. } = frame;
    debug_assert!(*kind != FrameKind::SnapshotRequest);
    TransportEvent::Acknowledged { shard: shard.clone(), epoch: *epoch, sequence: *sequence }
}

fn monotonic() -> Duration {
    Duration::from_nanos(now().0)
}

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// What else the machine was doing: a figure without this is worth little.
fn load_line() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("load before: {} on {processors} processors", load.split(' ').take(2).collect::<Vec<_>>().join(", "))
}
