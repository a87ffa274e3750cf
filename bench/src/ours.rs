//! The engine under the bench's traffic: handshakes, then rounds in which every connection speaks once, in an order that jumps about.
//!
//! Packets are built outside the measured time, a batch of 32 at a time; reading them from their octets (`Packet::parse`, checksum of the IP header and
//! all) is measured apart from tracking them. Every outcome is looked at: a bench that tracks wrongly fails.
use crate::memory;
use crate::segment::{Say, Segment};
use anyhow::{Result, ensure};
use keepstate_engine::{Engine, Info, Instant, Knob, Knobs, Outcome, Secret, Zone};
use keepstate_wire::Packet;
use std::time::Instant as Clock;

/// Packets whose memory is fetched together.
const BATCH: u32 = 32;
/// At least so many packets are measured for known connections.
const PACKETS: u32 = 4_000_000;

/// Nanoseconds a packet (or connection), allocations a packet, octets a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub parse: f64,
    pub known_batched: f64,
    pub known_single: f64,
    /// A new connection while the table's memory is touched for the first time, and zeroed by the kernel.
    pub new_first: f64,
    /// A new connection in memory that others had before.
    pub new_batched: f64,
    pub new_single: f64,
    pub expiry: f64,
    pub known_allocations: f64,
    pub new_allocations: f64,
    pub bytes: f64,
}

/// What is to be measured.
#[derive(Clone, Copy)]
pub struct Workload {
    pub connections: u32,
    pub ipv6: bool,
}

struct Bench {
    work: Workload,
    engine: Engine,
    segments: [Segment; BATCH as usize],
    outcomes: Vec<Outcome>,
    now: Instant,
}

/// Nanoseconds and packets.
#[derive(Default, Clone, Copy)]
struct Sum {
    parsing: u128,
    tracking: u128,
    packets: u64,
    allocations: u64,
}

impl Sum {
    fn mean(&self) -> f64 {
        self.tracking as f64 / self.packets.max(1) as f64
    }

    fn mean_allocations(&self) -> f64 {
        self.allocations as f64 / self.packets.max(1) as f64
    }

    fn mean_parsing(&self) -> f64 {
        self.parsing as f64 / self.packets.max(1) as f64
    }
}

impl Workload {
    /// Measures all of it once.
    pub fn measure(self) -> Result<Figures> {
        let resident = memory::resident();
        let mut bench = self.empty()?;
        let mut figures = Figures { new_first: bench.open(true)?.mean(), ..Figures::default() };
        figures.bytes = memory::resident().saturating_sub(resident) as f64 / f64::from(self.connections);
        let sum = bench.rounds(true)?;
        figures.known_allocations = sum.mean_allocations();
        figures.known_batched = sum.mean();
        figures.parse = sum.mean_parsing();
        figures.known_single = bench.rounds(false)?.mean();
        figures.expiry = bench.expire()?;
        let sum = bench.open(true)?;
        (figures.new_batched, figures.new_allocations) = (sum.mean(), sum.mean_allocations());
        bench.expire()?;
        figures.new_single = bench.open(false)?.mean();
        Ok(figures)
    }

    fn empty(self) -> Result<Bench> {
        let mut knobs = Knobs::default();
        knobs.set(Knob::Max, u64::from(u32::MAX))?;
        knobs.set(Knob::Buckets, u64::from(self.connections))?;
        let now = Instant::from_secs(1_000_000);
        let engine = Engine::new(knobs, Secret([5; 16]), now);
        let segments = [Segment::EMPTY; BATCH as usize];
        Ok(Bench { work: self, engine, segments, outcomes: Vec::with_capacity(BATCH as usize), now })
    }
}

impl Bench {
    /// SYN, SYN-ACK, ACK of every connection; the SYNs are measured.
    fn open(&mut self, batched: bool) -> Result<Sum> {
        let (mut new, mut rest) = (Sum::default(), Sum::default());
        for first in (0..self.work.connections).step_by(BATCH as usize) {
            let count = BATCH.min(self.work.connections - first);
            let connections: Vec<u32> = (first..first + count).collect();
            let say = |flags, reply, seq, ack| Say { reply, flags, seq, ack, data: false };
            self.speak(&connections, |_| say(0x02, false, 99, 0), batched, Info::New, &mut new)?;
            self.speak(&connections, |_| say(0x12, true, 499, 100), batched, Info::Established, &mut rest)?;
            self.speak(&connections, |_| say(0x10, false, 100, 500), batched, Info::Established, &mut rest)?;
        }
        ensure!(self.engine.count() == self.work.connections as usize, "{} connections", self.engine.count());
        Ok(new)
    }

    /// Rounds: the client says an octet, the server acknowledges it.
    fn rounds(&mut self, batched: bool) -> Result<Sum> {
        let mut sum = Sum::default();
        let rounds = (PACKETS / self.work.connections).max(2).next_multiple_of(2);
        let base = if batched { 0 } else { rounds / 2 };
        for round in 0..rounds {
            let said = base + round / 2;
            let say = match round % 2 {
                0 => Say { reply: false, flags: 0x18, seq: 100 + said, ack: 500, data: true },
                _ => Say { reply: true, flags: 0x10, seq: 500, ack: 101 + said, data: false },
            };
            let mut connections = Vec::with_capacity(BATCH as usize);
            for connection in shuffled(self.work.connections, round) {
                connections.push(connection);
                if connections.len() == BATCH as usize {
                    self.speak(&connections, |_| say, batched, Info::Established, &mut sum)?;
                    connections.clear();
                }
            }
            self.speak(&connections, |_| say, batched, Info::Established, &mut sum)?;
        }
        Ok(sum)
    }

    /// One segment of each of `connections`, measured into `sum`.
    fn speak(
        &mut self,
        connections: &[u32],
        say: impl Fn(u32) -> Say,
        batched: bool,
        expected: Info,
        sum: &mut Sum,
    ) -> Result<()> {
        for (segment, connection) in self.segments.iter_mut().zip(connections) {
            segment.write(*connection, self.work.ipv6, say(*connection));
        }
        self.outcomes.clear();
        let begun = Clock::now();
        let packets: [_; BATCH as usize] = std::array::from_fn(|at| Packet::parse(self.segments[at].octets()));
        let parsed = Clock::now();
        // All or none: what cannot be read here is a fault of the bench.
        let first = packets[0].map_err(|refusal| anyhow::anyhow!(refusal.text()))?;
        let packets = packets.map(|packet| packet.unwrap_or(first));
        let packets = &packets[..connections.len()];
        let before = memory::allocations();
        let ready = Clock::now();
        if batched {
            self.engine.handle_batch(packets, self.now, &mut self.outcomes);
        } else {
            self.outcomes.extend(packets.iter().map(|packet| self.engine.handle(packet, Zone::default(), self.now)));
        }
        sum.tracking += ready.elapsed().as_nanos();
        sum.parsing += (parsed - begun).as_nanos();
        sum.allocations += memory::allocations() - before;
        sum.packets += connections.len() as u64;
        let wrong = self.outcomes.iter().find(|outcome| outcome.info != expected);
        ensure!(wrong.is_none() && self.outcomes.len() == connections.len(), "expected {expected:?}, got {wrong:?}");
        Ok(())
    }

    /// Lets all expire; nanoseconds a connection.
    fn expire(&mut self) -> Result<f64> {
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

/// All numbers below `count`, each once, in an order that jumps about: a bijection of the next power of two, what is too large left out.
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
