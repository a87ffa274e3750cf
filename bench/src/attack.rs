//! Known packets while the table is attacked: a table at its limit, a batch of hostile packets, the upkeep, a batch of known packets, and so on. What is measured is the upkeep with the
//! known batch behind it: what a known packet waits for. Beside it the same without hostile packets.
use crate::median::median;
use crate::tcp_segment::{FlowSpec, SegmentBuf, SegmentSpec};
use anyhow::{Result, ensure};
use keepstate_engine::{CtInfo, Engine, Instant, Outcome, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;
use keepstate_wire::reassembly::{Reassembler, ReassemblyLimits};
use std::time::Instant as Clock;

const BATCH: usize = 32;
/// A batch of hostile packets comes this often: 8 million of them a second.
const TURN_NANOS: u64 = 4_000;

/// What is sent between the batches of known packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Nothing.
    Quiet,
    /// First packets whose tuples have the same sum and the same low bits: what a hash without a key puts into one chain.
    HashFlood,
    /// SYNs, each of another address.
    SynFlood,
    /// First fragments of packets that never become whole.
    FragmentFlood,
    /// SYNs of one host to all ports of others, each answered by a reset.
    PortScan,
}

/// Nanoseconds of a turn: the upkeep, and 32 known packets.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttackFigures {
    pub median: f64,
    pub p99: f64,
    /// Of the hostile batch alone, a packet.
    pub hostile: f64,
}

impl Attack {
    pub const ALL: [Attack; 5] =
        [Attack::Quiet, Attack::HashFlood, Attack::SynFlood, Attack::FragmentFlood, Attack::PortScan];

    pub fn name(self) -> &'static str {
        match self {
            Attack::Quiet => "quiet",
            Attack::HashFlood => "hash flood",
            Attack::SynFlood => "SYN flood",
            Attack::FragmentFlood => "fragments",
            Attack::PortScan => "port scan",
        }
    }

    /// Measures `turns` turns with a table of `limit` connections, half of them known.
    pub fn measure(self, limit: u32, turns: u32) -> Result<AttackFigures> {
        AttackRun::new(limit)?.measure(self, turns)
    }
}

struct AttackRun {
    engine: Engine,
    reassembler: Reassembler,
    known: u32,
    now: Instant,
    segments: [SegmentBuf; BATCH],
    outcomes: Vec<Outcome>,
    number: u32,
}

const fn say(flags: u8, reply: bool, seq: u32, ack: u32) -> SegmentSpec {
    SegmentSpec { reply, flags, seq, ack, data: false }
}

impl AttackRun {
    /// A full table: one half established connections, the other half unassured ones that may be dropped early.
    fn new(limit: u32) -> Result<AttackRun> {
        let mut sysctls = Sysctls::default();
        sysctls.set(Sysctl::Max, u64::from(limit))?;
        sysctls.set(Sysctl::Buckets, u64::from(limit))?;
        let mut run = AttackRun {
            engine: Engine::new(sysctls, Secret([5; 16])),
            reassembler: Reassembler::new((1, 2), ReassemblyLimits::default()),
            known: limit / 2,
            now: Instant::from_secs(1_000_000),
            segments: [SegmentBuf::EMPTY; BATCH],
            outcomes: Vec::with_capacity(BATCH),
            number: 0,
        };
        for connection in 0..run.known {
            run.send_one(connection, say(0x02, false, 99, 0))?;
            run.send_one(connection, say(0x12, true, 499, 100))?;
            run.send_one(connection, say(0x10, false, 100, 500))?;
        }
        for connection in run.known..limit {
            run.send_one(connection, say(0x02, false, 99, 0))?;
        }
        ensure!(run.engine.count() == limit as usize, "{} connections", run.engine.count());
        Ok(run)
    }

    fn send_one(&mut self, connection: u32, segment: SegmentSpec) -> Result<CtInfo> {
        let [buffer, ..] = &mut self.segments;
        buffer.write(FlowSpec { connection, ..FlowSpec::default() }, segment);
        let packet = Packet::parse(buffer.bytes()).map_err(|refusal| anyhow::anyhow!(refusal.text()))?;
        Ok(self.engine.handle(&packet, Zone::default(), self.now).info)
    }

    fn measure(&mut self, attack: Attack, turns: u32) -> Result<AttackFigures> {
        let (mut known, mut hostile) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            self.now = Instant(self.now.0 + TURN_NANOS);
            hostile.push(self.attack(attack)? / BATCH as f64);
            known.push(self.known_turn(turn)?);
        }
        known.sort_by(f64::total_cmp);
        let at = |share: f64| known.get((known.len() as f64 * share) as usize).copied().unwrap_or_default();
        Ok(AttackFigures { median: at(0.5), p99: at(0.99), hostile: median(hostile).unwrap_or_default() })
    }

    /// The upkeep and a batch of known packets, in nanoseconds.
    fn known_turn(&mut self, turn: u32) -> Result<f64> {
        let ack = say(0x10, false, 100, 500);
        for (place, segment) in (0..).zip(&mut self.segments) {
            let number = turn.wrapping_mul(BATCH as u32).wrapping_add(place).wrapping_mul(0x9e37_79b1);
            let connection = ((u64::from(number) * u64::from(self.known)) >> 32) as u32;
            segment.write(FlowSpec { connection, ..FlowSpec::default() }, ack);
        }
        let packets = parse(&self.segments)?;
        let begun = Clock::now();
        self.engine.poll(self.now);
        self.engine.handle_batch(&packets, Zone::default(), self.now, &mut self.outcomes);
        let nanos = begun.elapsed().as_nanos() as f64;
        let wrong = self.outcomes.iter().find(|outcome| outcome.info != CtInfo::Established);
        ensure!(wrong.is_none(), "a known packet is {wrong:?}");
        Ok(nanos)
    }

    /// A batch of hostile packets, in nanoseconds.
    fn attack(&mut self, attack: Attack) -> Result<f64> {
        if attack == Attack::FragmentFlood {
            return self.send_fragments();
        }
        let first = self.number;
        self.number = self.number.wrapping_add(BATCH as u32);
        let replies = match attack {
            Attack::Quiet | Attack::FragmentFlood => return Ok(0.0),
            Attack::HashFlood | Attack::SynFlood => false,
            Attack::PortScan => true,
        };
        let mut nanos = 0.0;
        for reply in [false, true].into_iter().take(1 + usize::from(replies)) {
            let mut buffers = [[0; 40]; BATCH];
            for (number, buffer) in (first..).zip(&mut buffers) {
                *buffer = hostile_segment(attack, number, reply);
            }
            let mut packets = Vec::with_capacity(BATCH);
            for buffer in &buffers {
                packets.push(Packet::parse(buffer).map_err(|refusal| anyhow::anyhow!(refusal.text()))?);
            }
            let begun = Clock::now();
            self.engine.handle_batch(&packets, Zone::default(), self.now, &mut self.outcomes);
            nanos += begun.elapsed().as_nanos() as f64;
        }
        Ok(nanos)
    }

    fn send_fragments(&mut self) -> Result<f64> {
        let mut out = Vec::new();
        let begun = Clock::now();
        for _ in 0..BATCH {
            self.number = self.number.wrapping_add(1);
            let [a, b, c, d] = self.number.to_be_bytes();
            let mut bytes = [0; 44];
            // The first 24 bytes of a longer packet.
            bytes[..12].copy_from_slice(&[0x45, 0, 0, 44, c, d, 0x20, 0, 64, 17, 0, 0]);
            bytes[12..20].copy_from_slice(&[11, a, b, c, 192, 168, 0, 1]);
            let check = keepstate_wire::checksum::internet(&bytes[..20]).to_be_bytes();
            bytes[10..12].copy_from_slice(&check);
            let packet = Packet::parse(&bytes).map_err(|refusal| anyhow::anyhow!(refusal.text()))?;
            // Above the limit of memory it is refused, which is what is measured.
            let _ = self.reassembler.push(&packet, self.now.0, &mut out);
        }
        Ok(begun.elapsed().as_nanos() as f64)
    }
}

fn parse(segments: &[SegmentBuf; BATCH]) -> Result<Vec<Packet<'_>>> {
    let parsed = segments.iter().map(|segment| Packet::parse(segment.bytes()));
    parsed.collect::<Result<_, _>>().map_err(|refusal| anyhow::anyhow!(refusal.text()))
}

/// A SYN of the attack, or the reset that answers it.
fn hostile_segment(attack: Attack, number: u32, reply: bool) -> [u8; 40] {
    let [a, b, c, d] = number.to_be_bytes();
    let (source, destination, ports) = match attack {
        // Source and destination change against each other, so that their sum stays.
        Attack::HashFlood => ([11, a, b, 0], [12, !a, !b, 0], [c, d, !c, !d]),
        Attack::PortScan => ([11, 0, 0, 1], [192, 168, a, b], [0x9c, 0x40, c, d]),
        _ => ([11 + (a & 63), b, c, d], [192, 168, 0, 1], [c, d, 0x07, 0x5b]),
    };
    let (source, destination) = if reply { (destination, source) } else { (source, destination) };
    let mut bytes = [0; 40];
    bytes[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    bytes[12..16].copy_from_slice(&source);
    bytes[16..20].copy_from_slice(&destination);
    let check = keepstate_wire::checksum::internet(&bytes[..20]).to_be_bytes();
    bytes[10..12].copy_from_slice(&check);
    let (flags, ack): (u8, u32) = if reply { (0x14, 100) } else { (0x02, 0) };
    let [e, f, g, h] = ports;
    bytes[20..24].copy_from_slice(&if reply { [g, h, e, f] } else { ports });
    bytes[24..28].copy_from_slice(&(if reply { 0_u32 } else { 99 }).to_be_bytes());
    bytes[28..32].copy_from_slice(&ack.to_be_bytes());
    bytes[32..36].copy_from_slice(&[0x50, flags, 0xff, 0xff]);
    let sum = keepstate_wire::checksum::Sum::new().add_bytes(&bytes[12..20]).add_u16(6).add_u16(20);
    let check = sum.add_bytes(&bytes[20..]).finish().to_be_bytes();
    bytes[36..38].copy_from_slice(&check);
    bytes
}
