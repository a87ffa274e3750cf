//! One datagram's way through the router.
//!
//! ```text
//! in ─▶ prerouting: raw ▶ track ▶ mangle ▶ destination translated ▶ filter
//!    ─▶ ours? ── yes ▶ input ▶ confirm ▶ to the machine
//!             └─ no ─▶ hops left? ▶ route? ▶ forward ▶ fits the way out? ▶ postrouting ▶ source translated ▶ confirm ─▶ out
//! ```
//! What is dropped on the way leaves nothing behind; what is refused is answered, and the answer takes the way of our own packets. The router has no
//! clock and no devices; it lives as long as its driver, and its ruleset can be exchanged between two packets.
use crate::answer;
use crate::fragment;
use crate::map::Map;
use crate::pace::Pace;
use crate::service::{Asked, Pick, Said, Services};
use crate::synproxy::{Handshakes, Promiser};
use keepstate_engine::{Direction, Edits, Engine, Info, Instant, Manip, Outcome, Passage, Promise, Verdict, Why};
use keepstate_rules::tree::{End, Hook, Reject};
use keepstate_rules::{Change, Fate, Ground, Program, Scene, Way};
use keepstate_wire::edit::Rewrite;
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
use keepstate_wire::{Addresses, Layout, Packet};
use std::net::IpAddr;
use std::ops::Range;

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

/// Why a datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It is no datagram that can be read.
    Malformed,
    /// A fragment of something that is not whole yet, or never will be.
    Fragment,
    /// The rules dropped it.
    Dropped,
    /// The rules refused it.
    Rejected,
    /// Tracking dropped it: the table is full, or its tuple is taken.
    Tracking(Why),
    /// Its hops were used up.
    HopLimit,
    /// There is no route.
    NoRoute,
    /// It does not fit its way out, and may not be cut.
    TooBig,
    /// It cannot be translated.
    Untranslatable,
    /// Its service has no backend for it, or has reset its connection.
    NoBackend,
    /// It would begin a connection, and none are taken.
    Closed,
    /// It was answered in its server's name.
    Proxied,
    /// It acknowledges what nobody has promised.
    Unpromised,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Loss::Malformed => "malformed",
            Loss::Fragment => "waits for its other fragments",
            Loss::Dropped => "dropped by the rules",
            Loss::Rejected => "rejected by the rules",
            Loss::Tracking(why) => return write!(f, "dropped by tracking: {}", why.name()),
            Loss::HopLimit => "its hops are used up",
            Loss::NoRoute => "no route",
            Loss::TooBig => "too big for its way out",
            Loss::Untranslatable => "cannot be translated",
            Loss::NoBackend => "its service has no backend for it",
            Loss::Closed => "no new connections are taken",
            Loss::Proxied => "answered by synproxy",
            Loss::Unpromised => "acknowledges what synproxy has not promised",
        })
    }
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

/// One datagram on its way.
pub(crate) struct Trip {
    pub(crate) bytes: Vec<u8>,
    /// Where its parts stand, while that is known.
    layout: Option<Layout>,
    /// As it was before it was translated, if it was: what its sender must be told about.
    sent: Vec<u8>,
    way: Way,
    pub(crate) passage: Option<Passage>,
    /// What was promised to the client in whose name it is.
    promise: Option<Promise>,
    /// The longest datagram of those it stands for, if it stands for several.
    longest: Option<usize>,
    /// The backend its connection was sent to, while that is not confirmed.
    pick: Option<Pick>,
    pub(crate) now: Instant,
}

impl Trip {
    /// The datagram as it is now.
    #[inline]
    pub(crate) fn packet(&self) -> Result<Packet<'_>, Loss> {
        view(&self.bytes, self.layout)
    }

    /// The datagram, to be changed.
    #[inline]
    fn rewrite(&mut self) -> Result<Rewrite<'_>, Loss> {
        match self.layout {
            Some(layout) if layout.of(&self.bytes).is_some() => {
                Rewrite::with(&mut self.bytes, layout).ok_or(Loss::Malformed)
            }
            _ => Rewrite::new(&mut self.bytes).map_err(|_| Loss::Malformed),
        }
    }

    /// The datagram as it was sent.
    fn sent(&self) -> Option<Packet<'_>> {
        let sent = if self.sent.is_empty() { &self.bytes } else { &self.sent };
        let packet = Packet::parse(sent).ok()?;
        Some(if self.longest.is_some() { packet.vouched() } else { packet })
    }

    #[inline]
    fn destination(&self) -> Result<IpAddr, Loss> {
        Ok(end(&self.packet()?))
    }
}

impl Router {
    /// A router with an empty table.
    pub fn new(engine: Engine, program: Program, map: Map, secret: (u64, u64)) -> Router {
        Router {
            engine,
            program,
            map,
            fragments: Reassembler::new(secret, Limits::default()),
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
        let mut trip = Trip { bytes, layout: None, sent, way, passage: None, promise: None, longest, pick: None, now };
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
            Ok(Reassembly::Whole) => {
                let piece = std::mem::replace(&mut trip.bytes, whole);
                self.recycle(piece);
                trip.layout = Packet::parse(&trip.bytes).ok().and_then(|packet| packet.layout());
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
        let (whole, most) = (std::mem::take(&mut trip.bytes), self.cut_at(device.index, v6));
        if trip.longest.unwrap_or(whole.len()) <= most {
            out.push(Out::Device(device.index, neighbour, whole));
        } else {
            let pieces = fragment::cut(whole, most).into_iter();
            out.extend(pieces.map(|piece| Out::Device(device.index, neighbour, piece)));
        }
        Ok(())
    }

    /// Where a datagram is cut; IPv6's are not, they were told.
    fn cut_at(&self, device: u32, v6: bool) -> usize {
        if v6 { usize::MAX } else { self.map.mtu(device) as usize }
    }

    /// What is too large for its way out is not cut but told, where that may be.
    fn fits(&mut self, trip: &mut Trip, v6: bool, out: &mut Vec<Out>) -> Result<(), Loss> {
        let Some(device) = trip.way.oif else { return Ok(()) };
        let mtu = self.map.mtu(device.index);
        let dont_cut = v6 || trip.bytes.get(6).is_some_and(|flags| flags & 0x40 != 0);
        if trip.longest.unwrap_or(trip.bytes.len()) <= mtu as usize {
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

    fn reject(&mut self, reject: Reject, trip: &Trip, out: &mut Vec<Out>) {
        let Ok(packet) = trip.packet() else { return };
        let to = end(&packet);
        if !answer::is_sound(&packet) {
            return;
        }
        match reject.icmp(to.is_ipv6()) {
            Some((kind, code)) => self.tell(trip, kind, code, 0, out),
            None => {
                let answer = trip.sent().and_then(|packet| answer::reset(&packet));
                answer.into_iter().for_each(|answer| self.send(answer, trip, out));
            }
        }
    }

    /// Tells the sender what became of its packet: about the packet as it was sent, not as we have translated it.
    fn tell(&mut self, trip: &Trip, kind: u8, code: u8, word: u32, out: &mut Vec<Out>) {
        let Some(packet) = trip.sent() else { return };
        let sent = packet.bytes();
        let to = match packet.addresses() {
            Addresses::V4 { source, .. } => IpAddr::from(source),
            Addresses::V6 { source, .. } => IpAddr::from(source),
        };
        // About a translated destination we speak as that destination: nobody is to learn what stands behind it.
        let asked = destination(sent).ok().filter(|asked| destination(&trip.bytes).is_ok_and(|now| now != *asked));
        let asked = asked.or_else(|| destination(sent).ok().filter(|asked| self.map.is_local(*asked)));
        let us = asked.or_else(|| self.map.route(to, None).and_then(|device| self.map.address(device.index, to)));
        let Some(answer) = us.and_then(|us| answer::icmp(&packet, us, kind, code, word)) else { return };
        // Who is not told of a path's MTU never gets through.
        let always = if to.is_ipv6() { kind == 2 } else { (kind, code) == (3, 4) };
        if always || self.pace.as_mut().is_none_or(|pace| pace.allows(to, trip.now)) {
            self.send(answer, trip, out);
        }
    }

    /// Sends an answer of our own about a packet. It belongs to the packet's connection, if that has one; else it is tracked like anything that leaves.
    pub(crate) fn send(&mut self, answer: Vec<u8>, about: &Trip, out: &mut Vec<Out>) {
        let passage = about.passage.as_ref().filter(|passage| passage.direction().is_some()).map(Passage::answer);
        self.emit(answer, passage, None, about.now, out);
    }

    /// Sends a packet of our own. With a passage it belongs to that connection, and is as its other end is to see it; else it is tracked like anything that leaves, and a connection that it
    /// begins keeps the promise.
    pub(crate) fn emit(
        &mut self,
        bytes: Vec<u8>,
        passage: Option<Passage>,
        promise: Option<Promise>,
        now: Instant,
        out: &mut Vec<Out>,
    ) {
        let attached = passage.is_some();
        let way = Way::default();
        let mut trip =
            Trip { sent: Vec::new(), bytes, layout: None, way, passage, promise, longest: None, pick: None, now };
        // What an answer to an answer would be, nobody is told.
        let mut nobody = Vec::new();
        if self.output(&mut trip, attached, &mut nobody).is_ok()
            && let Ok(to) = destination(&trip.bytes)
            && let Some((device, neighbour)) = self.map.way(to)
        {
            self.counters.answered += 1;
            out.push(Out::Device(device.index, neighbour, trip.bytes));
        }
        self.lines.append(&mut trip.way.lines);
    }

    /// The way of our own packets. `attached` ones were made from what their connection's packet was before it was translated, so that nothing is to be
    /// changed in them.
    fn output(&mut self, trip: &mut Trip, attached: bool, out: &mut Vec<Out>) -> Result<(), Loss> {
        trip.way.oif = self.map.route(destination(&trip.bytes)?, None);
        self.filter(Hook::Output, RAW, trip, out)?;
        if !attached && !trip.way.untracked {
            let packet = trip.packet()?;
            let mut passage = self.engine.track(&packet, trip.way.zone, trip.now);
            let outcome = passage.outcome();
            trip.promise.into_iter().for_each(|promise| self.engine.promise(&mut passage, promise));
            trip.passage = Some(passage);
            if outcome.verdict == Verdict::Drop {
                return Err(lost(&outcome));
            }
        }
        self.filter(Hook::Output, MANGLE, trip, out)?;
        if !attached {
            self.translate(Hook::Output, Manip::Destination, trip, out)?;
        }
        self.filter(Hook::Output, BEHIND, trip, out)?;
        trip.way.oif = Some(self.map.route(destination(&trip.bytes)?, None).ok_or(Loss::NoRoute)?);
        self.filter(Hook::Postrouting, BEFORE, trip, out)?;
        if !attached {
            self.translate(Hook::Postrouting, Manip::Source, trip, out)?;
        }
        self.filter(Hook::Postrouting, AFTER, trip, out)?;
        self.confirm(trip)
    }

    fn confirm(&mut self, trip: &mut Trip) -> Result<(), Loss> {
        let Some(passage) = trip.passage.take() else { return Ok(()) };
        let outcome = self.engine.confirm_datagram(passage, &mut trip.bytes, trip.now);
        if let (Some(pick), Some(handle)) = (trip.pick.take(), outcome.connection) {
            self.services.enter(&pick, handle, trip.now);
        }
        if outcome.verdict == Verdict::Drop { Err(lost(&outcome)) } else { Ok(()) }
    }

    /// Changes of the header that rules have asked for.
    fn change(&self, trip: &mut Trip) -> Result<(), Loss> {
        if trip.way.changes.is_empty() {
            return Ok(());
        }
        let mtu = trip.way.oif.map_or(u32::MAX, |device| self.map.mtu(device.index));
        let changes = std::mem::take(&mut trip.way.changes);
        let mut rewrite = trip.rewrite()?;
        for change in changes {
            match change {
                Change::Dscp(class) => rewrite.dscp(class),
                Change::Ttl(hops) => rewrite.hop_limit(hops),
                Change::MaxSegment(0) => {
                    let headers = if rewrite.bytes().first().is_some_and(|first| first >> 4 == 6) { 60 } else { 40 };
                    rewrite.max_segment(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX));
                }
                Change::Address(End::Source, address) => {
                    rewrite.source(address);
                }
                Change::Address(End::Destination, address) => {
                    rewrite.destination(address);
                }
                Change::Port(End::Source, port) => {
                    rewrite.source_port(port);
                }
                Change::Port(End::Destination, port) => {
                    rewrite.destination_port(port);
                }
                Change::MaxSegment(most) => {
                    rewrite.max_segment(most);
                }
            }
        }
        Ok(())
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

/// Where a packet goes.
fn end(packet: &Packet<'_>) -> IpAddr {
    match packet.addresses() {
        Addresses::V4 { destination, .. } => IpAddr::from(destination),
        Addresses::V6 { destination, .. } => IpAddr::from(destination),
    }
}

fn view(bytes: &[u8], layout: Option<Layout>) -> Result<Packet<'_>, Loss> {
    match layout.and_then(|layout| layout.of(bytes)) {
        Some(packet) => Ok(packet),
        None => Packet::parse(bytes).map_err(|_| Loss::Malformed),
    }
}
