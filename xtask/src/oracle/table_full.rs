//! A full table. The limit is machine-wide, so it is lowered only while this runs, and always restored.
//!
//! Early drop depends on the kernel's secret, so packets are not compared one by one. On both sides: the
//! limit is never exceeded; a new connection is either created or counted as dropped; assured connections stay; known connections continue.
use super::conntrack_max::ConntrackMax;
use super::ctnetlink_dump::CtnetlinkDump;
use super::grammar::generated_packet::{endpoints_toward, host_pair};
use super::kernel::{KernelNetns, Toward};
use super::packet_builder::{self, IpHeaderSpec, OracleSegment, PacketEndpoints};
use super::syscalls;
use super::verdict::{CtStateDscp, ObservedVerdict};
use anyhow::{Context, Result, ensure};
use keepstate_engine::{Engine, Instant, Secret, Status, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;

/// The limit during this test.
const TABLE_MAX: u64 = 600;
/// Number of assured connections before the flood.
const ASSURED: u16 = 200;
/// Number of new connections in the flood.
const FLOOD: u16 = 3000;

const SYN: u8 = 2;
const ACK: u8 = 16;
/// The attribute numbers of `drop` and `early_drop` in a dump of counters.
const DROP: u16 = 10;
const EARLY_DROP: u16 = 11;

/// The result of one side.
#[derive(Debug, Default)]
struct FloodResult {
    accepted: u64,
    dropped: u64,
    drop: u64,
    early_drop: u64,
    count: u64,
    assured: u64,
    /// Packets of assured connections that were not classified ESTABLISHED while the table was full.
    misclassified: u64,
}

impl FloodResult {
    /// Checks what must hold on both sides.
    fn check(&self, side: &str) -> Result<()> {
        ensure!(self.count <= TABLE_MAX, "{side}: {} connections, and {TABLE_MAX} is the limit: {self:?}", self.count);
        ensure!(
            self.assured == u64::from(ASSURED) && self.misclassified == 0,
            "{side}: assured connections went: {self:?}"
        );
        ensure!(self.dropped == self.drop, "{side}: packets refused and packets counted as dropped differ: {self:?}");
        ensure!(self.accepted + self.dropped == u64::from(FLOOD), "{side}: packets lost: {self:?}");
        let room = TABLE_MAX - u64::from(ASSURED);
        ensure!(
            self.accepted == room + self.early_drop,
            "{side}: what came in is not what there was room for: {self:?}"
        );
        Ok(())
    }
}

/// Fills both tables, and floods them.
pub fn run(kernel: &mut KernelNetns, limit: &ConntrackMax) -> Result<()> {
    let mut dump = CtnetlinkDump::open()?;
    dump.flush()?;
    let before = dump.statistics()?;
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, TABLE_MAX)?;
    let began = Instant(syscalls::monotonic_ns());
    let mut engine = Engine::new(sysctls, Secret(*b"a full table's s"));
    let (mut theirs, mut ours) = (FloodResult::default(), FloodResult::default());
    {
        let _lowered = limit.lower(TABLE_MAX)?;
        open_assured_connections(kernel, &mut engine)?;
        for number in 0..FLOOD {
            let verdicts = send_to_both(kernel, &mut engine, Toward::Server, 20_000 + number, SYN, 1, 0)?;
            for (account, verdicts) in [&mut theirs, &mut ours].into_iter().zip(verdicts) {
                match verdicts {
                    ObservedVerdict::Passed(_) => account.accepted += 1,
                    ObservedVerdict::NotForwarded => account.dropped += 1,
                }
            }
            let verdicts = send_to_both(kernel, &mut engine, Toward::Server, 1000 + number % ASSURED, ACK, 2, 2)?;
            for (account, verdicts) in [&mut theirs, &mut ours].into_iter().zip(verdicts) {
                account.misclassified += u64::from(verdicts != ObservedVerdict::Passed(CtStateDscp::Established));
            }
        }
    }
    let rows = dump.connections()?;
    let after = dump.statistics()?;
    let moved = |number| after.get(&number).copied().unwrap_or(0) - before.get(&number).copied().unwrap_or(0);
    let assured = Status::ASSURED.bits();
    theirs.count = rows.len() as u64;
    theirs.assured = rows.iter().filter(|row| row.status & assured != 0).count() as u64;
    (theirs.drop, theirs.early_drop) = (moved(DROP), moved(EARLY_DROP));
    ours.count = engine.count() as u64;
    ours.assured = engine.entries(began).filter(|entry| entry.status.contains(Status::ASSURED)).count() as u64;
    (ours.drop, ours.early_drop) = (engine.counters().drop, engine.counters().early_drop);
    println!("full table, limit {TABLE_MAX}:\n  kernel {theirs:?}\n  engine {ours:?}");
    theirs.check("kernel")?;
    ours.check("engine")
}

/// Opens the connections that are to be assured.
fn open_assured_connections(kernel: &mut KernelNetns, engine: &mut Engine) -> Result<()> {
    for number in 0..ASSURED {
        send_to_both(kernel, engine, Toward::Server, 1000 + number, SYN, 1, 0)?;
        send_to_both(kernel, engine, Toward::Client, 1000 + number, SYN | ACK, 1, 2)?;
        let verdicts = send_to_both(kernel, engine, Toward::Server, 1000 + number, ACK, 2, 2)?;
        ensure!(
            verdicts == [ObservedVerdict::Passed(CtStateDscp::Established); 2],
            "the handshake was not followed: {verdicts:?}"
        );
    }
    Ok(())
}

/// Sends one segment to both.
fn send_to_both(
    kernel: &mut KernelNetns,
    engine: &mut Engine,
    toward: Toward,
    client: u16,
    flags: u8,
    seq: u32,
    ack: u32,
) -> Result<[ObservedVerdict; 2]> {
    let (source, destination) = if toward == Toward::Server { (client, 80) } else { (80, client) };
    let segment = OracleSegment { source, destination, seq, ack, flags, window: 1000, ..OracleSegment::default() };
    let ends: PacketEndpoints = endpoints_toward(host_pair(false, 1, 1), toward);
    let envelope = IpHeaderSpec { ident: u32::from(client), ..IpHeaderSpec::default() };
    let bytes = packet_builder::ip_packet(ends, packet_builder::TCP, &segment.to_bytes(ends), &envelope);
    let theirs = kernel.forward_packet(toward, &bytes)?;
    let packet = Packet::parse(&bytes).ok().context("a packet of our own making")?;
    let ours = engine.handle(&packet, Zone::default(), Instant(syscalls::monotonic_ns()));
    Ok([theirs, ObservedVerdict::from(ours)])
}
