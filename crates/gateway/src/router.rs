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
use keepstate_engine::{Edits, Engine, Instant, Manip, Outcome, Passage, Verdict, Why};
use keepstate_rules::tree::{Hook, Reject};
use keepstate_rules::{Change, Fate, Ground, Program, Scene, Way};
use keepstate_wire::edit::Rewrite;
use keepstate_wire::reassembly::{Limits, Reassembler, Reassembly};
use keepstate_wire::{Addresses, Packet};
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
}

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
struct Trip {
    bytes: Vec<u8>,
    /// As it was before it was translated: what its sender must be told about.
    sent: Vec<u8>,
    way: Way,
    passage: Option<Passage>,
    now: Instant,
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
        }
    }

    /// The table.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The ruleset at work.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Exchanges the ruleset; connections live on.
    pub fn reload(&mut self, program: Program) {
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

    /// What went through so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
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
        self.counters.received += 1;
        let way = Way { iif: self.map.device(iif), ..Way::default() };
        let mut trip = Trip { bytes: bytes.to_vec(), sent: Vec::new(), way, passage: None, now };
        let result = self.pass(&mut trip, out);
        self.lines.append(&mut trip.way.lines);
        self.counters.lost += u64::from(result.is_err());
        result
    }

    fn pass(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.make_whole(trip)?;
        self.prerouting(trip, out)?;
        let to = destination(&trip.bytes)?;
        match self.map.address_type(to, None) {
            keepstate_rules::AddressType::Local => self.input(trip, out),
            keepstate_rules::AddressType::Multicast | keepstate_rules::AddressType::Broadcast => self.input(trip, out),
            _ => self.forward(trip, to, out),
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
            // Padding of the link is not part of it.
            trip.bytes.truncate(length);
            return Ok(());
        }
        let mut whole = Vec::new();
        match self.fragments.push(&packet, trip.now.0, &mut whole) {
            Ok(Reassembly::Whole) => {
                trip.bytes = whole;
                Ok(())
            }
            _ => Err(Loss::Fragment),
        }
    }

    fn prerouting(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.filter(Hook::Prerouting, RAW, trip, out)?;
        let packet = Packet::parse(&trip.bytes).map_err(|_| Loss::Malformed)?;
        if !trip.way.untracked {
            let passage = self.engine.track(&packet, trip.way.zone, trip.now);
            let outcome = passage.outcome();
            trip.passage = Some(passage);
            if outcome.verdict == Verdict::Drop {
                return Err(lost(&outcome));
            }
        }
        self.filter(Hook::Prerouting, MANGLE, trip, out)?;
        trip.sent.clone_from(&trip.bytes);
        self.translate(Hook::Prerouting, Manip::Destination, trip, out)?;
        self.filter(Hook::Prerouting, BEHIND, trip, out)
    }

    fn input(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.filter(Hook::Input, BEFORE, trip, out)?;
        self.translate(Hook::Input, Manip::Source, trip, out)?;
        self.filter(Hook::Input, AFTER, trip, out)?;
        self.confirm(trip)?;
        self.counters.delivered += 1;
        out.push(Out::Host(std::mem::take(&mut trip.bytes)));
        Ok(())
    }

    fn forward(&mut self, trip: &mut Trip, to: IpAddr, out: &mut Vec<Out>) -> Result<(), Loss> {
        let v6 = to.is_ipv6();
        let hops = Packet::parse(&trip.bytes).map_err(|_| Loss::Malformed)?.hop_limit();
        if hops <= 1 {
            let (kind, code) = if v6 { (3, 0) } else { (11, 0) };
            self.tell(trip, kind, code, 0, out);
            return Err(Loss::HopLimit);
        }
        let Some(device) = self.map.route(to, None) else {
            let (kind, code) = if v6 { (1, 0) } else { (3, 0) };
            self.tell(trip, kind, code, 0, out);
            return Err(Loss::NoRoute);
        };
        trip.way.oif = Some(device);
        self.fits(trip, v6, out)?;
        for bytes in [&mut trip.bytes, &mut trip.sent] {
            let mut rewrite = Rewrite::new(bytes).map_err(|_| Loss::Malformed)?;
            rewrite.hop_limit(hops - 1);
        }
        self.filter(Hook::Forward, ALL, trip, out)?;
        self.filter(Hook::Postrouting, BEFORE, trip, out)?;
        self.translate(Hook::Postrouting, Manip::Source, trip, out)?;
        self.filter(Hook::Postrouting, AFTER, trip, out)?;
        self.confirm(trip)?;
        self.counters.forwarded += 1;
        let pieces = fragment::cut(std::mem::take(&mut trip.bytes), self.cut_at(device.index, v6));
        out.extend(pieces.into_iter().map(|piece| Out::Device(device.index, to, piece)));
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
        if trip.bytes.len() <= mtu as usize || !dont_cut {
            return Ok(());
        }
        let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
        self.tell(trip, kind, code, mtu, out);
        Err(Loss::TooBig)
    }

    /// The filtering chains of a hook, and what they want changed.
    fn filter(&mut self, hook: Hook, priorities: Range<i32>, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        let packet = Packet::parse(&trip.bytes).map_err(|_| Loss::Malformed)?;
        let Trip { way, passage, now, .. } = trip;
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
        let packet = Packet::parse(&trip.bytes).map_err(|_| Loss::Malformed)?;
        let Trip { way, passage, now, .. } = trip;
        let Some(passage) = passage.as_mut() else { return Ok(()) };
        let mut scene = Scene {
            engine: &mut self.engine,
            passage: Some(passage),
            packet: &packet,
            way,
            ground: &self.map,
            now: *now,
        };
        let fate = self.program.translate(hook, &mut scene);
        self.obey(fate, trip, out)?;
        let edits = trip.passage.as_ref().map_or(Edits::NONE, |passage| self.engine.edits(passage, manip));
        if edits.apply(&mut trip.bytes) { Ok(()) } else { Err(Loss::Untranslatable) }
    }

    fn obey(&mut self, fate: Fate, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        match fate {
            Fate::Accept => Ok(()),
            Fate::Drop => Err(Loss::Dropped),
            Fate::Reject(reject) => {
                self.reject(reject, trip, out);
                Err(Loss::Rejected)
            }
        }
    }

    fn reject(&mut self, reject: Reject, trip: &Trip, out: &mut Vec<Out>) {
        let Ok(to) = destination(&trip.bytes) else { return };
        if !Packet::parse(&trip.bytes).is_ok_and(|packet| answer::is_sound(&packet)) {
            return;
        }
        match reject.icmp(to.is_ipv6()) {
            Some((kind, code)) => self.tell(trip, kind, code, 0, out),
            None => {
                let sent = if trip.sent.is_empty() { &trip.bytes } else { &trip.sent };
                let answer = Packet::parse(sent).ok().and_then(|packet| answer::reset(&packet));
                answer.into_iter().for_each(|answer| self.send(answer, trip, out));
            }
        }
    }

    /// Tells the sender what became of its packet: about the packet as it was sent, not as we have translated it.
    fn tell(&mut self, trip: &Trip, kind: u8, code: u8, word: u32, out: &mut Vec<Out>) {
        let sent = if trip.sent.is_empty() { &trip.bytes } else { &trip.sent };
        let Ok(packet) = Packet::parse(sent) else { return };
        let to = match packet.addresses() {
            Addresses::V4 { source, .. } => IpAddr::from(source),
            Addresses::V6 { source, .. } => IpAddr::from(source),
        };
        // About a translated destination we speak as that destination: nobody is to learn what stands behind it.
        let asked = destination(sent).ok().filter(|asked| destination(&trip.bytes).is_ok_and(|now| now != *asked));
        let asked = asked.or_else(|| destination(sent).ok().filter(|asked| self.map.is_local(*asked)));
        let us = asked.or_else(|| self.map.route(to, None).and_then(|device| self.map.address(device.index, to)));
        let answer = us.and_then(|us| answer::icmp(&packet, us, kind, code, word));
        answer.into_iter().for_each(|answer| self.send(answer, trip, out));
    }

    /// Sends an answer of our own about a packet. It belongs to the packet's connection, if that has one; else it is tracked like anything that leaves.
    fn send(&mut self, answer: Vec<u8>, about: &Trip, out: &mut Vec<Out>) {
        let passage = about.passage.as_ref().filter(|passage| passage.direction().is_some()).map(Passage::answer);
        let attached = passage.is_some();
        let way = Way::default();
        let mut trip = Trip { sent: answer.clone(), bytes: answer, way, passage, now: about.now };
        // What an answer to an answer would be, nobody is told.
        let mut nobody = Vec::new();
        if self.output(&mut trip, attached, &mut nobody).is_ok()
            && let (Some(device), Ok(to)) = (trip.way.oif, destination(&trip.bytes))
        {
            self.counters.answered += 1;
            out.push(Out::Device(device.index, to, trip.bytes));
        }
        self.lines.append(&mut trip.way.lines);
    }

    /// The way of our own packets. `attached` ones were made from what their connection's packet was before it was translated, so that nothing is to be
    /// changed in them.
    fn output(&mut self, trip: &mut Trip, attached: bool, out: &mut Vec<Out>) -> Result<(), Loss> {
        trip.way.oif = self.map.route(destination(&trip.bytes)?, None);
        self.filter(Hook::Output, RAW, trip, out)?;
        if !attached && !trip.way.untracked {
            let packet = Packet::parse(&trip.bytes).map_err(|_| Loss::Malformed)?;
            let passage = self.engine.track(&packet, trip.way.zone, trip.now);
            let outcome = passage.outcome();
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
        if outcome.verdict == Verdict::Drop { Err(lost(&outcome)) } else { Ok(()) }
    }

    /// Changes of the header that rules have asked for.
    fn change(&self, trip: &mut Trip) -> Result<(), Loss> {
        if trip.way.changes.is_empty() {
            return Ok(());
        }
        let mtu = trip.way.oif.map_or(u32::MAX, |device| self.map.mtu(device.index));
        let mut rewrite = Rewrite::new(&mut trip.bytes).map_err(|_| Loss::Malformed)?;
        for change in trip.way.changes.drain(..) {
            match change {
                Change::Dscp(class) => rewrite.dscp(class),
                Change::Ttl(hops) => rewrite.hop_limit(hops),
                Change::MaxSegment(0) => {
                    let headers = if rewrite.bytes().first().is_some_and(|first| first >> 4 == 6) { 60 } else { 40 };
                    rewrite.max_segment(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX));
                }
                Change::MaxSegment(most) => {
                    rewrite.max_segment(most);
                }
            }
        }
        Ok(())
    }
}

fn lost(outcome: &Outcome) -> Loss {
    outcome.why.map_or(Loss::Dropped, Loss::Tracking)
}

fn destination(bytes: &[u8]) -> Result<IpAddr, Loss> {
    let packet = Packet::parse(bytes).map_err(|_| Loss::Malformed)?;
    Ok(match packet.addresses() {
        Addresses::V4 { destination, .. } => IpAddr::from(destination),
        Addresses::V6 { destination, .. } => IpAddr::from(destination),
    })
}
