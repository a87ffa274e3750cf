//! How long packets wait for the router while everything happens at once: many connections, a large ruleset that is read again, routes that change, control clients, a state file.
//!
//! The sizes of docs/benchmarks.md: `KEEPSTATE_LONGEST_TURN=full cargo test --release -p keepstate-gateway --lib longest_turn -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::super::control_server::ControlSocket;
use super::test_packets::udp_packet;
use super::*;
use crate::clock::SystemTimeSource;
use crate::control_client::fetch;
use crate::control_protocol::{FilterArgs, OutputOptions, ShowOptions};
use crate::flow_log::LogBackends;
use crate::packet_batch::PacketBatch;
use crate::ruleset::RulesetOptions;
use crate::state_store::StateStore;
use keepstate_engine::{Engine, Instant, Secret, Sysctl, Sysctls};
use keepstate_router::{FibChange, FibTable, Interface, Route, RoutePlacement};
use keepstate_rules::{Fib, Program};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::AtomicUsize;

/// How much of everything.
#[derive(Clone, Copy)]
struct Sizes {
    connections: u32,
    rules: u32,
    elements: u32,
    routes: u32,
    reloads: usize,
}

const SMALL: Sizes = Sizes { connections: 5_000, rules: 300, elements: 1_000, routes: 1_000, reloads: 2 };
const FULL: Sizes = Sizes { connections: 1_000_000, rules: 10_000, elements: 100_000, routes: 10_000, reloads: 5 };
const RX_BATCH: usize = 64;

/// First opens all connections, then sends on them while routes change and rulesets are loaded; until the control client has seen enough.
struct LoadDriver {
    sizes: Sizes,
    batch: PacketBatch,
    sent: u32,
    routes: u32,
    longest_batch: usize,
    signals: Arc<SignalFlags>,
    reloaded: Arc<AtomicUsize>,
    requested: usize,
    filled: Arc<AtomicBool>,
    client_done: Arc<AtomicBool>,
}

impl Driver for LoadDriver {
    fn wait(&mut self, _: i32) -> Result<()> {
        Ok(())
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        for _ in 0..RX_BATCH {
            self.batch.push(&packet_of(self.sent % self.sizes.connections), 1, 0);
            self.sent = self.sent.wrapping_add(1);
        }
        self.longest_batch = self.longest_batch.max(self.batch.len());
        self.batch.route(&mut gateway.lock(TurnKind::Packets).router, now);
        let outputs = self.batch.take_outputs();
        self.batch.return_outputs(outputs);
        if self.sent < self.sizes.connections {
            return Ok(RX_BATCH);
        }
        self.filled.store(true, Ordering::Relaxed);
        let reloaded = self.reloaded.load(Ordering::Relaxed);
        if reloaded == self.requested && self.requested < self.sizes.reloads {
            self.requested += 1;
            self.signals.request_reload();
        }
        let done = reloaded == self.sizes.reloads && self.routes >= self.sizes.routes;
        if done && self.client_done.load(Ordering::Relaxed) {
            self.signals.stop.store(true, Ordering::Relaxed);
        }
        Ok(RX_BATCH)
    }

    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        if !self.filled.load(Ordering::Relaxed) || self.routes >= self.sizes.routes {
            return Ok(None);
        }
        let end = (self.routes + 512).min(self.sizes.routes);
        let route = |number: u32| {
            let [_, high, middle, low] = number.to_be_bytes();
            FibChange::Route(vec![Route::new([100, 64 + high, middle, low].into(), 32, 2)], RoutePlacement::Last)
        };
        let changes = (self.routes..end).map(route).collect();
        self.routes = end;
        Ok(Some(FibUpdate::Changes(changes)))
    }
}

/// A UDP packet of this connection: 10.1.x.y, four ports each.
fn packet_of(connection: u32) -> [u8; 29] {
    let [_, high, middle, low] = (connection / 4).to_be_bytes();
    udp_packet([10, 128 | high, middle, low], 16 << 8 | (connection % 4) as u16)
}

fn ruleset_text(sizes: Sizes) -> String {
    let address = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        format!("198.{}.{middle}.{low}", 18 + high)
    };
    let elements: Vec<String> = (0..sizes.elements).map(address).collect();
    let mut text = String::from("table ip t {\n");
    let _ = writeln!(text, "set blocked {{ type ipv4_addr; elements = {{ {} }}; }}", elements.join(", "));
    text.push_str("chain forward { type filter hook forward priority 0; policy accept;\n");
    text.push_str("ct state established accept\nip saddr @blocked drop\n");
    for number in 0..sizes.rules {
        let _ = writeln!(text, "ip saddr {} counter drop", address(number + 1_000_000));
    }
    text.push_str("}\n}\n");
    text
}

/// A client that lists everything once and once more.
fn ask(socket: &Path, connections: u32) {
    let show = ShowOptions { filter: FilterArgs::default(), output: OutputOptions::default() };
    for _ in 0..2 {
        let listed = fetch(socket, ControlRequest::List(show.clone())).unwrap();
        assert!(listed.lines().count() >= connections as usize / 2, "{} lines", listed.lines().count());
        assert!(fetch(socket, ControlRequest::Rules).unwrap().contains("@blocked"));
        assert!(fetch(socket, ControlRequest::Stats { json: false }).unwrap().contains("longest_turn_us="));
    }
}

#[test]
fn longest_turn_while_everything_happens() {
    let full = std::env::var("KEEPSTATE_LONGEST_TURN").is_ok_and(|size| size == "full");
    let sizes = if full { FULL } else { SMALL };
    let folder = tempfile::tempdir().unwrap();
    let (ruleset, socket) = (folder.path().join("rules.nft"), folder.path().join("socket"));
    std::fs::write(&ruleset, ruleset_text(sizes)).unwrap();
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.set_sysctl(Sysctl::Max, 4_000_000).unwrap();
    engine.set_sysctl(Sysctl::UdpTimeout, 600).unwrap();
    let time = SystemTimeSource;
    let (store, _) = StateStore::open(&folder.path().join("state"), &mut engine, time.now()).unwrap();
    let lan = Interface::new(1, "lan0", 1500).with_address([10, 1, 0, 1].into(), 9);
    let wan = Interface::new(2, "wan0", 1500).with_address([10, 2, 0, 1].into(), 24);
    let mut router = Router::new(engine, Program::default(), FibTable::new(vec![lan, wan], Vec::new()), (1, 2));
    let options = RulesetOptions::default();
    AppliedConfig::log(
        &super::super::load::LoadedConfig::read(&options, &ruleset, None).unwrap().apply(&mut router, time.now()),
    );
    let gateway = SharedGateway::new(router, Some(store), Arc::new(time));
    let control = ControlSocket::bind(&socket).unwrap().serve(None).unwrap();
    let signals = Arc::new(SignalFlags::none());
    let reloaded = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reloaded);
    let load = move || {
        let loaded = super::super::load::LoadedConfig::read(&RulesetOptions::default(), &ruleset, None);
        count.fetch_add(1, Ordering::Relaxed);
        loaded
    };
    let (filled, client_done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let mut driver = LoadDriver {
        sizes,
        batch: PacketBatch::default(),
        sent: 0,
        routes: 0,
        longest_batch: 0,
        signals: Arc::clone(&signals),
        reloaded,
        requested: 0,
        filled: Arc::clone(&filled),
        client_done: Arc::clone(&client_done),
    };
    let client = std::thread::spawn(move || {
        while !filled.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        ask(&socket, sizes.connections);
        client_done.store(true, Ordering::Relaxed);
    });
    let reloader = Reloader::new(Arc::new(load), None);
    let mut flow_logs = FlowLogs::start(&[], &LogBackends::default()).unwrap();
    let background = BackgroundWork::alone(reloader, &mut flow_logs);
    control_loop(&gateway, &mut driver, Some(&control), Duration::ZERO, &signals, background).unwrap();
    client.join().unwrap();
    let turns = gateway.turns.values();
    let shown: Vec<String> = turns.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{} connections: {}", gateway.lock(TurnKind::Upkeep).router.engine().count(), shown.join(" "));
    assert!(driver.longest_batch <= RX_BATCH);
    let is_measured = |(name, longest): &(&str, u64)| *longest > 0 || *name == "longest_cluster_us";
    assert!(turns.iter().all(is_measured), "every kind of turn has been measured: {turns:?}");
    let router = &gateway.lock(TurnKind::Upkeep).router;
    let last = [100, 64, 0, 7].into();
    assert_eq!(router.fib().route_lookup(last, None).map(|device| device.index), Some(2), "routes were taken over");
    assert_eq!(router.engine().count(), sizes.connections as usize);
}
