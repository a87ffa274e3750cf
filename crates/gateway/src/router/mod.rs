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
mod loss;
mod own;
mod trip;

pub use loss::Loss;
pub(crate) use trip::Trip;

use crate::fragment::{self, Numbers};
use crate::map::Map;
use crate::pace::Pace;
use crate::service::{Asked, Said, Services};
use crate::synproxy::{Handshakes, Promiser};
use keepstate_engine::{Direction, Edits, Engine, Info, Instant, Manip, Outcome, Passage, Verdict};
use keepstate_rules::tree::{Hook, Reject};
use keepstate_rules::{Fate, Ground, Program, Scene, Way};
use keepstate_wire::Packet;
use keepstate_wire::edit::Rewrite;
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
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

    fn pass(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.make_whole(trip)?;
        self.prerouting(trip, out)?;
        let to = trip.destination()?;
        // To us, or to several hosts: those are not forwarded.
        if self.map.is_local(to) || to.is_multicast() || self.map.is_broadcast(to) {
            self.input(trip, out)
        } else {
            self.forward(trip, to, out)
        }
    }

    /// Tracking and rules see whole datagrams only.
    fn make_whole(&mut self, trip: &mut Trip) -> Result<(), Loss> {
        let packet = match Packet::parse(&trip.bytes) {
            Ok(packet) => packet,
            Err(refusal) => {
                self.engine.refuse(refusal);
                return Err(Loss::Malformed);
            }
        };
        if packet.fragment().is_none() {
            let length = packet.bytes().len();
            trip.layout = if trip.longest.is_some() { packet.vouched().layout() } else { packet.layout() };
            // Padding of the link is not part of it.
            trip.bytes.truncate(length);
            return Ok(());
        }
        let mut whole = Vec::new();
        match self.fragments.push(&packet, trip.now.0, &mut whole) {
            Ok(Reassembly::Whole(pieces)) => {
                let piece = std::mem::replace(&mut trip.bytes, whole);
                self.recycle(piece);
                trip.layout = Packet::parse_reassembled(&trip.bytes).ok().and_then(|packet| packet.layout());
                trip.pieces = Some(pieces);
                Ok(())
            }
            _ => Err(Loss::Fragment),
        }
    }

    fn prerouting(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.filter(Hook::Prerouting, RAW, trip, out)?;
        if !trip.way.untracked {
            let packet = trip.packet()?;
            let passage = self.engine.track(&packet, trip.way.zone, trip.now);
            let outcome = passage.outcome();
            if outcome.verdict == Verdict::Drop {
                // A full table is no reason to cut the machine's own connections, which do not stand in it.
                let is_hosts = self.host_apart && !begins(&packet) && self.map.is_local(trip.destination()?);
                return if is_hosts { Ok(()) } else { Err(lost(&outcome)) };
            }
            trip.passage = Some(passage);
        }
        if self.host_apart && self.map.is_local(trip.destination()?) && !is_known(trip) {
            // Whether it is for the machine is decided before any rule may drop it for being unknown: the machine's connections are not known here.
            self.translate(Hook::Prerouting, Manip::Destination, trip, out)?;
            if self.map.is_local(trip.destination()?) {
                trip.passage = None;
                return Ok(());
            }
            self.filter(Hook::Prerouting, MANGLE, trip, out)?;
        } else {
            self.filter(Hook::Prerouting, MANGLE, trip, out)?;
            self.translate(Hook::Prerouting, Manip::Destination, trip, out)?;
        }
        self.filter(Hook::Prerouting, BEHIND, trip, out)?;
        let begins = |passage: &mut Passage| passage.info() == Info::New && passage.unconfirmed().is_some();
        if self.closed && trip.passage.as_mut().is_some_and(begins) { Err(Loss::Closed) } else { Ok(()) }
    }

    fn input(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        if self.host_apart && !is_known(trip) {
            self.counters.delivered += 1;
            out.push(Out::Host(std::mem::take(&mut trip.bytes)));
            return Ok(());
        }
        self.filter(Hook::Input, BEFORE, trip, out)?;
        self.translate(Hook::Input, Manip::Source, trip, out)?;
        self.filter(Hook::Input, AFTER, trip, out)?;
        self.splice(trip, out)?;
        self.confirm(trip)?;
        self.counters.delivered += 1;
        out.push(Out::Host(std::mem::take(&mut trip.bytes)));
        Ok(())
    }

    fn forward(&mut self, trip: &mut Trip, to: IpAddr, out: &mut Vec<Out>) -> Result<(), Loss> {
        let v6 = to.is_ipv6();
        let hops = trip.packet()?.hop_limit();
        if hops <= 1 {
            let (kind, code) = if v6 { (3, 0) } else { (11, 0) };
            self.tell(trip, kind, code, 0, out);
            return Err(Loss::HopLimit);
        }
        let Some((device, neighbour)) = self.map.way(to) else {
            let (kind, code) = if v6 { (1, 0) } else { (3, 0) };
            self.tell(trip, kind, code, 0, out);
            return Err(Loss::NoRoute);
        };
        trip.way.oif = Some(device);
        self.fits(trip, v6, out)?;
        trip.rewrite()?.hop_limit(hops - 1);
        if !trip.sent.is_empty() {
            Rewrite::new(&mut trip.sent).map_err(|_| Loss::Malformed)?.hop_limit(hops - 1);
        }
        self.filter(Hook::Forward, ALL, trip, out)?;
        self.filter(Hook::Postrouting, BEFORE, trip, out)?;
        self.translate(Hook::Postrouting, Manip::Source, trip, out)?;
        self.filter(Hook::Postrouting, AFTER, trip, out)?;
        self.splice(trip, out)?;
        self.confirm(trip)?;
        self.counters.forwarded += 1;
        let (whole, mtu) = (std::mem::take(&mut trip.bytes), self.map.mtu(device.index) as usize);
        let pieces = match trip.pieces {
            // No piece leaves longer than it came, so that nobody on the way has to cut it once more.
            Some(came) if v6 && whole.len() > mtu.min(came.longest) => {
                fragment::cut_v6(whole, came.headers, mtu.min(came.longest), self.numbers.next())
            }
            Some(came) if !v6 => fragment::cut(whole, mtu.min(came.longest)),
            None if !v6 && trip.longest.unwrap_or(whole.len()) > mtu => fragment::cut(whole, mtu),
            _ => {
                out.push(Out::Device(device.index, neighbour, whole));
                return Ok(());
            }
        };
        out.extend(pieces.into_iter().map(|piece| Out::Device(device.index, neighbour, piece)));
        Ok(())
    }

    /// What is too large for its way out is not cut but told, where that may be.
    fn fits(&mut self, trip: &mut Trip, v6: bool, out: &mut Vec<Out>) -> Result<(), Loss> {
        let Some(device) = trip.way.oif else { return Ok(()) };
        let mtu = self.map.mtu(device.index);
        let dont_cut = v6 || trip.bytes.get(6).is_some_and(|flags| flags & 0x40 != 0);
        if trip.longest() <= mtu as usize {
            return Ok(());
        }
        if !dont_cut {
            return if trip.longest.is_none() { Ok(()) } else { Err(Loss::TooBig) };
        }
        let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
        self.tell(trip, kind, code, mtu, out);
        Err(Loss::TooBig)
    }

    /// The filtering chains of a hook, and what they want changed.
    fn filter(&mut self, hook: Hook, priorities: Range<i32>, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        if !self.program.filters(hook, &priorities) {
            return Ok(());
        }
        let Trip { bytes, layout, way, passage, now, .. } = trip;
        let packet = view(bytes, *layout)?;
        let mut scene = Scene {
            engine: &mut self.engine,
            passage: passage.as_mut(),
            packet: &packet,
            way,
            ground: &self.map,
            now: *now,
        };
        let fate = self.program.filter(hook, priorities, &mut scene);
        self.obey(fate, trip, out)?;
        self.change(trip)
    }

    /// The translating chains of a hook, and the change of the packet that follows from its connection.
    fn translate(&mut self, hook: Hook, manip: Manip, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        if !self.services.is_empty() {
            self.serve_one(manip, trip, out)?;
        }
        let Trip { bytes, layout, way, passage, now, .. } = trip;
        let Some(passage) = passage.as_mut() else { return Ok(()) };
        if passage.unconfirmed().is_none() {
            return self.edit(manip, trip);
        }
        let packet = view(bytes, *layout)?;
        let mut scene = Scene {
            engine: &mut self.engine,
            passage: Some(passage),
            packet: &packet,
            way,
            ground: &self.map,
            now: *now,
        };
        let fate = self.program.translate(hook, &mut scene);
        if trip.pick.is_some()
            && let Some(passage) = &mut trip.passage
        {
            // Also where the ruleset translates nothing: who asks a backend directly as well must be told apart.
            self.engine.keep(passage, manip, trip.now);
        }
        self.obey(fate, trip, out)?;
        self.edit(manip, trip)
    }

    /// The change of the packet that follows from its connection.
    fn edit(&mut self, manip: Manip, trip: &mut Trip) -> Result<(), Loss> {
        let edits = trip.passage.as_ref().map_or(Edits::NONE, |passage| self.engine.edits(passage, manip));
        if edits.is_none() {
            return Ok(());
        }
        // Behind a translated source there are seldom rules that could refuse a packet, and nobody else tells its sender anything.
        let may_tell = manip == Manip::Destination || self.program.filters(Hook::Postrouting, &AFTER);
        if may_tell && trip.sent.is_empty() {
            trip.sent.clone_from(&trip.bytes);
        }
        let changed = trip.rewrite().is_ok_and(|mut rewrite| edits.change(&mut rewrite));
        if changed { Ok(()) } else { Err(Loss::Untranslatable) }
    }

    /// Services come before the ruleset's own translations, as the chains of Docker and kube-proxy stand before others: what they decide is decided.
    fn serve_one(&mut self, manip: Manip, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        let Trip { way, passage: Some(passage), pick, now, .. } = trip else { return Ok(()) };
        let asked = Asked { engine: &mut self.engine, passage, map: &self.map, way, now: *now };
        match (manip, &pick) {
            (Manip::Source, None) => Ok(()),
            (Manip::Source, Some(pick)) => {
                let to = destination(&trip.bytes)?;
                self.services.masquerade(pick, to, asked);
                Ok(())
            }
            (Manip::Destination, _) => match self.services.send(asked) {
                Said::Nothing => Ok(()),
                Said::Sent(sent) => {
                    *pick = Some(sent);
                    Ok(())
                }
                Said::Refused => {
                    let tcp = Packet::parse(&trip.bytes).is_ok_and(|packet| packet.protocol() == 6);
                    self.reject(if tcp { Reject::Reset } else { Reject::Default }, trip, out);
                    self.end_refused(trip);
                    Err(Loss::NoBackend)
                }
            },
        }
    }

    /// A refused packet's connection is over once its client has been told.
    fn end_refused(&mut self, trip: &Trip) {
        let passage = trip.passage.as_ref().filter(|passage| passage.direction() == Some(Direction::Original));
        if let Some(handle) = passage.and_then(Passage::connection) {
            self.engine.remove(handle, trip.now);
        }
    }

    fn obey(&mut self, fate: Fate, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        match fate {
            Fate::Accept => Ok(()),
            Fate::Drop => Err(Loss::Dropped),
            Fate::Reject(reject) => {
                self.reject(reject, trip, out);
                Err(Loss::Rejected)
            }
            Fate::Synproxy(rule) => Err(self.answer_handshake(&rule, trip, out)),
        }
    }

    fn confirm(&mut self, trip: &mut Trip) -> Result<(), Loss> {
        let Some(passage) = trip.passage.take() else { return Ok(()) };
        let outcome = self.engine.confirm_datagram(passage, &mut trip.bytes, trip.now);
        if let (Some(pick), Some(handle)) = (trip.pick.take(), outcome.connection) {
            self.services.enter(&pick, handle, trip.now);
        }
        if outcome.verdict == Verdict::Drop { Err(lost(&outcome)) } else { Ok(()) }
    }
}

/// Is it the first segment of a TCP connection?
fn begins(packet: &Packet<'_>) -> bool {
    packet.protocol() == 6 && packet.transport().get(13).is_some_and(|flags| flags & 0x12 == 0x02)
}

/// Does it belong to a connection that stands in the table?
fn is_known(trip: &Trip) -> bool {
    trip.passage.as_ref().is_some_and(|passage| passage.direction().is_some() && passage.outcome().connection.is_some())
}

fn lost(outcome: &Outcome) -> Loss {
    outcome.why.map_or(Loss::Dropped, Loss::Tracking)
}

fn destination(bytes: &[u8]) -> Result<IpAddr, Loss> {
    Packet::parse(bytes).map(|packet| end(&packet)).map_err(|_| Loss::Malformed)
}
