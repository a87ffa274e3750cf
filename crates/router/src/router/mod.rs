//! The path of a packet through the router.
//!
//! ```text
//! in ─▶ prerouting: raw ▶ conntrack ▶ mangle ▶ DNAT ▶ filter
//!    ─▶ local? ── yes ▶ input ▶ confirm ▶ deliver
//!              └─ no ─▶ TTL ▶ route ▶ MTU ▶ forward ▶ postrouting ▶ SNAT ▶ confirm ─▶ out
//! ```
//! A dropped packet leaves no state behind. An ICMP error or a reset takes the path of locally generated packets (`output.rs`). The router lives as long as its
//! driver, and its ruleset can be replaced between two packets. It must never read a clock, or do IO.
mod count_api;
mod drop_reason;
mod duty;
mod egress;
mod flow_api;
mod handshake;
mod hooks;
mod interface_counts;
mod local_replies;
mod log_line;
mod masquerade;
mod output;
mod packet;
mod packet_source;
mod packet_tap;
mod pipeline;
mod prefetch;
mod program_api;
mod redirect;
mod routing;
mod service_api;
mod syn_class_api;
mod synproxy;
mod tap_api;

pub use drop_reason::DropReason;
pub use egress::{Egress, MarkedEgress, RouterCounters};
pub use interface_counts::InterfaceCounts;
pub use log_line::LogLine;
pub use packet_tap::{PacketTap, TappedPacket};

use crate::cluster_duty::DutyState;
use crate::fib::{FibTable, LOOPBACK_INDEX};
use crate::icmp_ratelimit::{IcmpLimits, IcmpRateLimiter};
use crate::icmp_redirect::RedirectLimiter;
use crate::ip_fragment::FragmentIds;
use crate::known_flow::FlowTracker;
use crate::route_oracle::RouteOracle;
use crate::service::Services;
use crate::syn_class::SynClasses;
use crate::synproxy::{SynCookies, SynproxyStats};
use drop_reason::DropCounters;
use interface_counts::InterfaceCountTable;
use keepstate_engine::{Engine, Instant, Outcome, UnixTime};
use keepstate_rules::{Program, SocketLookup};
use keepstate_wire::Packet;
use keepstate_wire::keyed_hash::SipKey;
use keepstate_wire::reassembly::{Reassembler, ReassemblyLimits};
use masquerade::MasqueradeSweep;
use packet::{InFlightPacket, destination_address, parse_packet};
use packet_tap::PacketTaps;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Before conntrack.
const BEFORE_CONNTRACK: RangeInclusive<i32> = i32::MIN..=-201;
/// After conntrack, before DNAT.
const CONNTRACK_TO_DNAT: RangeInclusive<i32> = -200..=-101;
/// After DNAT.
const AFTER_DNAT: RangeInclusive<i32> = -100..=i32::MAX;
/// Before SNAT.
const BEFORE_SNAT: RangeInclusive<i32> = i32::MIN..=99;
/// After SNAT.
const AFTER_SNAT: RangeInclusive<i32> = 100..=i32::MAX;
/// All chains of a hook.
const ALL_PRIORITIES: RangeInclusive<i32> = i32::MIN..=i32::MAX;

/// A router. See the [crate's front page](crate) for how a driver uses it.
pub struct Router {
    /// The key that every purpose's key is derived from.
    key: SipKey,
    engine: Engine,
    program: Program,
    wall_clock: WallClock,
    fib: FibTable,
    masquerade: MasqueradeSweep,
    reassembler: Reassembler,
    fragment_ids: FragmentIds,
    counters: RouterCounters,
    log: VecDeque<LogLine>,
    /// Lines that found no room in `log`: those that a line will tell of, and all.
    lost_log_lines: u64,
    log_lines_lost: u64,
    /// Packets that wait for [`Router::poll_output`].
    output: VecDeque<MarkedEgress>,
    services: Services,
    syn_cookies: SynCookies,
    /// The limit of ICMP errors, if there is one.
    icmp_limiter: Option<IcmpRateLimiter>,
    redirect_limiter: RedirectLimiter,
    /// Packets of the machine itself bypass tracking and rules.
    bypass_local: bool,
    /// Its own addresses answer.
    local_replies: bool,
    /// Buffers that are not in use.
    spare_buffers: Vec<Vec<u8>>,
    link_header: Option<[u8; 14]>,
    has_link_headers: bool,
    /// The mark of the packets handled from now on.
    packet_mark: u32,
    /// The user whose sockets send the packets handled from now on.
    socket_uid: Option<u32>,
    /// Knows the routes better than `fib`.
    route_oracle: Option<Box<dyn RouteOracle>>,
    /// Finds sockets of the machine, if it is known.
    sockets: Option<Box<dyn SocketLookup>>,
    /// New connections are refused.
    draining: bool,
    /// What it may do as one of a cluster.
    duty: DutyState,
    /// Connections for a faster data path, if there is one.
    flows: Option<FlowTracker>,
    flow_generation: u64,
    /// Classes of new connections, if the data path opens any.
    syn_classes: Option<SynClasses>,
    taps: PacketTaps,
    interface_counts: InterfaceCountTable,
    drops: DropCounters,
}

/// Where a packet comes from: the index of the interface that it came in by, or of the one that the machine itself sends it by.
enum PacketOrigin {
    Link { iif: u32 },
    Host { oif: u32 },
}

/// "router": keeps its keys apart from the engine's.
const ROUTER_KEYS: u64 = 0x726f_7574_6572;

/// Lines that wait for [`Router::poll_log`]; others are counted.
const MAX_LOG_LINES: usize = 16_384;

/// What a key is for: each has its own, derived from the router's secret.
#[derive(Clone, Copy)]
enum KeyPurpose {
    Reassembly,
    FragmentIds,
    Services,
    SynCookies,
    IcmpLimit,
    Flows,
    Redirects,
}

/// How far the wall clock is ahead of the driver's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// Nanoseconds to add for the time since 1970, UTC.
    pub utc_offset: i64,
    /// Nanoseconds to add for local time since 1970.
    pub local_offset: i64,
}

/// Unused buffers kept, at most.
const MAX_SPARE_BUFFERS: usize = 512;
/// How often service connections are swept while there are any.
const SERVICE_SWEEP_INTERVAL: u64 = 20_000_000;

impl Router {
    /// A router with the connections of `engine`. From `secret` come the keys of fragment identifications, SYN cookies, hash tables and
    /// the random choices of services.
    pub fn new(engine: Engine, program: Program, fib: FibTable, secret: (u64, u64)) -> Router {
        // An engine of the same secret derives other keys.
        let key = SipKey::new(secret.0, secret.1).derive(ROUTER_KEYS);
        let mut router = Router {
            key,
            engine,
            program,
            wall_clock: WallClock::default(),
            fib,
            masquerade: MasqueradeSweep::default(),
            reassembler: Reassembler::new(
                key.derive(KeyPurpose::Reassembly as u64).words(),
                ReassemblyLimits::default(),
            ),
            fragment_ids: FragmentIds::new(key.derive(KeyPurpose::FragmentIds as u64)),
            counters: RouterCounters::default(),
            log: VecDeque::new(),
            lost_log_lines: 0,
            log_lines_lost: 0,
            output: VecDeque::new(),
            services: Services::new(key.derive(KeyPurpose::Services as u64)),
            syn_cookies: SynCookies::new(key.derive(KeyPurpose::SynCookies as u64)),
            icmp_limiter: None,
            redirect_limiter: RedirectLimiter::new(key.derive(KeyPurpose::Redirects as u64)),
            bypass_local: false,
            local_replies: false,
            spare_buffers: Vec::new(),
            link_header: None,
            has_link_headers: false,
            packet_mark: 0,
            socket_uid: None,
            route_oracle: None,
            sockets: None,
            draining: false,
            duty: DutyState::default(),
            flows: None,
            flow_generation: 0,
            syn_classes: None,
            taps: PacketTaps::default(),
            interface_counts: InterfaceCountTable::default(),
            drops: DropCounters::default(),
        };
        router.enable_accounting();
        router
    }

    /// Neither tracks nor filters packets for the machine itself, unless they are translated to another host. For a driver that sees packets to the machine but
    /// not those the machine sends, so that it could track only half of each connection.
    #[must_use]
    pub fn with_local_bypass(mut self) -> Router {
        self.bypass_local = true;
        self
    }

    /// Tells, by [`Router::poll_offload`], which connections a faster data path may forward by itself.
    #[must_use]
    pub fn with_flow_offload(mut self) -> Router {
        self.flows = Some(FlowTracker::new(self.key.derive(KeyPurpose::Flows as u64)));
        self
    }

    /// Limits ICMP errors as Linux does by default: six at once to a peer, then one a second; fifty at once to all peers, then a thousand a second. Errors that tell a path's MTU
    /// are not limited. Others: [`Router::set_icmp_limits`].
    #[must_use]
    pub fn with_icmp_ratelimit(mut self) -> Router {
        self.icmp_limiter = Some(IcmpRateLimiter::new(self.key.derive(KeyPurpose::IcmpLimit as u64)));
        self
    }

    /// Limits ICMP errors otherwise from now on, if they are limited at all ([`Router::with_icmp_ratelimit`]).
    pub fn set_icmp_limits(&mut self, limits: IcmpLimits) {
        if let Some(limiter) = &mut self.icmp_limiter {
            limiter.set_limits(limits);
        }
    }

    /// Sets how far the wall clock is ahead of the clock that packets go by: for rules that match hours, days or dates, and for the start times of connections.
    /// Call it often: the wall clock may be set. No timeout follows it. Without a call the driver's clock is taken for both.
    pub fn set_wall_clock(&mut self, wall_clock: WallClock) {
        self.wall_clock = wall_clock;
        self.program.set_wall_clock_offset(wall_clock.local_offset);
        self.engine.set_wall_clock_offset(wall_clock.utc_offset);
    }

    /// The wall clock's time.
    pub fn unix_time(&self, now: Instant) -> UnixTime {
        now.to_unix(self.wall_clock.utc_offset)
    }

    /// Processes a packet that came in by the interface of index `iif`; `packet` begins with its IP header. What is to be sent then waits for [`Router::poll_output`].
    ///
    /// # Errors
    /// Why the packet was dropped. An answer to it (an ICMP error, a reset) waits for [`Router::poll_output`] as well.
    pub fn handle(&mut self, packet: &[u8], iif: u32, now: Instant) -> Result<(), DropReason> {
        let mut packet = self.copy_to_buffer(packet);
        let result = self.handle_owned(&mut packet, iif, now);
        if result.is_err() {
            self.recycle_buffer(packet);
        }
        result
    }

    /// As [`Router::handle`], without a copy: the packet is taken out of `packet`, and put back if it is dropped.
    ///
    /// # Errors
    /// As [`Router::handle`].
    pub fn handle_owned(&mut self, packet: &mut Vec<u8>, iif: u32, now: Instant) -> Result<(), DropReason> {
        self.process_owned(packet, None, PacketOrigin::Link { iif }, now)
    }

    /// As [`Router::handle_owned`], for a GSO packet: many segments of one TCP stream as one, with a [partial checksum](keepstate_wire::rewrite::set_partial_checksum) that needs no check.
    /// `max_segment_len` is the length of the longest segment, as an IP packet. What leaves has a partial checksum too, and is to be cut into such segments again.
    ///
    /// # Errors
    /// As [`Router::handle`]. If it is [`DropReason::PacketTooBig`] and [`Router::output_len`] has not grown, the segments are too long for the interface and may be fragmented:
    /// cut the packet and call [`Router::handle`] with each segment.
    pub fn handle_gso(
        &mut self,
        packet: &mut Vec<u8>,
        max_segment_len: usize,
        iif: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.process_owned(packet, Some(max_segment_len), PacketOrigin::Link { iif }, now)
    }

    /// Does what is due at `now`: removes expired connections, expectations and fragments, sweeps the connections of services. It is a bounded piece of work; more may be due afterwards, and [`Router::next_wake`] is `now` then. Call it once before the first packet, at `next_wake`, and between batches of packets.
    pub fn poll(&mut self, now: Instant) {
        self.engine.poll(now);
        self.masquerade.poll(&self.fib, &mut self.engine, now);
        self.fib.sweep_routes();
        self.reassembler.poll(now.0);
        self.services.expire_connections(&self.fib, &mut self.engine, false, now);
    }

    /// When [`Router::poll`] is next due; `None` if only a packet can bring work. Each packet may bring it forward.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let fragments = self.reassembler.next_wake().map(|due| Instant(due.max(now.0)));
        let sweep = self.services.has_connections().then(|| Instant(now.0.saturating_add(SERVICE_SWEEP_INTERVAL)));
        [self.engine.next_wake(now), fragments, sweep].into_iter().flatten().min()
    }

    /// The next packet to send, in the order they are to be sent.
    pub fn poll_output(&mut self) -> Option<Egress> {
        self.output.pop_front().map(|marked| marked.egress)
    }

    /// As [`Router::poll_output`], with the packet's mark.
    pub fn poll_marked_output(&mut self) -> Option<MarkedEgress> {
        self.output.pop_front()
    }

    /// How many packets wait for [`Router::poll_output`].
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// The next line for the log: of a rule, of the engine, or of a port block.
    pub fn poll_log(&mut self) -> Option<LogLine> {
        if let Some(line) = self.log.pop_front() {
            return Some(line);
        }
        if self.lost_log_lines > 0 {
            return Some(LogLine::of_lost(std::mem::take(&mut self.lost_log_lines)));
        }
        let note = |text| LogLine { level: 6, text, is_rule: false, port_block: None };
        (self.services.pop_note().map(note))
            .or_else(|| self.engine.poll_log().map(LogLine::of_engine))
            .or_else(|| self.engine.poll_port_block().map(|event| LogLine::of_port_block(&event)))
    }

    /// Takes back a buffer that [`Router::poll_output`] has given out, to save an allocation.
    pub fn recycle_buffer(&mut self, buffer: Vec<u8>) {
        if self.spare_buffers.len() < MAX_SPARE_BUFFERS {
            self.spare_buffers.push(buffer);
        }
    }

    /// The connection table.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The connection table, to change a sysctl variable or a connection, or to read events. [`Router::poll`] polls it.
    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// While it drains, new connections are dropped; existing ones, and those they expect (RELATED), go on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Whether new connections are dropped.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Packets so far.
    pub fn counters(&self) -> &RouterCounters {
        &self.counters
    }

    /// Handshakes answered by synproxy so far.
    pub fn synproxy_stats(&self) -> &SynproxyStats {
        self.syn_cookies.stats()
    }

    /// Asks `oracle` for every packet's way. Whoever knows that routes have changed tells it by [`Router::change_fib`] nevertheless.
    #[must_use]
    pub fn with_route_oracle(mut self, oracle: Box<dyn RouteOracle>) -> Router {
        self.route_oracle = Some(oracle);
        self
    }

    /// Processes a packet, which is taken out of `packet`, and put back if it is dropped.
    fn process_owned(
        &mut self,
        packet: &mut Vec<u8>,
        gso_packet_len: Option<usize>,
        origin: PacketOrigin,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.counters.received += 1;
        let bytes = std::mem::take(packet);
        let pre_nat = self.copy_to_buffer(&[]);
        let mut pkt = InFlightPacket { bytes, pre_nat, gso_packet_len, now, ..InFlightPacket::default() };
        pkt.meta.mark = self.packet_mark;
        pkt.came_marked = self.packet_mark != 0;
        let tapped = self.note_for_taps(&mut pkt);
        let came_by = match origin {
            PacketOrigin::Link { iif } => Some(iif),
            PacketOrigin::Host { .. } => None,
        };
        let length = pkt.bytes.len();
        let result = match origin {
            PacketOrigin::Link { iif } => {
                pkt.meta.iif = self.fib.device(iif);
                pkt.meta.link_header = self.link_header;
                pkt.meta.packet_type = self.link_header.as_ref().map(packet_type_of);
                self.process_packet(&mut pkt)
            }
            PacketOrigin::Host { oif } => {
                pkt.meta.oif = self.fib.device(oif);
                pkt.meta.socket_uid = self.socket_uid;
                pkt.meta.packet_type = Some(PACKET_HOST);
                (pkt.is_output, pkt.meta.is_sent) = (true, true);
                self.process_output(&mut pkt, oif)
            }
        };
        self.interface_counts.count_received(came_by, length, result.is_err());
        if let Some(note) = tapped {
            self.tell_taps(note, &pkt, result.err());
        }
        self.recycle_buffer(pkt.pre_nat);
        if let Err(reason) = result {
            self.counters.dropped += 1;
            self.drops.count(reason);
            *packet = pkt.bytes;
        }
        result
    }

    fn copy_to_buffer(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.spare_buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Queues what rules have logged.
    pub(super) fn queue_log(&mut self, lines: &mut Vec<(u8, String)>) {
        for (level, text) in lines.drain(..) {
            if self.log.len() < MAX_LOG_LINES {
                self.log.push_back(LogLine { level, text, is_rule: true, port_block: None });
            } else {
                self.lost_log_lines += 1;
                self.log_lines_lost += 1;
            }
        }
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router")
            .field("connections", &self.engine.count())
            .field("counters", &self.counters)
            .field("draining", &self.draining)
            .field("output", &self.output.len())
            .finish_non_exhaustive()
    }
}

/// The type of a packet, as the kernel's drivers take it from the frame (`eth_type_trans`); frames for other stations do not come here.
fn packet_type_of(ethernet: &[u8; 14]) -> u8 {
    match ethernet {
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ..] => PACKET_BROADCAST,
        [first, ..] if first & 1 != 0 => PACKET_MULTICAST,
        _ => PACKET_HOST,
    }
}

const PACKET_HOST: u8 = 0;
const PACKET_BROADCAST: u8 = 1;
const PACKET_MULTICAST: u8 = 2;

fn drop_reason_of(outcome: &Outcome) -> DropReason {
    outcome.reason.map_or(DropReason::RulesetDrop, DropReason::Conntrack)
}

fn destination_of(bytes: &[u8]) -> Result<IpAddr, DropReason> {
    Packet::parse(bytes).map(|packet| destination_address(&packet)).map_err(|_| DropReason::Malformed)
}
