//! One datagram's way through the router.
//!
//! ```text
//! in ─▶ prerouting: raw ▶ track ▶ mangle ▶ destination translated ▶ filter
//!    ─▶ ours? ── yes ▶ input ▶ confirm ▶ to the machine
//!             └─ no ─▶ hops left? ▶ route? ▶ forward ▶ fits the way out? ▶ postrouting ▶ source translated ▶ confirm ─▶ out
//! ```
//! What is dropped on the way leaves nothing behind; what is refused is answered, and the answer takes the way of our own packets. The router has no
//! clock and no devices; it lives as long as its driver, and its ruleset can be exchanged between two packets.
mod drop_reason;
mod header_rewrite;
mod hooks;
mod output;
mod packet;
mod pipeline;
mod service_api;
mod synproxy;

pub use drop_reason::DropReason;
pub(crate) use packet::InFlightPacket;

use crate::fib::FibTable;
use crate::icmp_ratelimit::IcmpRateLimiter;
use crate::ip_fragment::FragmentIds;
use crate::service::Services;
use crate::synproxy::{SynCookies, SynproxyStats};
use keepstate_engine::{Engine, Instant, Outcome};
use keepstate_rules::{PacketMeta, Program};
use keepstate_wire::Packet;
use keepstate_wire::reassembly::{Reassembler, ReassemblyLimits};
use packet::{destination_address, parse_packet};
use std::net::IpAddr;
use std::ops::Range;

/// Before it is tracked.
const BEFORE_CONNTRACK: Range<i32> = i32::MIN..-200;
/// Tracked, its destination not yet translated.
const CONNTRACK_TO_DNAT: Range<i32> = -200..-100;
/// Its destination translated.
const AFTER_DNAT: Range<i32> = -100..i32::MAX;
/// Its source not yet translated.
const BEFORE_SNAT: Range<i32> = i32::MIN..100;
/// Its source translated.
const AFTER_SNAT: Range<i32> = 100..i32::MAX;
/// Every chain of a hook.
const ALL_PRIORITIES: Range<i32> = i32::MIN..i32::MAX;

/// A router.
pub struct Router {
    engine: Engine,
    program: Program,
    wall_offset: i64,
    fib: FibTable,
    reassembler: Reassembler,
    fragment_ids: FragmentIds,
    counters: RouterCounters,
    log_lines: Vec<(u8, String)>,
    services: Services,
    pub(crate) syn_cookies: SynCookies,
    /// How many ICMP errors are sent, if that is limited.
    icmp_limiter: Option<IcmpRateLimiter>,
    /// The machine's own packets are its own affair.
    bypass_local: bool,
    /// Buffers that are not in use.
    spare_buffers: Vec<Vec<u8>>,
    /// No new connections are taken.
    draining: bool,
}

/// Buffers that are kept for later, at most.
const MAX_SPARE_BUFFERS: usize = 512;

/// A datagram that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Egress {
    /// By the device of this index, to this neighbour.
    Forward(u32, IpAddr, Vec<u8>),
    /// To the machine itself.
    LocalDeliver(Vec<u8>),
}

/// What went through, and what did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterCounters {
    /// Datagrams that came in.
    pub received: u64,
    /// Datagrams sent on.
    pub forwarded: u64,
    /// Datagrams for the machine itself.
    pub delivered: u64,
    /// Answers of our own.
    pub generated: u64,
    /// Datagrams that went no further.
    pub dropped: u64,
}

impl Router {
    /// A router with an empty table.
    pub fn new(engine: Engine, program: Program, fib: FibTable, secret: (u64, u64)) -> Router {
        Router {
            engine,
            program,
            wall_offset: 0,
            fib,
            reassembler: Reassembler::new(secret, ReassemblyLimits::default()),
            fragment_ids: FragmentIds::new(secret),
            counters: RouterCounters::default(),
            log_lines: Vec::new(),
            services: Services::new(secret),
            syn_cookies: SynCookies::new(secret),
            icmp_limiter: None,
            bypass_local: false,
            spare_buffers: Vec::new(),
            draining: false,
        }
    }

    /// Leaves what is for the machine itself, and translated to nobody else, to the machine: neither tracked nor filtered here. For a driver that sees what comes to the machine and not
    /// what the machine sends, so that its connections could only be half known.
    #[must_use]
    pub fn with_local_bypass(mut self) -> Router {
        self.bypass_local = true;
        self
    }

    /// Sends at most as many ICMP errors as Linux does by default: to one peer six at once and then one a second, to all of them fifty and then a thousand a second. What tells of a path's MTU
    /// is always sent.
    #[must_use]
    pub fn with_icmp_ratelimit(mut self, secret: (u64, u64)) -> Router {
        self.icmp_limiter = Some(IcmpRateLimiter::new(secret));
        self
    }

    /// Takes a buffer back that [`Router::handle`] has given out, so that no packet needs a new one.
    pub fn recycle_buffer(&mut self, buffer: Vec<u8>) {
        if self.spare_buffers.len() < MAX_SPARE_BUFFERS {
            self.spare_buffers.push(buffer);
        }
    }

    fn copy_to_buffer(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare_buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// The table.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// For what services do: they, the table they translate in, and the machine.
    pub(crate) fn services_engine_fib(&mut self) -> (&mut Services, &mut Engine, &FibTable) {
        (&mut self.services, &mut self.engine, &self.fib)
    }

    /// The ruleset at work.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Exchanges the ruleset; connections live on.
    pub fn replace_program(&mut self, program: Program) {
        // What was handed out was so by the old rules.
        self.engine.revoke_all();
        self.program = program;
        self.program.set_wall_clock_offset(self.wall_offset);
    }

    /// Tells rules that ask for hours, days or dates the clock on the wall: what has to be added to the engine's time, in nanoseconds, to give those since 1970
    /// in the machine's own zone. Until it is told, the engine's time is taken for it.
    pub fn set_wall_offset(&mut self, wall: i64) {
        self.wall_offset = wall;
        self.program.set_wall_clock_offset(wall);
    }

    /// Devices and routes.
    pub fn fib(&self) -> &FibTable {
        &self.fib
    }

    /// Exchanges devices and routes.
    pub fn replace_fib(&mut self, map: FibTable) {
        self.fib = map;
    }

    /// Takes no new connections from now on, or takes them again; those that are there live on, and what they announced may come.
    pub fn set_draining(&mut self, closed: bool) {
        self.draining = closed;
    }

    /// Are no new connections taken?
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// What went through so far.
    pub fn counters(&self) -> &RouterCounters {
        &self.counters
    }

    /// Handshakes answered in servers' names so far.
    pub fn synproxy_stats(&self) -> &SynproxyStats {
        &self.syn_cookies.stats
    }

    /// A line for the log: its level by syslog's number, and its text.
    pub fn poll_log(&mut self) -> Option<(u8, String)> {
        if self.log_lines.is_empty() { None } else { Some(self.log_lines.remove(0)) }
    }

    /// Takes a datagram that came in by the device of index `iif`, and puts what leaves into `out`.
    ///
    /// # Errors
    /// Why it went no further. What is to be answered is in `out` then.
    pub fn handle(&mut self, bytes: &[u8], iif: u32, now: Instant, out: &mut Vec<Egress>) -> Result<(), DropReason> {
        let bytes = self.copy_to_buffer(bytes);
        self.receive(bytes, None, iif, now, out).map_err(|(loss, bytes)| {
            self.recycle_buffer(bytes);
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
        out: &mut Vec<Egress>,
    ) -> Result<(), DropReason> {
        let taken = std::mem::take(bytes);
        self.receive(taken, None, iif, now, out).map_err(|(loss, taken)| {
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
    pub fn handle_gso(
        &mut self,
        bytes: &mut Vec<u8>,
        longest: usize,
        iif: u32,
        now: Instant,
        out: &mut Vec<Egress>,
    ) -> Result<(), DropReason> {
        let taken = std::mem::take(bytes);
        self.receive(taken, Some(longest), iif, now, out).map_err(|(loss, taken)| {
            *bytes = taken;
            loss
        })
    }

    fn receive(
        &mut self,
        bytes: Vec<u8>,
        longest: Option<usize>,
        iif: u32,
        now: Instant,
        out: &mut Vec<Egress>,
    ) -> Result<(), (DropReason, Vec<u8>)> {
        self.counters.received += 1;
        let way = PacketMeta { iif: self.fib.device(iif), ..PacketMeta::default() };
        let sent = self.copy_to_buffer(&[]);
        let mut trip = InFlightPacket {
            bytes,
            pre_nat: sent,
            meta: way,
            gso_packet_len: longest,
            now,
            ..InFlightPacket::default()
        };
        let result = self.process_packet(&mut trip, out);
        self.log_lines.append(&mut trip.meta.log_lines);
        self.recycle_buffer(trip.pre_nat);
        self.counters.dropped += u64::from(result.is_err());
        result.map_err(|loss| (loss, trip.bytes))
    }
}

fn drop_reason_of(outcome: &Outcome) -> DropReason {
    outcome.reason.map_or(DropReason::RulesetDrop, DropReason::Conntrack)
}

fn destination_of(bytes: &[u8]) -> Result<IpAddr, DropReason> {
    Packet::parse(bytes).map(|packet| destination_address(&packet)).map_err(|_| DropReason::Malformed)
}
