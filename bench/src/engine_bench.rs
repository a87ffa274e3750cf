//! The engine under the benchmark's traffic: handshakes, then rounds in which every connection sends one packet, in shuffled order.
//!
//! Packets are built outside the measured time, a batch of 32 at a time. Parsing (`Packet::parse`, including the IP header
//! checksum) is measured apart from tracking. Every outcome is checked: a benchmark that tracks wrongly fails.
use crate::counting_alloc;
use crate::tcp_segment::{SegmentBuf, SegmentSpec};
use anyhow::{Result, ensure};
use keepstate_engine::{CtInfo, Engine, Instant, Outcome, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;
use std::time::Instant as Clock;

/// Number of packets in a batch, whose memory is prefetched together.
const BATCH: u32 = 32;
/// Minimum number of packets measured for known connections.
const PACKETS: u32 = 4_000_000;

/// Nanoseconds per packet or connection, allocations per packet, bytes per connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineFigures {
    pub parse: f64,
    pub known_batched: f64,
    pub known_single: f64,
    /// A new connection whose table memory is touched for the first time, and zeroed by the kernel.
    pub new_first: f64,
    /// A new connection in memory that was used before.
    pub new_batched: f64,
    pub new_single: f64,
    pub expiry: f64,
    pub known_allocations: f64,
    pub new_allocations: f64,
    pub bytes: f64,
}

/// The parameters of a measurement.
#[derive(Clone, Copy)]
pub struct EngineWorkload {
    pub connections: u32,
    pub ipv6: bool,
}

struct EngineRun {
    work: EngineWorkload,
    engine: Engine,
    segments: [SegmentBuf; BATCH as usize],
    outcomes: Vec<Outcome>,
    now: Instant,
}

/// Nanoseconds and number of packets.
#[derive(Default, Clone, Copy)]
struct Timing {
    parse_ns: u128,
    track_ns: u128,
    packets: u64,
    allocations: u64,
}

impl Timing {
    fn mean_track_ns(&self) -> f64 {
        self.track_ns as f64 / self.packets.max(1) as f64
    }

    fn mean_allocations(&self) -> f64 {
        self.allocations as f64 / self.packets.max(1) as f64
    }

    fn mean_parse_ns(&self) -> f64 {
        self.parse_ns as f64 / self.packets.max(1) as f64
    }
}

impl EngineWorkload {
    /// Runs all measurements once.
    pub fn measure(self) -> Result<EngineFigures> {
        let resident = counting_alloc::resident_bytes();
        let mut bench = self.new_run()?;
        let mut figures =
            EngineFigures { new_first: bench.measure_new(true)?.mean_track_ns(), ..EngineFigures::default() };
        figures.bytes = counting_alloc::resident_bytes().saturating_sub(resident) as f64 / f64::from(self.connections);
        let sum = bench.measure_known(true)?;
        figures.known_allocations = sum.mean_allocations();
        figures.known_batched = sum.mean_track_ns();
        figures.parse = sum.mean_parse_ns();
        figures.known_single = bench.measure_known(false)?.mean_track_ns();
        figures.expiry = bench.measure_expiry()?;
        let sum = bench.measure_new(true)?;
        (figures.new_batched, figures.new_allocations) = (sum.mean_track_ns(), sum.mean_allocations());
        bench.measure_expiry()?;
        figures.new_single = bench.measure_new(false)?.mean_track_ns();
        Ok(figures)
    }

    fn new_run(self) -> Result<EngineRun> {
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Max, u64::from(u32::MAX))?;
        sysctls.set(Sysctl::Buckets, u64::from(self.connections))?;
        let now = Instant::from_secs(1_000_000);
        let engine = Engine::new(sysctls, Secret([5; 16]));
        let segments = [SegmentBuf::EMPTY; BATCH as usize];
        Ok(EngineRun { work: self, engine, segments, outcomes: Vec::with_capacity(BATCH as usize), now })
    }
}

impl EngineRun {
    /// SYN, SYN-ACK, ACK of every connection; only the SYNs are measured.
    fn measure_new(&mut self, batched: bool) -> Result<Timing> {
        let (mut new, mut rest) = (Timing::default(), Timing::default());
        for first in (0..self.work.connections).step_by(BATCH as usize) {
            let count = BATCH.min(self.work.connections - first);
            let connections: Vec<u32> = (first..first + count).collect();
            let say = |flags, reply, seq, ack| SegmentSpec { reply, flags, seq, ack, data: false };
            self.send_batch(&connections, |_| say(0x02, false, 99, 0), batched, CtInfo::New, &mut new)?;
            self.send_batch(&connections, |_| say(0x12, true, 499, 100), batched, CtInfo::Established, &mut rest)?;
            self.send_batch(&connections, |_| say(0x10, false, 100, 500), batched, CtInfo::Established, &mut rest)?;
        }
        ensure!(self.engine.count() == self.work.connections as usize, "{} connections", self.engine.count());
        Ok(new)
    }

    /// Rounds in which the client sends one byte, and the server acknowledges it.
    fn measure_known(&mut self, batched: bool) -> Result<Timing> {
        let mut sum = Timing::default();
        let rounds = (PACKETS / self.work.connections).max(2).next_multiple_of(2);
        let base = if batched { 0 } else { rounds / 2 };
        for round in 0..rounds {
            let sent = base + round / 2;
            let say = match round % 2 {
                0 => SegmentSpec { reply: false, flags: 0x18, seq: 100 + sent, ack: 500, data: true },
                _ => SegmentSpec { reply: true, flags: 0x10, seq: 500, ack: 101 + sent, data: false },
            };
            let mut connections = Vec::with_capacity(BATCH as usize);
            for connection in shuffled(self.work.connections, round) {
                connections.push(connection);
                if connections.len() == BATCH as usize {
                    self.send_batch(&connections, |_| say, batched, CtInfo::Established, &mut sum)?;
                    connections.clear();
                }
            }
            self.send_batch(&connections, |_| say, batched, CtInfo::Established, &mut sum)?;
        }
        Ok(sum)
    }

    /// Sends one segment of each of `connections`, and adds the measurement to `sum`.
    fn send_batch(
        &mut self,
        connections: &[u32],
        say: impl Fn(u32) -> SegmentSpec,
        batched: bool,
        expected: CtInfo,
        sum: &mut Timing,
    ) -> Result<()> {
        for (segment, connection) in self.segments.iter_mut().zip(connections) {
            segment.write(*connection, self.work.ipv6, say(*connection));
        }
        self.outcomes.clear();
        let begun = Clock::now();
        let packets: [_; BATCH as usize] = std::array::from_fn(|at| Packet::parse(self.segments[at].bytes()));
        let parsed = Clock::now();
        // All or none: a packet that cannot be parsed is an error of the benchmark.
        let first = packets[0].map_err(|refusal| anyhow::anyhow!(refusal.text()))?;
        let packets = packets.map(|packet| packet.unwrap_or(first));
        let packets = &packets[..connections.len()];
        let before = counting_alloc::allocations();
        let ready = Clock::now();
        if batched {
            self.engine.handle_batch(packets, Zone::default(), self.now, &mut self.outcomes);
        } else {
            self.outcomes.extend(packets.iter().map(|packet| self.engine.handle(packet, Zone::default(), self.now)));
        }
        sum.track_ns += ready.elapsed().as_nanos();
        sum.parse_ns += (parsed - begun).as_nanos();
        sum.allocations += counting_alloc::allocations() - before;
        sum.packets += connections.len() as u64;
        let wrong = self.outcomes.iter().find(|outcome| outcome.info != expected);
        ensure!(wrong.is_none() && self.outcomes.len() == connections.len(), "expected {expected:?}, got {wrong:?}");
        Ok(())
    }

    /// Expires all connections; returns nanoseconds per connection.
    fn measure_expiry(&mut self) -> Result<f64> {
        let count = self.engine.count();
        self.now = Instant(self.now.0 + 1_000_000 * 1_000_000_000);
        let later = self.now;
        let begun = Clock::now();
        while self.engine.next_wake(later).is_some_and(|wake| wake <= later) {
            self.engine.poll(later);
        }
        let nanos = begun.elapsed().as_nanos();
        ensure!(self.engine.count() == 0, "{} did not expire", self.engine.count());
        Ok(nanos as f64 / count as f64)
    }
}

/// A permutation of all numbers below `count`: a bijection on the next power of two, without the numbers that are too large.
fn shuffled(count: u32, round: u32) -> impl Iterator<Item = u32> {
    let bits = count.next_power_of_two().trailing_zeros().max(1);
    let mask = u32::MAX >> (32 - bits);
    (0..=mask).filter_map(move |at| {
        let mut mixed = at.wrapping_add(round.wrapping_mul(0x9e37_79b9)) & mask;
        for multiplier in [0x85eb_ca6b, 0xc2b2_ae35_u32] {
            mixed = mixed.wrapping_mul(multiplier) & mask;
            mixed ^= mixed >> bits.div_ceil(2);
        }
        (mixed < count).then_some(mixed)
    })
}
