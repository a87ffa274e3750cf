//! The engine under the benchmark's traffic: handshakes, then rounds in which every connection sends one packet, in shuffled order.
//!
//! Packets are built outside the measured time, a batch of 32 at a time. Parsing (`Packet::parse`, including the IP header
//! checksum) is measured apart from tracking. Every outcome is checked: a benchmark that tracks wrongly fails.
use crate::counting_alloc;
use crate::table_case::TableCase;
use crate::tcp_segment::{FlowSpec, SegmentBuf, SegmentSpec, translated_address};
use anyhow::{Result, ensure};
use keepstate_engine::{
    CtInfo, Engine, Instant, Manip, NatRange, NatResult, Outcome, Secret, Sysctl, Sysctls, Zone, ZoneDirection,
};
use keepstate_wire::Packet;
use std::time::Instant as Clock;

/// Number of packets in a batch, whose memory is prefetched together.
const BATCH: u32 = 32;
/// A known UDP connection that is still used after this time is a stream.
const STREAM_AFTER_NANOS: u64 = 3_000_000_000;

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
    /// Microseconds of a step of expiring.
    pub longest_step: f64,
    pub known_allocations: f64,
    pub new_allocations: f64,
    pub bytes: f64,
}

/// The parameters of a measurement.
#[derive(Clone, Copy)]
pub struct EngineWorkload {
    pub connections: u32,
    pub case: TableCase,
    /// Minimum number of packets measured for known connections.
    pub packets: u32,
    /// The packets of [`counted_packets`].
    pub count: Option<CountedPackets>,
}

/// Packets whose instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CountedPackets {
    Known,
    New,
}

struct EngineRun {
    work: EngineWorkload,
    /// The packets now sent are the rounds of known connections.
    rounds: bool,
    engine: Engine,
    segments: [SegmentBuf; BATCH as usize],
    outcomes: Vec<Outcome>,
    now: Instant,
}

/// Nanoseconds of each whole batch, and number of packets. The median batch is reported: others are those in which the machine did something else.
#[derive(Default)]
struct Timing {
    parse_ns: Vec<u32>,
    track_ns: Vec<u32>,
    packets: u64,
    allocations: u64,
}

/// The batch at `share` of all in order of their time, in nanoseconds a packet.
pub fn percentile(batches: &[u32], share: f64) -> f64 {
    let mut sorted = batches.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * share) as usize;
    f64::from(sorted.get(at).copied().unwrap_or_default()) / f64::from(BATCH)
}

impl Timing {
    fn median_track_ns(&self) -> f64 {
        percentile(&self.track_ns, 0.5)
    }

    fn mean_allocations(&self) -> f64 {
        self.allocations as f64 / self.packets.max(1) as f64
    }

    fn median_parse_ns(&self) -> f64 {
        percentile(&self.parse_ns, 0.5)
    }
}

impl EngineWorkload {
    /// Runs all measurements once.
    pub fn measure(self) -> Result<EngineFigures> {
        let resident = counting_alloc::resident_bytes();
        let mut bench = self.new_run()?;
        let mut figures =
            EngineFigures { new_first: bench.measure_new(true)?.median_track_ns(), ..EngineFigures::default() };
        figures.bytes = counting_alloc::resident_bytes().saturating_sub(resident) as f64 / f64::from(self.connections);
        let sum = bench.measure_known(true)?;
        figures.known_allocations = sum.mean_allocations();
        figures.known_batched = sum.median_track_ns();
        figures.parse = sum.median_parse_ns();
        figures.known_single = bench.measure_known(false)?.median_track_ns();
        (figures.expiry, figures.longest_step) = bench.measure_expiry()?;
        let sum = bench.measure_new(true)?;
        (figures.new_batched, figures.new_allocations) = (sum.median_track_ns(), sum.mean_allocations());
        bench.measure_expiry()?;
        figures.new_single = bench.measure_new(false)?.median_track_ns();
        Ok(figures)
    }

    /// Sends what is counted, in batches or one by one; returns the number of packets.
    pub fn count_packets(self, batched: bool) -> Result<u64> {
        let mut bench = self.new_run()?;
        // The second time memory is used again, as in the other measurements.
        bench.measure_new(batched)?;
        bench.measure_expiry()?;
        let new = 2 * bench.measure_new(batched)?.packets;
        let known = match self.count {
            Some(CountedPackets::Known) => bench.measure_known(batched)?.packets,
            _ => new,
        };
        Ok(known)
    }

    fn new_run(self) -> Result<EngineRun> {
        let now = Instant::from_secs(1_000_000);
        let engine = Engine::new(sysctls_for(self.connections)?, Secret([5; 16]));
        let segments = [SegmentBuf::EMPTY; BATCH as usize];
        Ok(EngineRun { work: self, rounds: false, engine, segments, outcomes: Vec::with_capacity(BATCH as usize), now })
    }
}

/// Those of a table sized for `connections`, without a limit that matters.
pub fn sysctls_for(connections: u32) -> Result<Sysctls> {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, u64::from(u32::MAX))?;
    sysctls.set(Sysctl::Buckets, u64::from(connections))?;
    Ok(sysctls)
}

impl EngineRun {
    /// SYN, SYN-ACK, ACK of every connection, or the first three datagrams; only the first packets are measured.
    fn measure_new(&mut self, batched: bool) -> Result<Timing> {
        let (mut new, mut rest) = (Timing::default(), Timing::default());
        if self.work.case.is_udp() {
            self.send_round(|_| datagram(false), batched, CtInfo::New, &mut new)?;
            self.send_round(|_| datagram(true), batched, CtInfo::Established, &mut rest)?;
            self.now = Instant(self.now.0 + STREAM_AFTER_NANOS);
            self.send_round(|_| datagram(false), batched, CtInfo::Established, &mut rest)?;
        }
        let handshakes = if self.work.case.is_udp() { 0 } else { self.work.connections };
        for first in (0..handshakes).step_by(BATCH as usize) {
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

    /// One packet of every connection, in the order of their numbers.
    fn send_round(
        &mut self,
        say: impl Fn(u32) -> SegmentSpec + Copy,
        batched: bool,
        expected: CtInfo,
        sum: &mut Timing,
    ) -> Result<()> {
        for first in (0..self.work.connections).step_by(BATCH as usize) {
            let connections: Vec<u32> = (first..(first + BATCH).min(self.work.connections)).collect();
            self.send_batch(&connections, say, batched, expected, sum)?;
        }
        Ok(())
    }

    /// Rounds in which the client sends one byte, and the server acknowledges it.
    fn measure_known(&mut self, batched: bool) -> Result<Timing> {
        let mut sum = Timing::default();
        self.rounds = true;
        let rounds = (self.work.packets / self.work.connections).max(2).next_multiple_of(2);
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
        self.rounds = false;
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
            let flow = FlowSpec {
                connection: *connection,
                ipv6: self.work.case.is_ipv6(),
                udp: self.work.case.is_udp(),
                translated: self.work.case == TableCase::Nat,
            };
            segment.write(flow, say(*connection));
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
        let begins = expected == CtInfo::New;
        let counted = match self.work.count {
            Some(CountedPackets::New) => begins,
            Some(CountedPackets::Known) => self.rounds,
            None => false,
        };
        let mut call = EngineCall {
            engine: &mut self.engine,
            packets,
            connections,
            case: self.work.case,
            begins,
            batched,
            now: self.now,
            outcomes: &mut self.outcomes,
        };
        if counted {
            counted_packets(&mut call)
        } else {
            other_packets(&mut call)
        }
        let tracked = ready.elapsed();
        if connections.len() == BATCH as usize {
            sum.track_ns.push(u32::try_from(tracked.as_nanos()).unwrap_or(u32::MAX));
            sum.parse_ns.push(u32::try_from((parsed - begun).as_nanos()).unwrap_or(u32::MAX));
        }
        sum.allocations += counting_alloc::allocations() - before;
        sum.packets += connections.len() as u64;
        let wrong = self.outcomes.iter().find(|outcome| outcome.info != expected);
        ensure!(wrong.is_none() && self.outcomes.len() == connections.len(), "expected {expected:?}, got {wrong:?}");
        Ok(())
    }

    /// Expires all connections; returns nanoseconds per connection, and of all but the longest thousandth of the steps the longest, in microseconds.
    fn measure_expiry(&mut self) -> Result<(f64, f64)> {
        let count = self.engine.count();
        self.now = Instant(self.now.0 + 1_000_000 * 1_000_000_000);
        let later = self.now;
        let mut steps = Vec::new();
        while self.engine.next_wake(later).is_some_and(|wake| wake <= later) {
            let begun = Clock::now();
            self.engine.poll(later);
            steps.push(u32::try_from(begun.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        let nanos: u64 = steps.iter().copied().map(u64::from).sum();
        let longest = percentile(&steps, 0.999) * f64::from(BATCH) / 1000.0;
        ensure!(self.engine.count() == 0, "{} did not expire", self.engine.count());
        Ok((nanos as f64 / count as f64, longest))
    }
}

fn datagram(reply: bool) -> SegmentSpec {
    SegmentSpec { reply, flags: 0, seq: 0, ack: 0, data: true }
}

/// The packets whose instructions callgrind counts: it knows them by this function's name.
#[inline(never)]
pub fn counted_packets(call: &mut EngineCall<'_, '_>) {
    call.track();
}

/// All other packets: a function different enough from the one above that the compiler does not merge them.
#[inline(never)]
fn other_packets(call: &mut EngineCall<'_, '_>) {
    std::hint::black_box(call).track();
}

/// A call of the engine with a batch of packets.
pub struct EngineCall<'a, 'p> {
    engine: &'a mut Engine,
    packets: &'a [Packet<'p>],
    connections: &'a [u32],
    case: TableCase,
    begins: bool,
    batched: bool,
    now: Instant,
    outcomes: &'a mut Vec<Outcome>,
}

impl EngineCall<'_, '_> {
    #[inline(always)]
    fn track(&mut self) {
        let EngineCall { engine, packets, case, batched, now, outcomes, .. } = self;
        let now = *now;
        let zone = match case {
            TableCase::Zone => Zone { id: 1, direction: ZoneDirection::Both },
            _ => Zone::default(),
        };
        match (case, *batched) {
            (TableCase::Nat, _) if self.begins => self.begin_translated(),
            (TableCase::Track, _) => {
                if *batched {
                    engine.prefetch(packets, zone);
                }
                for packet in *packets {
                    let ctx = engine.track(packet, zone, now);
                    outcomes.push(engine.confirm(ctx, now));
                }
            }
            (_, true) => engine.handle_batch(packets, zone, now, outcomes),
            (_, false) => outcomes.extend(packets.iter().map(|packet| engine.handle(packet, zone, now))),
        }
    }

    /// New connections with the source translated.
    fn begin_translated(&mut self) {
        for (packet, connection) in self.packets.iter().zip(self.connections) {
            let mut ctx = self.engine.track(packet, Zone::default(), self.now);
            let range = NatRange::to(translated_address(*connection).into());
            if self.engine.translate(&mut ctx, Manip::Source, &range, self.now) == NatResult::Changed {
                self.outcomes.push(self.engine.confirm(ctx, self.now));
            }
        }
    }
}

/// A permutation of all numbers below `count`: a bijection on the next power of two, without the numbers that are too large.
pub fn shuffled(count: u32, round: u32) -> impl Iterator<Item = u32> {
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
