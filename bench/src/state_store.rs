//! `bench keep`: the cost of the state store: time per connection and turn, bytes per connection on file, time to restore.
//!
//! The gateway's own code does all of it, on a file in a given folder; the same traffic without the store is measured in the same run.
use anyhow::{Context, Result, ensure};
use clap::Args;
use keepstate_engine::{Engine, Instant, Manip, NatRange, Secret, Sysctl, Sysctls, Zone};
use keepstate_gateway::state_store::StateStore;
use keepstate_wire::{Packet, checksum};
use std::path::PathBuf;
use std::time::{Duration, Instant as Clock, SystemTime, UNIX_EPOCH};

/// Measure the cost of the state store (`--state`)
#[derive(Args)]
pub struct StateStoreBench {
    /// Connections, all translated
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// Packets per turn of the gateway's loop
    #[arg(long, default_value_t = 64)]
    turn: u32,
    /// Folder for the state file, which is removed afterwards
    #[arg(long, default_value = "target/bench-keep")]
    folder: PathBuf,
}

impl StateStoreBench {
    /// Runs the measurements, and prints the results.
    pub fn run(&self) -> Result<()> {
        ensure!(self.connections > 0 && self.turn > 0, "--connections and --turn must be at least 1");
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot create {}", self.folder.display()))?;
        let path = self.folder.join("bench.table");
        let bare = open_connections(&mut engine()?, self.connections, self.turn, |_, _| Ok(()))?;
        let mut engine = engine()?;
        let (mut keep, _) = StateStore::open(&path, &mut engine, now())?;
        let kept = open_connections(&mut engine, self.connections, self.turn, |engine, time| {
            keep.poll(engine, time);
            Ok(())
        })?;
        let each = |time: Duration| time.as_nanos() as f64 / f64::from(self.connections);
        println!("{} translated TCP connections, three packets each, {} packets a turn", self.connections, self.turn);
        println!("  not kept     {:7.0} ns a connection", each(bare));
        println!("  kept         {:7.0} ns a connection, {:.0} ns more", each(kept), each(kept) - each(bare));
        let idle = idle_turn_ns(&mut keep, &mut engine);
        println!("  an idle turn {idle:7.0} ns");
        let begun = Clock::now();
        keep.close(&mut engine, now());
        let bytes = std::fs::metadata(&path)?.len();
        println!(
            "  written whole at the end in {:.2} s: {} bytes, {:.0} a connection",
            begun.elapsed().as_secs_f64(),
            bytes,
            bytes as f64 / f64::from(self.connections)
        );
        let mut heir = self::engine()?;
        let begun = Clock::now();
        let (keep, restored) = StateStore::open(&path, &mut heir, now())?;
        println!(
            "  read, entered and written anew in {:.2} s: {} connections",
            begun.elapsed().as_secs_f64(),
            restored.connections
        );
        drop(keep);
        for word in ["", ".new", ".lock"] {
            let _ = std::fs::remove_file(self.folder.join(format!("bench.table{word}")));
        }
        ensure!(restored.connections == self.connections as usize, "not all connections were restored: {restored:?}");
        Ok(())
    }
}

/// Opens this many connections with three packets each, as a gateway does, and calls `end_turn` after so many packets.
pub fn open_connections(
    engine: &mut Engine,
    connections: u32,
    turn: u32,
    mut end_turn: impl FnMut(&mut Engine, Instant) -> Result<()>,
) -> Result<Duration> {
    let range = NatRange::to([192, 0, 2, 1].into());
    let (mut packets, begun) = (0_u32, Clock::now());
    for number in 0..connections {
        let time = now();
        for (step, mut bytes) in handshake(number).into_iter().enumerate() {
            let copy = bytes.clone();
            let packet = Packet::parse(&copy).ok().context("a generated packet cannot be parsed")?;
            let mut passage = engine.track(&packet, Zone::default(), time);
            if step == 0 {
                engine.translate(&mut passage, Manip::Source, &range, time);
            }
            engine.nat_rewrite(&passage, Manip::Source).apply(&mut bytes);
            engine.confirm(passage, time);
            packets += 1;
            if packets.is_multiple_of(turn) {
                end_turn(engine, time)?;
            }
        }
    }
    ensure!(engine.count() == connections as usize, "{} of {connections} connections", engine.count());
    Ok(begun.elapsed())
}

/// Nanoseconds per turn without packets.
fn idle_turn_ns(keep: &mut StateStore, engine: &mut Engine) -> f64 {
    const TURNS: u32 = 100_000;
    // Finish what is still in progress first.
    for _ in 0..500 {
        keep.poll(engine, now());
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Clock::now();
    (0..TURNS).for_each(|_| _ = keep.poll(engine, now()));
    begun.elapsed().as_nanos() as f64 / f64::from(TURNS)
}

pub(crate) fn engine() -> Result<Engine> {
    let mut sysctls = Sysctls::default();
    for (knob, value) in [(Sysctl::Max, 4_000_000), (Sysctl::Buckets, 2_000_000), (Sysctl::Checksum, 0)] {
        sysctls.set(knob, value)?;
    }
    Ok(Engine::new(sysctls, Secret([7; 16])))
}

pub(crate) fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant(since.as_nanos() as u64)
}

/// SYN, SYN-ACK to the translated address, ACK.
pub(crate) fn handshake(number: u32) -> [Vec<u8>; 3] {
    // Each port connects to every server once.
    let (port, server) = ((1024 + number % 60_000) as u16, [198, 51, (number / 60_000) as u8, 9]);
    let client = [10, 0, (port >> 8) as u8, port as u8];
    [
        tcp_segment((client, port), (server, 80), 2, 1000, 0),
        tcp_segment((server, 80), ([192, 0, 2, 1], port), 18, 5000, 1001),
        tcp_segment((client, port), (server, 80), 16, 1001, 5001),
    ]
}

fn tcp_segment(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    bytes.extend(from.0.iter().chain(&to.0));
    let check = checksum::internet(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&check);
    bytes.extend(from.1.to_be_bytes());
    bytes.extend(to.1.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([5 << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    bytes
}
