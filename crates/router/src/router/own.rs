//! Packets of the router's own: what it answers, and the way they take.
//!
//! An answer to a packet with a connection belongs to that connection, and is made from the packet as it was sent; any other is tracked, filtered and translated like anything that
//! leaves a machine. Nobody is told what became of an answer.
use super::{AFTER, BEFORE, BEHIND, Loss, MANGLE, Out, RAW, Router, Trip, destination, end, lost};
use crate::answer;
use keepstate_engine::{Instant, Manip, Passage, Promise, Verdict};
use keepstate_rules::tree::{Hook, Reject};
use keepstate_rules::{Ground, Way};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

impl Router {
    pub(super) fn reject(&mut self, reject: Reject, trip: &Trip, out: &mut Vec<Out>) {
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
    pub(super) fn tell(&mut self, trip: &Trip, kind: u8, code: u8, word: u32, out: &mut Vec<Out>) {
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

    /// Tells the sender of a datagram that had left here that its next neighbour does not answer.
    pub fn unreachable(&mut self, bytes: &[u8], now: Instant, out: &mut Vec<Out>) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let (from, kind, code) = match packet.addresses() {
            Addresses::V4 { source, .. } => (IpAddr::from(source), 3, 1),
            Addresses::V6 { source, .. } => (IpAddr::from(source), 1, 3),
        };
        // To its sender as the world sees him, who may be ourselves; the answer is translated as any other.
        let us = match self.map.is_local(from) {
            true => Some(from),
            false => self.map.route(from, None).and_then(|device| self.map.address(device.index, from)),
        };
        let Some(answer) = us.and_then(|us| answer::icmp(&packet, us, kind, code, 0)) else { return };
        if self.pace.as_mut().is_none_or(|pace| pace.allows(from, now)) {
            self.emit(answer, None, None, now, out);
        }
    }

    /// Sends an answer of our own about a packet. It belongs to the packet's connection, if that has one; else it is tracked like anything that leaves.
    pub(crate) fn send(&mut self, answer: Vec<u8>, about: &Trip, out: &mut Vec<Out>) {
        // Nothing is said to ourselves, nor to who has no address beyond his link: which link that was, an address does not say.
        let speaks = |to: IpAddr| !self.map.is_local(to) && !is_of_link(to);
        if !destination(&answer).is_ok_and(speaks) {
            return;
        }
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
        let mut trip = Trip { bytes, way, passage, promise, now, ..Trip::default() };
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
}

/// Does it mean something on its link alone?
pub(super) fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
