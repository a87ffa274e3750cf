//! The steps of a packet, from prerouting to local delivery or forwarding.
use super::output::{is_link_local, source_of};
use super::routing::RouteDecision;
use super::{
    AFTER_DNAT, AFTER_SNAT, ALL_PRIORITIES, BEFORE_CONNTRACK, BEFORE_SNAT, CONNTRACK_TO_DNAT, DropReason, Egress,
    InFlightPacket, LOOPBACK_INDEX, Router, drop_reason_of,
};
use crate::ip_fragment;
use crate::ipv4_options;
use crate::known_flow::{FlowSource, FlowTarget};
use crate::route_oracle::RouteQuery;
use keepstate_engine::{CtInfo, CtVerdict, Manip, PacketCtx};
use keepstate_rules::ast::Hook;
use keepstate_rules::{AddressType, Fib, InterfaceInfo, ProxySocket};
use keepstate_wire::reassembly::Reassembly;
use keepstate_wire::rewrite::PacketMut;
use keepstate_wire::tcp::TcpFlags;
use keepstate_wire::{Addresses, Packet};
use smallvec::{SmallVec, smallvec};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl Router {
    pub(super) fn process_packet(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        self.check_duty(pkt)?;
        // What cannot be parsed is counted where fragments are put together.
        if self.program.has_filter_chain(Hook::Ingress, &ALL_PRIORITIES) && Packet::parse(&pkt.bytes).is_ok() {
            self.run_filter_chains(Hook::Ingress, ALL_PRIORITIES, pkt)?;
        }
        self.defrag(pkt)?;
        self.check_martian(pkt, true)?;
        self.prerouting(pkt)?;
        self.check_martian(pkt, false)?;
        self.process_ipv4_options(pkt)?;
        let to = pkt.destination()?;
        self.check_joined(pkt, to)?;
        // Multicast and broadcast are not forwarded.
        if self.fib.is_own_address(to, pkt.meta.iif.map(|device| device.index))
            || to.is_multicast()
            || self.fib.is_broadcast(to)
        {
            self.input(pkt)
        } else {
            self.forward(pkt, to)
        }
    }

    /// Reassembles fragments: conntrack and rules see complete packets only.
    pub(super) fn defrag(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
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
            // Ethernet padding is not part of the packet.
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

    /// Drops martian addresses (RFC 1812, 5.3.7): of IPv6 before prerouting, of IPv4 after it, as Linux does.
    fn check_martian(&self, pkt: &InFlightPacket, came: bool) -> Result<(), DropReason> {
        let valid = match pkt.packet()?.addresses() {
            Addresses::V6 { source, destination } if came => {
                let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
                !(source.is_loopback() || destination.is_loopback() || source.is_multicast())
            }
            Addresses::V4 { source, destination } if !came && pkt.meta.iif.is_some() => {
                let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
                let is_unusable = |address: Ipv4Addr| address.is_unspecified() || address.is_loopback();
                // A DHCP client has no address yet.
                let is_broadcast =
                    destination.is_broadcast() || source.is_unspecified() && destination.is_unspecified();
                // With the local bypass, the machine checks its own packets.
                let bypassed = self.bypass_local && self.fib.is_local(destination.into());
                let bad_source = source.is_multicast() || source.is_broadcast();
                let own_source = self.fib.is_local(source.into());
                bypassed
                    || !bad_source && (is_broadcast || !is_unusable(source) && !is_unusable(destination)) && !own_source
            }
            _ => true,
        };
        if valid { Ok(()) } else { Err(DropReason::Martian) }
    }

    /// Drops multicast packets to a group that the machine has not joined, as Linux does (`ip_check_mc_rcu`, `ip6_mc_input`): they are not for its input chains.
    fn check_joined(&mut self, pkt: &InFlightPacket, to: IpAddr) -> Result<(), DropReason> {
        let Some(oracle) = self.route_oracle.as_mut().filter(|_| to.is_multicast()) else { return Ok(()) };
        let query = RouteQuery::of(&pkt.packet()?, pkt.meta.iif.map(|device| device.index), pkt.meta.mark);
        if oracle.is_joined(&query) { Ok(()) } else { Err(DropReason::NotJoined) }
    }

    fn prerouting(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        self.run_filter_chains(Hook::Prerouting, BEFORE_CONNTRACK, pkt)?;
        if pkt.meta.is_probe {
            pkt.ctx = pkt.probe_ctx.take();
        } else if !pkt.meta.untracked {
            let packet = pkt.packet()?;
            let zone = pkt.meta.zone.unwrap_or_default();
            self.check_held(&packet, zone, pkt.now)?;
            let ctx = self.engine.track(&packet, zone, pkt.now);
            self.check_held_related(&ctx, pkt.now)?;
            let outcome = ctx.outcome();
            if outcome.verdict == CtVerdict::Drop {
                // A full table must not cut the machine's own connections, which are not in it.
                let is_hosts = self.bypass_local && !is_tcp_syn(&packet) && self.fib.is_local(pkt.destination()?);
                return if is_hosts { Ok(()) } else { Err(drop_reason_of(&outcome)) };
            }
            pkt.ctx = Some(ctx);
        }
        if self.bypass_local && self.fib.is_local(pkt.destination()?) && !has_connection(pkt) {
            // Decided before a rule may drop it as invalid or untracked: the machine's connections are not in this table.
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
        let is_new = |ctx: &mut PacketCtx| ctx.info() == CtInfo::New && ctx.unconfirmed().is_some();
        if self.draining && pkt.ctx.as_mut().is_some_and(is_new) { Err(DropReason::Draining) } else { Ok(()) }
    }

    /// Checks IPv4 options, and fills in timestamps.
    fn process_ipv4_options(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        if pkt.bytes.first().is_none_or(|first| !(0x46..=0x4f).contains(first)) {
            return Ok(());
        }
        let bypassed = self.bypass_local && self.fib.is_local(pkt.destination()?);
        if bypassed {
            return Ok(());
        }
        let milliseconds = (pkt.now.0 / 1_000_000 % 86_400_000) as u32;
        let fib = &self.fib;
        let read = |bytes: &mut Vec<u8>| {
            let length = bytes.first().map_or(0, |first| usize::from(first & 15) * 4);
            let header = bytes.get_mut(..length).unwrap_or_default();
            let asked = ipv4_options::parse_options(header, milliseconds, |address| {
                // As Linux: whatever is not another host.
                fib.address_type(address.into(), None) != AddressType::Unicast
            });
            ipv4_options::update_header_checksum(header);
            asked
        };
        let asked = read(&mut pkt.bytes);
        if !pkt.pre_nat.is_empty() {
            // ICMP errors quote the options as they are now.
            let _ = read(&mut pkt.pre_nat);
        }
        match asked {
            Err(place) => {
                self.send_icmp_error(pkt, 12, 0, u32::from(place) << 24);
                Err(DropReason::Ipv4Options)
            }
            // As Linux by default (accept_source_route = 0): a source route could bypass a firewall.
            Ok(asked) if asked.source_routed => Err(DropReason::Ipv4Options),
            Ok(asked) => {
                pkt.record_route_slots = asked.router_address_slots;
                Ok(())
            }
        }
    }

    /// Fills in record route and timestamp options with the address of the outgoing interface.
    fn fill_record_route(&self, pkt: &mut InFlightPacket, device: u32, next_hop: IpAddr) {
        let Some(IpAddr::V4(us)) =
            self.fib.source_address(device, next_hop, Some(next_hop)).filter(|_| !pkt.record_route_slots.is_empty())
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
            self.push_output(Egress::LocalDeliver(std::mem::take(&mut pkt.bytes)), pkt.meta.mark);
            return Ok(());
        }
        pkt.meta.is_delivered = true;
        self.run_filter_chains(Hook::Input, BEFORE_SNAT, pkt)?;
        self.run_nat(Hook::Input, Manip::Source, pkt)?;
        self.run_filter_chains(Hook::Input, AFTER_SNAT, pkt)?;
        self.synproxy_hook(pkt)?;
        self.confirm(pkt)?;
        self.note_way(pkt, FlowTarget::Host);
        if pkt.meta.is_probe {
            return Ok(());
        }
        if self.local_replies {
            self.answer_local(pkt);
        }
        self.counters.delivered += 1;
        let is_own = self.fib.is_loopback(LOOPBACK_INDEX) && self.fib.is_local(source_of(&pkt.packet()?));
        let packet = std::mem::take(&mut pkt.bytes);
        // An answer in the name of the machine itself, which has asked itself: only the loopback interface takes it.
        let egress = match pkt.meta.proxy {
            _ if is_own => Egress::Loop { iif: LOOPBACK_INDEX, packet },
            Some(ProxySocket { protocol, listens_at: Some(listens_at), .. }) => {
                Egress::ToProxy { protocol, listens_at, packet }
            }
            _ => Egress::LocalDeliver(packet),
        };
        self.push_output(egress, pkt.meta.mark);
        Ok(())
    }

    fn forward(&mut self, pkt: &mut InFlightPacket, to: IpAddr) -> Result<(), DropReason> {
        self.check_duty_to_forward(pkt)?;
        // As in Linux (ip_forward, ip6_forward): only packets for this host's link address are forwarded.
        if pkt.meta.packet_type.is_some_and(|kind| kind != 0) {
            return Err(DropReason::PacketType);
        }
        let v6 = to.is_ipv6();
        let (device, next_hop) = match self.find_route(pkt, to)? {
            // As in Linux (ip_forward, ip6_forward): the proxy's socket has it already.
            RouteDecision::Out(..) if pkt.meta.proxy.is_some() => return Err(DropReason::NotToProxy),
            RouteDecision::Out(device, next_hop) => {
                self.check_way_to_other_shard(pkt, Some(device.index))?;
                (device, next_hop)
            }
            RouteDecision::Host => return self.input(pkt),
            RouteDecision::Nowhere(error) => {
                self.check_way_to_other_shard(pkt, None)?;
                if let Some((kind, code)) = error {
                    self.send_icmp_error(pkt, kind, code, 0);
                }
                return Err(DropReason::NoRoute);
            }
        };
        let hops = pkt.packet()?.hop_limit();
        if hops <= 1 {
            let (kind, code) = if v6 { (3, 0) } else { (11, 0) };
            self.send_icmp_error(pkt, kind, code, 0);
            return Err(DropReason::TtlExceeded);
        }
        if v6 {
            check_ipv6_source_scope(pkt, device)?;
        }
        (pkt.meta.oif, pkt.meta.next_hop) = (Some(device), Some(next_hop));
        self.check_mtu(pkt, v6)?;
        pkt.rewrite()?.set_hop_limit(hops - 1);
        if !pkt.pre_nat.is_empty() {
            PacketMut::new(&mut pkt.pre_nat).map_err(|_| DropReason::Malformed)?.set_hop_limit(hops - 1);
        }
        if pkt.redirects {
            self.send_redirect(pkt, device.index, next_hop);
        }
        if !v6 {
            pkt.meta.priority = priority_of_tos(pkt.bytes.get(1).copied().unwrap_or_default());
        }
        self.run_filter_chains(Hook::Forward, ALL_PRIORITIES, pkt)?;
        self.fill_record_route(pkt, device.index, next_hop);
        pkt.meta.is_leaving = true;
        self.run_filter_chains(Hook::Postrouting, BEFORE_SNAT, pkt)?;
        self.run_nat(Hook::Postrouting, Manip::Source, pkt)?;
        self.run_filter_chains(Hook::Postrouting, AFTER_SNAT, pkt)?;
        self.synproxy_hook(pkt)?;
        self.confirm(pkt)?;
        self.note_way(pkt, FlowTarget::Forward { oif: device.index, next_hop });
        if pkt.meta.is_probe {
            return Ok(());
        }
        self.counters.forwarded += 1;
        let (whole, mtu) = (std::mem::take(&mut pkt.bytes), self.mtu_of(pkt, device.index) as usize);
        for packet in self.fragment_again(pkt, whole, mtu) {
            self.push_output(Egress::Forward { oif: device.index, next_hop, packet }, pkt.meta.mark);
        }
        Ok(())
    }

    /// Notes the way of a packet, from which its connection may become known to the data path.
    pub(super) fn note_way(&mut self, pkt: &mut InFlightPacket, target: FlowTarget) {
        let conn_id = pkt.began.or(pkt.established.map(|(conn_id, _)| conn_id));
        // What the machine has sent to itself is answered by the loopback interface alone.
        if self.flows.is_none()
            || pkt.sent_by.is_some_and(|oif| self.fib.is_loopback(oif))
            || conn_id.is_none_or(|conn_id| self.is_tapped(conn_id, pkt))
        {
            return;
        }
        let source = match (pkt.meta.iif, pkt.sent_by) {
            (Some(device), None) => FlowSource::Interface(device.index),
            (_, Some(oif)) => FlowSource::Host(oif),
            _ => return,
        };
        // A way that has an MTU of its own is not the flow's alone.
        let is_plain = match target {
            FlowTarget::Forward { next_hop, .. } => {
                let is_v4 = pkt.bytes.first().is_some_and(|first| first >> 4 == 4);
                pkt.route_mtu.is_none() && next_hop.is_ipv4() == is_v4
            }
            FlowTarget::Host | FlowTarget::LetOut => true,
        };
        let plain_tos_only = self.route_oracle.as_ref().is_some_and(|oracle| oracle.goes_by_tos());
        if !is_plain || plain_tos_only && type_of_service(&pkt.bytes) != 0 {
            return;
        }
        let way = (source, target, (pkt.came_marked, pkt.meta.mark), plain_tos_only);
        match (&mut self.flows, pkt.established, pkt.began) {
            (Some(flows), Some((conn_id, _)), _) if pkt.meta.is_probe => {
                let trace = &pkt.meta.trace;
                let found = flows.way_of(way, trace, self.engine.connection_mark(conn_id));
                // The status changes while the handshake goes on, and the server's answer has SYN.
                let may_open = !trace.status_read && trace.tcp_flags_read & TcpFlags::SYN == 0;
                pkt.probed = found.ok().filter(|_| may_open);
            }
            (Some(flows), Some(of), _) => flows.note(of, way, &pkt.meta.trace, &mut self.engine, pkt.now),
            (_, None, Some(conn_id)) => self.offer_handshake(conn_id, pkt, source, target),
            _ => (),
        }
    }

    /// A packet in the pieces that it leaves in: fragments, if it came in fragments or is longer than the MTU.
    pub(super) fn fragment_again(
        &mut self,
        pkt: &InFlightPacket,
        whole: Vec<u8>,
        mtu: usize,
    ) -> SmallVec<[Vec<u8>; 1]> {
        let v6 = whole.first().is_some_and(|first| first >> 4 == 6);
        match pkt.fragments {
            // No fragment leaves longer than the longest that came, so that no router has to fragment it again.
            Some(came) if v6 && whole.len() > mtu.min(came.max_size) => {
                ip_fragment::fragment_v6(whole, came.header_len, mtu.min(came.max_size), self.fragment_ids.next_id())
                    .into()
            }
            Some(came) if !v6 => ip_fragment::fragment_v4(whole, mtu.min(came.max_size)).into(),
            None if !v6 && pkt.gso_packet_len.unwrap_or(whole.len()) > mtu => {
                ip_fragment::fragment_v4(whole, mtu).into()
            }
            _ => smallvec![whole],
        }
    }

    /// Answers a packet that is longer than the MTU and must not be fragmented.
    pub(super) fn check_mtu(&mut self, pkt: &mut InFlightPacket, v6: bool) -> Result<(), DropReason> {
        let Some(device) = pkt.meta.oif else { return Ok(()) };
        let mtu = self.mtu_of(pkt, device.index);
        let dont_fragment = v6 || pkt.bytes.get(6).is_some_and(|flags| flags & 0x40 != 0);
        if pkt.max_packet_len() <= mtu as usize {
            return Ok(());
        }
        if !dont_fragment {
            return if pkt.gso_packet_len.is_none() { Ok(()) } else { Err(DropReason::PacketTooBig) };
        }
        let (kind, code) = if v6 { (2, 0) } else { (3, 4) };
        self.send_icmp_error(pkt, kind, code, mtu);
        Err(DropReason::PacketTooBig)
    }

    pub(super) fn confirm(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let Some(mut ctx) = pkt.ctx.take() else { return Ok(()) };
        if pkt.meta.is_probe {
            pkt.established = ctx.connection().zip(ctx.direction());
            return Ok(());
        }
        let is_new = ctx.unconfirmed().is_some();
        self.check_duty_to_create(&mut ctx, pkt)?;
        let outcome = self.engine.confirm_and_rewrite(ctx, &mut pkt.bytes, pkt.now);
        if let Some(conn_id) = outcome.connection.filter(|_| is_new) {
            self.masquerade.note_new(conn_id);
            pkt.began = Some(conn_id);
        }
        pkt.conn_id = outcome.connection;
        if self.flows.is_some() && outcome.info == CtInfo::Established {
            pkt.established = outcome.connection.zip(outcome.direction);
        }
        if let (Some(choice), Some(handle)) = (pkt.backend.take(), outcome.connection) {
            self.services.add_connection(&choice, handle, pkt.now);
        }
        if outcome.verdict == CtVerdict::Drop { Err(drop_reason_of(&outcome)) } else { Ok(()) }
    }
}

/// Drops IPv6 packets with a link-local (RFC 4291, 2.5.6) or an unspecified source that would leave their link.
fn check_ipv6_source_scope(pkt: &InFlightPacket, out: InterfaceInfo) -> Result<(), DropReason> {
    let Addresses::V6 { source, .. } = pkt.packet()?.addresses() else { return Ok(()) };
    let source = Ipv6Addr::from(source);
    let leaves = pkt.meta.iif != Some(out);
    if leaves && (source.is_unspecified() || is_link_local(source.into())) { Err(DropReason::Martian) } else { Ok(()) }
}

/// The TOS byte or traffic class, without the bits of ECN.
fn type_of_service(packet: &[u8]) -> u8 {
    match *packet {
        [first, second, ..] if first >> 4 == 6 => (first << 4 | second >> 4) & 0xfc,
        [_, tos, ..] => tos & 0xfc,
        _ => 0,
    }
}

/// The priority of a forwarded IPv4 packet, as Linux takes it from the TOS byte (`rt_tos2priority`).
fn priority_of_tos(tos: u8) -> u32 {
    // By "minimize delay" and "maximize throughput" (RFC 1349).
    match tos >> 3 & 3 {
        0 => 0,
        // Bulk.
        1 => 2,
        // Interactive.
        2 => 6,
        // Interactive bulk.
        _ => 4,
    }
}

/// Is it the first segment of a TCP connection?
fn is_tcp_syn(packet: &Packet<'_>) -> bool {
    packet.protocol() == 6 && packet.transport().get(13).is_some_and(|flags| flags & 0x12 == 0x02)
}

/// Does it belong to a connection in the table?
fn has_connection(pkt: &InFlightPacket) -> bool {
    pkt.ctx.as_ref().is_some_and(|ctx| ctx.direction().is_some() && ctx.outcome().connection.is_some())
}
