//! The way itself: from prerouting to the machine or to the way out.
use super::own::is_of_link;
use super::{AFTER, ALL, BEFORE, BEHIND, Loss, MANGLE, Out, RAW, Router, Trip, lost};
use crate::fragment;
use crate::options;
use keepstate_engine::{Info, Manip, Passage, Verdict};
use keepstate_rules::tree::Hook;
use keepstate_rules::{Device, Ground};
use keepstate_wire::edit::Rewrite;
use keepstate_wire::reassembly::Reassembly;
use keepstate_wire::{Addresses, Packet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Router {
    pub(super) fn pass(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        self.make_whole(trip)?;
        self.believe(trip, true)?;
        self.prerouting(trip, out)?;
        self.believe(trip, false)?;
        self.options(trip, out)?;
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

    /// Addresses that nobody else can have, and those that cannot be asked for (RFC 1812, 5.3.7): IPv6's are looked at as they came, IPv4's behind prerouting.
    fn believe(&self, trip: &Trip, came: bool) -> Result<(), Loss> {
        let believable = match trip.packet()?.addresses() {
            Addresses::V6 { source, destination } if came => {
                let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
                !(source.is_loopback() || destination.is_loopback() || source.is_multicast())
            }
            Addresses::V4 { source, destination } if !came && trip.way.iif.is_some() => {
                let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
                let of_none = |address: Ipv4Addr| address.is_unspecified() || address.is_loopback();
                // Who asks for an address of his own (DHCP) has none yet.
                let to_all = destination.is_broadcast() || source.is_unspecified() && destination.is_unspecified();
                // What is for the machine itself, it judges itself where it is apart.
                let apart = self.host_apart && self.map.is_local(destination.into());
                let of_nobody = source.is_multicast() || source.is_broadcast();
                let of_ours = self.map.is_local(source.into());
                apart || !of_nobody && (to_all || !of_none(source) && !of_none(destination)) && !of_ours
            }
            _ => true,
        };
        if believable { Ok(()) } else { Err(Loss::Martian) }
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

    /// What the sender asks of each router on the way, by IPv4's options.
    fn options(&mut self, trip: &mut Trip, out: &mut Vec<Out>) -> Result<(), Loss> {
        if trip.bytes.first().is_none_or(|first| !(0x46..=0x4f).contains(first)) {
            return Ok(());
        }
        let apart = self.host_apart && self.map.is_local(trip.destination()?);
        if apart {
            return Ok(());
        }
        let milliseconds = (trip.now.0 / 1_000_000 % 86_400_000) as u32;
        let map = &self.map;
        let read = |bytes: &mut Vec<u8>| {
            let length = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
            let header = bytes.get_mut(..length).unwrap_or_default();
            let asked = options::read(header, milliseconds, |address| {
                let address = IpAddr::from(address);
                map.is_local(address) || address.is_multicast() || map.is_broadcast(address)
            });
            options::seal(header);
            asked
        };
        let asked = read(&mut trip.bytes);
        if !trip.sent.is_empty() {
            // Whoever is told of it, is told of it as it is now.
            let _ = read(&mut trip.sent);
        }
        match asked {
            Err(place) => {
                self.tell(trip, 12, 0, u32::from(place) << 24, out);
                Err(Loss::Options)
            }
            // As Linux does unless it is told otherwise: who may choose his way passes every firewall.
            Ok(asked) if asked.routed => Err(Loss::Options),
            Ok(asked) => {
                trip.asked = asked.addresses;
                Ok(())
            }
        }
    }

    /// Fills in the router's address where the sender asks for it: the one that it has towards where the datagram goes.
    fn sign(&self, trip: &mut Trip, device: u32, neighbour: IpAddr) {
        let Some(IpAddr::V4(us)) = self.map.address(device, neighbour).filter(|_| !trip.asked.is_empty()) else {
            return;
        };
        for place in std::mem::take(&mut trip.asked) {
            if let Some(place) = trip.bytes.get_mut(place) {
                place.copy_from_slice(&us.octets());
            }
        }
        let length = trip.bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
        options::seal(trip.bytes.get_mut(..length).unwrap_or_default());
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
        // What means something on one link only is on the one that asks for it.
        let link = trip.way.iif.filter(|_| is_of_link(to)).map(|device| device.index);
        let Some((device, neighbour)) = self.map.way_by(to, link) else {
            let (kind, code) = if v6 { (1, 0) } else { (3, 0) };
            self.tell(trip, kind, code, 0, out);
            return Err(Loss::NoRoute);
        };
        if v6 {
            stays_on_its_link(trip, device)?;
        }
        trip.way.oif = Some(device);
        self.fits(trip, v6, out)?;
        trip.rewrite()?.hop_limit(hops - 1);
        if !trip.sent.is_empty() {
            Rewrite::new(&mut trip.sent).map_err(|_| Loss::Malformed)?.hop_limit(hops - 1);
        }
        self.filter(Hook::Forward, ALL, trip, out)?;
        self.sign(trip, device.index, neighbour);
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

    pub(super) fn confirm(&mut self, trip: &mut Trip) -> Result<(), Loss> {
        let Some(passage) = trip.passage.take() else { return Ok(()) };
        let outcome = self.engine.confirm_datagram(passage, &mut trip.bytes, trip.now);
        if let (Some(pick), Some(handle)) = (trip.pick.take(), outcome.connection) {
            self.services.enter(&pick, handle, trip.now);
        }
        if outcome.verdict == Verdict::Drop { Err(lost(&outcome)) } else { Ok(()) }
    }
}

/// An IPv6 datagram whose source means nothing beyond its link goes no further (RFC 4291, 2.5.6); one without a source stays on its link.
fn stays_on_its_link(trip: &Trip, out: Device) -> Result<(), Loss> {
    let Addresses::V6 { source, .. } = trip.packet()?.addresses() else { return Ok(()) };
    let source = Ipv6Addr::from(source);
    let leaves = trip.way.iif != Some(out);
    if source.is_unspecified() && leaves || is_of_link(source.into()) { Err(Loss::Martian) } else { Ok(()) }
}

/// Is it the first segment of a TCP connection?
fn begins(packet: &Packet<'_>) -> bool {
    packet.protocol() == 6 && packet.transport().get(13).is_some_and(|flags| flags & 0x12 == 0x02)
}

/// Does it belong to a connection that stands in the table?
fn is_known(trip: &Trip) -> bool {
    trip.passage.as_ref().is_some_and(|passage| passage.direction().is_some() && passage.outcome().connection.is_some())
}
