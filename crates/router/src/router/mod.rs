//! One datagram's way through the router.
//!
//! ```text
//! in ─▶ prerouting: raw ▶ track ▶ mangle ▶ destination translated ▶ filter
//!    ─▶ ours? ── yes ▶ input ▶ confirm ▶ to the machine
//!             └─ no ─▶ hops left? ▶ route? ▶ forward ▶ fits the way out? ▶ postrouting ▶ source translated ▶ confirm ─▶ out
//! ```
//! What is dropped on the way leaves nothing behind; what is refused is answered, and the answer takes the way of our own packets. The router has no
//! clock and no devices; it lives as long as its driver, and its ruleset can be exchanged between two packets.
mod change;
mod hooks;
mod loss;
mod own;
mod trip;
mod way;

pub use loss::Loss;
pub(crate) use trip::Trip;

use crate::fragment::Numbers;
use crate::map::Map;
use crate::pace::Pace;
use crate::service::Services;
use crate::synproxy::{Handshakes, Promiser};
use keepstate_engine::{Engine, Instant, Outcome};
use keepstate_rules::{Program, Way};
use keepstate_wire::Packet;
use keepstate_wire::reassembly::{Limits, Reassembler};
use std::net::IpAddr;
use std::ops::Range;
use trip::{end, view};

/// Before it is tracked.
const RAW: Range<i32> = i32::MIN..-200;
/// Tracked, its destination not yet translated.
const MANGLE: Range<i32> = -200..-100;
/// Its destination translated.
const BEHIND: Range<i32> = -100..i32::MAX;
/// Its source not yet translated.
const BEFORE: Range<i32> = i32::MIN..100;
/// Its source translated.
const AFTER: Range<i32> = 100..i32::MAX;
/// Every chain of a hook.
const ALL: Range<i32> = i32::MIN..i32::MAX;

/// A router.
pub struct Router {
    engine: Engine,
    program: Program,
    wall: i64,
    map: Map,
    fragments: Reassembler,
    numbers: Numbers,
    counters: Counters,
    lines: Vec<(u8, String)>,
    services: Services,
    pub(crate) promiser: Promiser,
    /// How many ICMP errors are sent, if that is limited.
    pace: Option<Pace>,
    /// The machine's own packets are its own affair.
    host_apart: bool,
    /// Buffers that are not in use.
    spare: Vec<Vec<u8>>,
    /// No new connections are taken.
    closed: bool,
}

/// Buffers that are kept for later, at most.
const SPARE: usize = 512;

/// A datagram that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Out {
    /// By the device of this index, to this neighbour.
    Device(u32, IpAddr, Vec<u8>),
    /// To the machine itself.
    Host(Vec<u8>),
}

/// What went through, and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams sent on.
    pub forwarded: u64,
    /// Datagrams for the machine itself.
    pub delivered: u64,
    /// Answers of our own.
    pub answered: u64,
    /// Datagrams that went no further.
    pub lost: u64,
}

impl Router {
    /// A router with an empty table.
    pub fn new(engine: Engine, program: Program, map: Map, secret: (u64, u64)) -> Router {
        Router {
            engine,
            program,
            wall: 0,
            map,
            fragments: Reassembler::new(secret, Limits::default()),
            numbers: Numbers::new(secret),
            counters: Counters::default(),
            lines: Vec::new(),
            services: Services::new(secret),
            promiser: Promiser::new(secret),
            pace: None,
            host_apart: false,
            spare: Vec::new(),
            closed: false,
        }
    }

    /// Leaves what is for the machine itself, and translated to nobody else, to the machine: neither tracked nor filtered here. For a driver that sees what comes to the machine and not
    /// what the machine sends, so that its connections could only be half known.
    #[must_use]
    pub fn with_host_apart(mut self) -> Router {
        self.host_apart = true;
        self
    }

    /// Sends at most as many ICMP errors as Linux does by default: to one peer six at once and then one a second, to all of them fifty and then a thousand a second. What tells of a path's MTU
    /// is always sent.
    #[must_use]
    pub fn with_paced_answers(mut self, secret: (u64, u64)) -> Router {
        self.pace = Some(Pace::new(secret));
        self
    }

    /// Takes a buffer back that [`Router::handle`] has given out, so that no packet needs a new one.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(buffer);
        }
    }

    fn copied(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// The table.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// For what services do: they, the table they translate in, and the machine.
    pub(crate) fn serving(&mut self) -> (&mut Services, &mut Engine, &Map) {
        (&mut self.services, &mut self.engine, &self.map)
    }

    /// The ruleset at work.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Exchanges the ruleset; connections live on.
    pub fn reload(&mut self, program: Program) {
        // What was handed out was so by the old rules.
        self.engine.revoke_all();
        self.program = program;
        self.program.set_wall(self.wall);
    }

    /// Tells rules that ask for hours, days or dates the clock on the wall: what has to be added to the engine's time, in nanoseconds, to give those since 1970
    /// in the machine's own zone. Until it is told, the engine's time is taken for it.
    pub fn set_wall(&mut self, wall: i64) {
        self.wall = wall;
        self.program.set_wall(wall);
    }

    /// Devices and routes.
    pub fn map(&self) -> &Map {
        &self.map
    }

    /// Exchanges devices and routes.
    pub fn remap(&mut self, map: Map) {
        self.map = map;
    }

    /// Takes no new connections from now on, or takes them again; those that are there live on, and what they announced may come.
    pub fn close(&mut self, closed: bool) {
        self.closed = closed;
    }

    /// Are no new connections taken?
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What went through so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Handshakes answered in servers' names so far.
    pub fn handshakes(&self) -> &Handshakes {
        &self.promiser.counts
    }

    /// A line for the log: its level by syslog's number, and its text.
    pub fn poll_log(&mut self) -> Option<(u8, String)> {
        if self.lines.is_empty() { None } else { Some(self.lines.remove(0)) }
    }

    /// Takes a datagram that came in by the device of index `iif`, and puts what leaves into `out`.
    ///
    /// # Errors
    /// Why it went no further. What is to be answered is in `out` then.
    pub fn handle(&mut self, bytes: &[u8], iif: u32, now: Instant, out: &mut Vec<Out>) -> Result<(), Loss> {
        let bytes = self.copied(bytes);
        self.take(bytes, None, iif, now, out).map_err(|(loss, bytes)| {
            self.recycle(bytes);
            loss
        })
    }

    /// As [`Router::handle`], of a datagram that is taken out of `bytes`, unless it goes no further.
    ///
    /// # Errors
    /// Why it went no further. What is to be answered is in `out` then.
    pub fn handle_owned(
        &mut self,
        bytes: &mut Vec<u8>,
        iif: u32,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), Loss> {
        let taken = std::mem::take(bytes);
        self.take(taken, None, iif, now, out).map_err(|(loss, taken)| {
            *bytes = taken;
            loss
        })
    }

    /// As [`Router::handle`], of many segments of one TCP stream as one datagram (what Linux calls GSO), the longest of which would be `longest` octets long, and whose checksum is
    /// vouched for and [open](keepstate_wire::edit::open). What leaves is as open, and to be cut into such segments again. If even they do not fit their way out and may be cut further, it is
    /// [too big](Loss::TooBig) and nobody is told: cut it and hand over the pieces. The datagram is taken out of `bytes`, unless it goes no further.
    ///
    /// # Errors
    /// Why it went no further. What is to be answered is in `out` then.
    pub fn handle_train(
        &mut self,
        bytes: &mut Vec<u8>,
        longest: usize,
        iif: u32,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), Loss> {
        let taken = std::mem::take(bytes);
        self.take(taken, Some(longest), iif, now, out).map_err(|(loss, taken)| {
            *bytes = taken;
            loss
        })
    }

    fn take(
        &mut self,
        bytes: Vec<u8>,
        longest: Option<usize>,
        iif: u32,
        now: Instant,
        out: &mut Vec<Out>,
    ) -> Result<(), (Loss, Vec<u8>)> {
        self.counters.received += 1;
        let way = Way { iif: self.map.device(iif), ..Way::default() };
        let sent = self.copied(&[]);
        let mut trip = Trip { bytes, sent, way, longest, now, ..Trip::default() };
        let result = self.pass(&mut trip, out);
        self.lines.append(&mut trip.way.lines);
        self.recycle(trip.sent);
        self.counters.lost += u64::from(result.is_err());
        result.map_err(|loss| (loss, trip.bytes))
    }
}

fn lost(outcome: &Outcome) -> Loss {
    outcome.why.map_or(Loss::Dropped, Loss::Tracking)
}

fn destination(bytes: &[u8]) -> Result<IpAddr, Loss> {
    Packet::parse(bytes).map(|packet| end(&packet)).map_err(|_| Loss::Malformed)
}
