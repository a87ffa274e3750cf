//! A full table. The limit is one for the whole machine, so it is lowered only while this runs and put back whatever happens.
//!
//! Which connections are dropped early depends on the kernel's secret, so nothing is compared packet by packet. What must hold on both sides: the
//! limit is never exceeded; a new connection either comes in or is counted as dropped; assured connections stay; known connections go on.
use super::craft::{self, Ends, Envelope, Segment};
use super::dump::Dump;
use super::grammar::{facing, host_pair};
use super::kernel::{Kernel, Toward};
use super::limit::Limit;
use super::system;
use super::verdict::{Heard, Mark};
use anyhow::{Context, Result, ensure};
use keepstate_engine::{Engine, Instant, Knob, Knobs, Secret, Status, Zone};
use keepstate_wire::Packet;

/// The limit while this runs.
const MAX: u64 = 600;
/// Connections that are assured before the flood.
const ASSURED: u16 = 200;
/// New connections tried in the flood.
const FLOOD: u16 = 3000;

const SYN: u8 = 2;
const ACK: u8 = 16;
/// The numbers of `drop` and `early_drop` in a dump of counters.
const DROP: u16 = 10;
const EARLY_DROP: u16 = 11;

/// What one side made of it.
#[derive(Debug, Default)]
struct Account {
    came_in: u64,
    refused: u64,
    drop: u64,
    early_drop: u64,
    count: u64,
    assured: u64,
    /// Packets of assured connections that were told something else than ESTABLISHED while the table was full.
    forgotten: u64,
}

impl Account {
    /// What must hold on either side.
    fn check(&self, side: &str) -> Result<()> {
        ensure!(self.count <= MAX, "{side}: {} connections, and {MAX} is the limit: {self:?}", self.count);
        ensure!(
            self.assured == u64::from(ASSURED) && self.forgotten == 0,
            "{side}: assured connections went: {self:?}"
        );
        ensure!(self.refused == self.drop, "{side}: packets refused and packets counted as dropped differ: {self:?}");
        ensure!(self.came_in + self.refused == u64::from(FLOOD), "{side}: packets lost: {self:?}");
        let room = MAX - u64::from(ASSURED);
        ensure!(
            self.came_in == room + self.early_drop,
            "{side}: what came in is not what there was room for: {self:?}"
        );
        Ok(())
    }
}

/// Fills both tables and floods them.
pub fn run(kernel: &mut Kernel, limit: &Limit) -> Result<()> {
    let mut dump = Dump::open()?;
    dump.flush()?;
    let before = dump.statistics()?;
    let mut knobs = Knobs::default();
    knobs.set(Knob::Max, MAX)?;
    let began = Instant(system::monotonic());
    let mut engine = Engine::new(knobs, Secret(*b"a full table's s"), began);
    let (mut theirs, mut ours) = (Account::default(), Account::default());
    {
        let _lowered = limit.lower(MAX)?;
        handshakes(kernel, &mut engine)?;
        for number in 0..FLOOD {
            let heard = both(kernel, &mut engine, Toward::Server, 20_000 + number, SYN, 1, 0)?;
            for (account, heard) in [&mut theirs, &mut ours].into_iter().zip(heard) {
                match heard {
                    Heard::Passed(_) => account.came_in += 1,
                    Heard::Gone => account.refused += 1,
                }
            }
            let heard = both(kernel, &mut engine, Toward::Server, 1000 + number % ASSURED, ACK, 2, 2)?;
            for (account, heard) in [&mut theirs, &mut ours].into_iter().zip(heard) {
                account.forgotten += u64::from(heard != Heard::Passed(Mark::Established));
            }
        }
    }
    let rows = dump.rows()?;
    let after = dump.statistics()?;
    let moved = |number| after.get(&number).copied().unwrap_or(0) - before.get(&number).copied().unwrap_or(0);
    let assured = u32::from(Status::ASSURED.0);
    theirs.count = rows.len() as u64;
    theirs.assured = rows.iter().filter(|row| row.status & assured != 0).count() as u64;
    (theirs.drop, theirs.early_drop) = (moved(DROP), moved(EARLY_DROP));
    ours.count = engine.count() as u64;
    ours.assured = engine.entries(began).filter(|entry| entry.status.has(Status::ASSURED)).count() as u64;
    (ours.drop, ours.early_drop) = (engine.counters().drop, engine.counters().early_drop);
    println!("full table, limit {MAX}:\n  kernel {theirs:?}\n  engine {ours:?}");
    theirs.check("kernel")?;
    ours.check("engine")
}

/// Connections that are assured.
fn handshakes(kernel: &mut Kernel, engine: &mut Engine) -> Result<()> {
    for number in 0..ASSURED {
        both(kernel, engine, Toward::Server, 1000 + number, SYN, 1, 0)?;
        both(kernel, engine, Toward::Client, 1000 + number, SYN | ACK, 1, 2)?;
        let heard = both(kernel, engine, Toward::Server, 1000 + number, ACK, 2, 2)?;
        ensure!(heard == [Heard::Passed(Mark::Established); 2], "the handshake was not followed: {heard:?}");
    }
    Ok(())
}

/// One segment to both.
fn both(
    kernel: &mut Kernel,
    engine: &mut Engine,
    toward: Toward,
    client: u16,
    flags: u8,
    seq: u32,
    ack: u32,
) -> Result<[Heard; 2]> {
    let (source, destination) = if toward == Toward::Server { (client, 80) } else { (80, client) };
    let segment = Segment { source, destination, seq, ack, flags, window: 1000, ..Segment::default() };
    let ends: Ends = facing(host_pair(false, 1, 1), toward);
    let envelope = Envelope { ident: u32::from(client), ..Envelope::default() };
    let bytes = craft::datagram(ends, craft::TCP, &segment.bytes(ends), &envelope);
    let theirs = kernel.pass(toward, &bytes)?;
    let packet = Packet::parse(&bytes).ok().context("a packet of our own making")?;
    let ours = engine.handle(&packet, Zone::default(), Instant(system::monotonic()));
    Ok([theirs, Heard::from(ours)])
}
