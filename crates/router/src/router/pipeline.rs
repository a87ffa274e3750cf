//! The way itself: from prerouting to the machine or to the way out.
use super::output::is_link_local;
use super::{
    AFTER_DNAT, AFTER_SNAT, ALL_PRIORITIES, BEFORE_CONNTRACK, BEFORE_SNAT, CONNTRACK_TO_DNAT, DropReason, Egress,
    InFlightPacket, Router, drop_reason_of,
};
use crate::ip_fragment;
use crate::ipv4_options;
use keepstate_engine::{CtInfo, CtVerdict, Manip, PacketCtx};
use keepstate_rules::ast::Hook;
use keepstate_rules::{Fib, InterfaceInfo};
use keepstate_wire::reassembly::Reassembly;
use keepstate_wire::rewrite::PacketMut;
use keepstate_wire::{Addresses, Packet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Router {
    pub(super) fn process_packet(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        self.defrag(pkt)?;
        self.check_martian(pkt, true)?;
        self.prerouting(pkt)?;
        self.check_martian(pkt, false)?;
        self.process_ipv4_options(pkt)?;
        let to = pkt.destination()?;
        // To us, or to several hosts: those are not forwarded.
        if self.fib.is_local(to) || to.is_multicast() || self.fib.is_broadcast(to) {
            self.input(pkt)
        } else {
            self.forward(pkt, to)
        }
    }

    /// Tracking and rules see whole datagrams only.
    fn defrag(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let packet = match Packet::parse(&pkt.bytes) {
            Ok(packet) => packet,
            Err(error) => {
                self.engine.count_parse_error(error);
                return Err(DropReason::Malformed);
            }
        };
        if packet.fragment().is_none() {
            let length = packet.bytes().len();
            pkt.layout =
                if pkt.gso_packet_len.is_some() { packet.checksum_unnecessary().layout() } else { packet.layout() };
            // Padding of the link is not part of it.
            pkt.bytes.truncate(length);
            return Ok(());
        }
        let mut whole = Vec::new();
        match self.reassembler.push(&packet, pkt.now.0, &mut whole) {
            Ok(Reassembly::Complete(pieces)) => {
                let piece = std::mem::replace(&mut pkt.bytes, whole);
                self.recycle_buffer(piece);
                pkt.layout = Packet::parse_reassembled(&pkt.bytes).ok().and_then(|packet| packet.layout());
                pkt.fragments = Some(pieces);
                Ok(())
            }
            _ => Err(DropReason::Fragment),
        }
    }

    /// Addresses that nobody else can have, and those that cannot be asked for (RFC 1812, 5.3.7): IPv6's are looked at as they came, IPv4's behind prerouting.
    fn check_martian(&self, pkt: &InFlightPacket, came: bool) -> Result<(), DropReason> {
        let believable = match pkt.packet()?.addresses() {
            Addresses::V6 { source, destination } if came => {
                let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
                !(source.is_loopback() || destination.is_loopback() || source.is_multicast())
            }
            Addresses::V4 { source, destination } if !came && pkt.meta.iif.is_some() => {
                let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
                let of_none = |address: Ipv4Addr| address.is_unspecified() || address.is_loopback();
                // Who asks for an address of his own (DHCP) has none yet.
                let to_all = destination.is_broadcast() || source.is_unspecified() && destination.is_unspecified();
                // What is for the machine itself, it judges itself where it is apart.
                let apart = self.bypass_local && self.fib.is_local(destination.into());
                let of_nobody = source.is_multicast() || source.is_broadcast();
                let of_ours = self.fib.is_local(source.into());
                apart || !of_nobody && (to_all || !of_none(source) && !of_none(destination)) && !of_ours
            }
            _ => true,
        };
        if believable { Ok(()) } else { Err(DropReason::Martian) }
    }

    fn prerouting(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        self.run_filter_chains(Hook::Prerouting, BEFORE_CONNTRACK, pkt)?;
        if !pkt.meta.untracked {
            let packet = pkt.packet()?;
            let ctx = self.engine.track(&packet, pkt.meta.zone, pkt.now);
            let outcome = ctx.outcome();
            if outcome.verdict == CtVerdict::Drop {
                // A full table is no reason to cut the machine's own connections, which do not stand in it.
                let is_hosts = self.bypass_local && !is_tcp_syn(&packet) && self.fib.is_local(pkt.destination()?);
                return if is_hosts { Ok(()) } else { Err(drop_reason_of(&outcome)) };
            }
            pkt.ctx = Some(ctx);
        }
        if self.bypass_local && self.fib.is_local(pkt.destination()?) && !has_connection(pkt) {
            // Whether it is for the machine is decided before any rule may drop it for being unknown: the machine's connections are not known here.
            self.run_nat(Hook::Prerouting, Manip::Destination, pkt)?;
            if self.fib.is_local(pkt.destination()?) {
                pkt.ctx = None;
                return Ok(());
            }
            self.run_filter_chains(Hook::Prerouting, CONNTRACK_TO_DNAT, pkt)?;
        } else {
            self.run_filter_chains(Hook::Prerouting, CONNTRACK_TO_DNAT, pkt)?;
            self.run_nat(Hook::Prerouting, Manip::Destination, pkt)?;
        }
        self.run_filter_chains(Hook::Prerouting, AFTER_DNAT, pkt)?;
        let begins = |ctx: &mut PacketCtx| ctx.info() == CtInfo::New && ctx.unconfirmed().is_some();
        if self.draining && pkt.ctx.as_mut().is_some_and(begins) { Err(DropReason::Draining) } else { Ok(()) }
    }

    /// What the sender asks of each router on the way, by IPv4's options.
    fn process_ipv4_options(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if pkt.bytes.first().is_none_or(|first| !(0x46..=0x4f).contains(first)) {
            return Ok(());
        }
        let apart = self.bypass_local && self.fib.is_local(pkt.destination()?);
        if apart {
            return Ok(());
        }
        let milliseconds = (pkt.now.0 / 1_000_000 % 86_400_000) as u32;
        let fib = &self.fib;
        let read = |bytes: &mut Vec<u8>| {
            let length = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
            let header = bytes.get_mut(..length).unwrap_or_default();
            let asked = ipv4_options::parse_options(header, milliseconds, |address| {
                let address = IpAddr::from(address);
                fib.is_local(address) || address.is_multicast() || fib.is_broadcast(address)
            });
            ipv4_options::update_header_checksum(header);
            asked
        };
        let asked = read(&mut pkt.bytes);
        if !pkt.pre_nat.is_empty() {
            // Whoever is told of it, is told of it as it is now.
            let _ = read(&mut pkt.pre_nat);
        }
        match asked {
            Err(place) => {
                self.send_icmp_error(pkt, 12, 0, u32::from(place) << 24);
                Err(DropReason::Ipv4Options)
            }
            // As Linux does unless it is told otherwise: who may choose his way passes every firewall.
            Ok(asked) if asked.source_routed => Err(DropReason::Ipv4Options),
            Ok(asked) => {
                pkt.record_route_slots = asked.router_address_slots;
                Ok(())
            }
        }
    }

    /// Fills in the router's address where the sender asks for it: the one that it has towards where the datagram goes.
    fn fill_record_route(&self, pkt: &mut InFlightPacket, device: u32, neighbour: IpAddr) {
        let Some(IpAddr::V4(us)) =
            self.fib.source_address(device, neighbour).filter(|_| !pkt.record_route_slots.is_empty())
        else {
            return;
        };
        for place in std::mem::take(&mut pkt.record_route_slots) {
            if let Some(place) = pkt.bytes.get_mut(place) {
                place.copy_from_slice(&us.octets());
            }
        }
        let length = pkt.bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
        ipv4_options::update_header_checksum(pkt.bytes.get_mut(..length).unwrap_or_default());
    }

    fn input(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if self.bypass_local && !has_connection(pkt) {
            self.counters.delivered += 1;
            self.output.push_back(Egress::LocalDeliver(std::mem::take(&mut pkt.bytes)));
            return Ok(());
        }
        self.run_filter_chains(Hook::Input, BEFORE_SNAT, pkt)?;
        self.run_nat(Hook::Input, Manip::Source, pkt)?;
        self.run_filter_chains(Hook::Input, AFTER_SNAT, pkt)?;
        self.synproxy_hook(pkt)?;
        self.confirm(pkt)?;
        self.counters.delivered += 1;
        self.output.push_back(Egress::LocalDeliver(std::mem::take(&mut pkt.bytes)));
        Ok(())
    }

    fn forward(&mut self, pkt: &mut InFlightPacket, to: IpAddr) -> Result<(), DropReason> {
        let v6 = to.is_ipv6();
        let hops = pkt.packet()?.hop_limit();
        if hops <= 1 {
            let (kind, code) = if v6 { (3, 0) } else { (11, 0) };
            self.send_icmp_error(pkt, kind, code, 0);
            return Err(DropReason::TtlExceeded);
        }
        // What means something on one link only is on the one that asks for it.
        let link = pkt.meta.iif.filter(|_| is_link_local(to)).map(|device| device.index);
        let Some((device, neighbour)) = self.fib.next_hop_lookup(to, link) else {
            let (kind, code) = if v6 { (1, 0) } else { (3, 0) };
            self.send_icmp_error(pkt, kind, code, 0);
            return Err(DropReason::NoRoute);
        };
        if v6 {
            check_ipv6_source_scope(pkt, device)?;
        }
        pkt.meta.oif = Some(device);
        self.check_mtu(pkt, v6)?;
        pkt.rewrite()?.set_hop_limit(hops - 1);
        if !pkt.pre_nat.is_empty() {
            PacketMut::new(&mut pkt.pre_nat).map_err(|_| DropReason::Malformed)?.set_hop_limit(hops - 1);
        }
        self.run_filter_chains(Hook::Forward, ALL_PRIORITIES, pkt)?;
        self.fill_record_route(pkt, device.index, neighbour);
        self.run_filter_chains(Hook::Postrouting, BEFORE_SNAT, pkt)?;
        self.run_nat(Hook::Postrouting, Manip::Source, pkt)?;
        self.run_filter_chains(Hook::Postrouting, AFTER_SNAT, pkt)?;
        self.synproxy_hook(pkt)?;
        self.confirm(pkt)?;
        self.counters.forwarded += 1;
        let (whole, mtu) = (std::mem::take(&mut pkt.bytes), self.fib.mtu(device.index) as usize);
        let pieces = match pkt.fragments {
            // No piece leaves longer than it came, so that nobody on the way has to cut it once more.
            Some(came) if v6 && whole.len() > mtu.min(came.max_size) => {
                ip_fragment::fragment_v6(whole, came.header_len, mtu.min(came.max_size), self.fragment_ids.next_id())
            }
            Some(came) if !v6 => ip_fragment::fragment_v4(whole, mtu.min(came.max_size)),
            None if !v6 && pkt.gso_packet_len.unwrap_or(whole.len()) > mtu => ip_fragment::fragment_v4(whole, mtu),
            _ => {
                self.output.push_back(Egress::Forward { oif: device.index, next_hop: neighbour, packet: whole });
                return Ok(());
            }
        };
        let forward = |packet| Egress::Forward { oif: device.index, next_hop: neighbour, packet };
        self.output.extend(pieces.into_iter().map(forward));
        Ok(())
    }

    /// What is too large for its way out is not cut but told, where that may be.
    fn check_mtu(&mut self, pkt: &mut InFlightPacket, v6: bool) -> Result<(), DropReason> {
        let Some(device) = pkt.meta.oif else { return Ok(()) };
        let mtu = self.fib.mtu(device.index);
        let dont_cut = v6 || pkt.bytes.get(6).is_some_and(|flags| flags & 0x40 != 0);
        if pkt.max_packet_len() <= mtu as usize {
            return Ok(());
        }
        if !dont_cut {
            return if pkt.gso_packet_len.is_none() { Ok(()) } else { Err(DropReason::PacketTooBig) };
        }
        let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
        self.send_icmp_error(pkt, kind, code, mtu);
        Err(DropReason::PacketTooBig)
    }

    pub(super) fn confirm(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let Some(ctx) = pkt.ctx.take() else { return Ok(()) };
        let outcome = self.engine.confirm_and_rewrite(ctx, &mut pkt.bytes, pkt.now);
        if let (Some(choice), Some(handle)) = (pkt.backend.take(), outcome.connection) {
            self.services.add_connection(&choice, handle, pkt.now);
        }
        if outcome.verdict == CtVerdict::Drop { Err(drop_reason_of(&outcome)) } else { Ok(()) }
    }
}

/// An IPv6 datagram whose source means nothing beyond its link goes no further (RFC 4291, 2.5.6); one without a source stays on its link.
fn check_ipv6_source_scope(pkt: &InFlightPacket, out: InterfaceInfo) -> Result<(), DropReason> {
    let Addresses::V6 { source, .. } = pkt.packet()?.addresses() else { return Ok(()) };
    let source = Ipv6Addr::from(source);
    let leaves = pkt.meta.iif != Some(out);
    if source.is_unspecified() && leaves || is_link_local(source.into()) { Err(DropReason::Martian) } else { Ok(()) }
}

/// Is it the first segment of a TCP connection?
fn is_tcp_syn(packet: &Packet<'_>) -> bool {
    packet.protocol() == 6 && packet.transport().get(13).is_some_and(|flags| flags & 0x12 == 0x02)
}

/// Does it belong to a connection that stands in the table?
fn has_connection(pkt: &InFlightPacket) -> bool {
    pkt.ctx.as_ref().is_some_and(|ctx| ctx.direction().is_some() && ctx.outcome().connection.is_some())
}
