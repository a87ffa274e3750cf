//! `bench table`'s row of shards: as many threads as shards, each with the packets of its own connections; packets a second of each thread beside one thread with all of them.
//!
//! The median batch counts, so that a thread that has to wait for a processor is not slow by it; what threads take from each other by the memory they share is in it.
//! Each packet is parsed before, and asked for its shard while the time runs.
use crate::engine_bench::{percentile, shuffled, sysctls_for};
use crate::tcp_segment::{FlowSpec, SegmentBuf, SegmentSpec};
use anyhow::{Result, ensure};
use keepstate_engine::{CtInfo, Engine, Instant, Outcome, Secret, ShardMap, ShardedEngine, Zone};
use keepstate_wire::Packet;
use std::sync::Barrier;
use std::time::Instant as Clock;

const BATCH: usize = 32;

/// Millions of packets a second of one thread, on average.
#[derive(Clone, Copy, Debug)]
pub struct ShardFigures {
    pub known: f64,
    pub new: f64,
}

/// One thread's part.
struct ShardRun<'a> {
    own: usize,
    engine: &'a mut Engine,
    map: ShardMap,
    /// Its connections.
    connections: Vec<u32>,
    segments: [SegmentBuf; BATCH],
    outcomes: Vec<Outcome>,
    now: Instant,
    /// Nanoseconds of each whole batch.
    batches: Vec<u32>,
}

fn segment(connection: u32, say: SegmentSpec) -> SegmentBuf {
    let mut buf = SegmentBuf::EMPTY;
    buf.write(FlowSpec { connection, ipv6: false, udp: false, translated: false }, say);
    buf
}

const fn say(flags: u8, reply: bool, seq: u32, ack: u32, data: bool) -> SegmentSpec {
    SegmentSpec { reply, flags, seq, ack, data }
}

/// Sends handshakes of `connections` and then `rounds` packets each, from a thread a shard.
pub fn measure(connections: u32, shards: usize, rounds: u32) -> Result<ShardFigures> {
    let mut all = ShardedEngine::new(sysctls_for(connections)?, Secret([5; 16]), shards);
    let map = all.map().clone();
    let mut own: Vec<Vec<u32>> = vec![Vec::new(); shards];
    for connection in 0..connections {
        let first = segment(connection, say(0x02, false, 99, 0, false));
        let packet = Packet::parse(first.bytes()).map_err(|error| anyhow::anyhow!(error.text()))?;
        own[map.shard_of(&packet).unwrap_or_default()].push(connection);
    }
    let ready = Barrier::new(shards);
    let figures = std::thread::scope(|scope| {
        let threads: Vec<_> = all
            .shards_mut()
            .iter_mut()
            .zip(own)
            .enumerate()
            .map(|(own, (engine, connections))| {
                let (map, ready) = (map.clone(), &ready);
                let mut run = ShardRun {
                    own,
                    engine,
                    map,
                    connections,
                    segments: [SegmentBuf::EMPTY; BATCH],
                    outcomes: Vec::with_capacity(BATCH),
                    now: Instant::from_secs(1_000_000),
                    batches: Vec::new(),
                };
                scope.spawn(move || run.measure(rounds, ready))
            })
            .collect();
        let joined: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        joined.into_iter().map(|figures| figures.map_err(|_| anyhow::anyhow!("a thread has panicked"))?).collect()
    });
    let figures: Vec<ShardFigures> = Result::<Vec<_>>::from_iter::<Vec<_>>(figures)?;
    ensure!(all.count() == connections as usize, "{} connections", all.count());
    let mean = |pick: fn(&ShardFigures) -> f64| figures.iter().map(pick).sum::<f64>() / shards as f64;
    Ok(ShardFigures { known: mean(|figures| figures.known), new: mean(|figures| figures.new) })
}

impl ShardRun<'_> {
    fn measure(&mut self, rounds: u32, ready: &Barrier) -> Result<ShardFigures> {
        ready.wait();
        let connections = std::mem::take(&mut self.connections);
        let mut new = Vec::new();
        for batch in connections.chunks(BATCH) {
            self.send(batch, say(0x02, false, 99, 0, false), CtInfo::New)?;
            new.append(&mut self.batches);
            self.send(batch, say(0x12, true, 499, 100, false), CtInfo::Established)?;
            self.send(batch, say(0x10, false, 100, 500, false), CtInfo::Established)?;
            self.batches.clear();
        }
        ready.wait();
        let count = u32::try_from(connections.len())?;
        for round in 0..rounds {
            let sent = round / 2;
            let say = match round % 2 {
                0 => say(0x18, false, 100 + sent, 500, true),
                _ => say(0x10, true, 500, 101 + sent, false),
            };
            let order: Vec<u32> = shuffled(count, round).map(|at| connections[at as usize]).collect();
            for batch in order.chunks(BATCH) {
                self.send(batch, say, CtInfo::Established)?;
            }
        }
        let millions = |batches: &[u32]| 1000.0 / percentile(batches, 0.5);
        Ok(ShardFigures { known: millions(&self.batches), new: millions(&new) })
    }

    fn send(&mut self, connections: &[u32], say: SegmentSpec, expected: CtInfo) -> Result<()> {
        for (buf, connection) in self.segments.iter_mut().zip(connections) {
            *buf = segment(*connection, say);
        }
        let packets: [_; BATCH] = std::array::from_fn(|at| Packet::parse(self.segments[at].bytes()));
        let first = packets[0].map_err(|error| anyhow::anyhow!(error.text()))?;
        let packets = packets.map(|packet| packet.unwrap_or(first));
        let packets = &packets[..connections.len()];
        let begun = Clock::now();
        let own = packets.iter().filter(|packet| self.map.shard_of(packet) == Some(self.own)).count();
        self.engine.handle_batch(packets, Zone::default(), self.now, &mut self.outcomes);
        if packets.len() == BATCH {
            self.batches.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        ensure!(own == packets.len() && self.outcomes.iter().all(|outcome| outcome.info == expected), "not tracked");
        Ok(())
    }
}
