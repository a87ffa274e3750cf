//! Locally generated packets: ICMP errors, resets and synproxy segments, and their path through the hooks.
//!
//! An answer to a packet with a connection belongs to that connection, and is built from the packet as it was before NAT. Any other is tracked, filtered and translated like
//! a packet of the output hook. A dropped answer is never answered itself.
use super::{
    AFTER_DNAT, AFTER_SNAT, ALL_PRIORITIES, BEFORE_CONNTRACK, BEFORE_SNAT, CONNTRACK_TO_DNAT, DropReason, Egress,
    InFlightPacket, LOOPBACK_INDEX, PacketOrigin, Router, destination_address, destination_of, drop_reason_of,
};
use crate::icmp_ratelimit::IcmpAnswer;
use crate::known_flow::FlowTarget;
use crate::route_oracle::{RouteAnswer, RouteQuery};
use crate::{icmp_error, ip_fragment};
use keepstate_engine::{CtVerdict, Instant, Manip, PacketCtx, SynproxyState};
use keepstate_rules::ast::{Hook, Reject};
use keepstate_rules::{Fib, InterfaceInfo, PacketCopy, PacketMeta};
use keepstate_wire::rewrite::{ChecksumMode, HeaderBase, PacketMut};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

impl Router {
    pub(super) fn send_reject(&mut self, reject: Reject, pkt: &InFlightPacket) {
        let Ok(packet) = pkt.packet() else { return };
        let to = destination_address(&packet);
        if !icmp_error::checksum_ok(&packet) {
            return;
        }
        match reject.icmp_type_code(to.is_ipv6()) {
            Some((kind, code)) => self.send_icmp_error(pkt, kind, code, 0),
            // As in Linux (nf_send_reset6), no reset comes from an address that is not unicast.
            None if to.is_multicast() || to.is_ipv6() && to.is_unspecified() || self.fib.is_broadcast(to) => (),
            None => {
                let answer = pkt.pre_nat_packet().and_then(|packet| icmp_error::build_tcp_reset(&packet));
                answer.into_iter().for_each(|answer| self.send_reply(answer, pkt));
            }
        }
    }

    /// Sends an ICMP error to the packet's sender. It quotes the packet as it was before NAT.
    pub(super) fn send_icmp_error(&mut self, pkt: &InFlightPacket, kind: u8, code: u8, word: u32) {
        if pkt.meta.is_probe {
            return;
        }
        let Some(packet) = pkt.pre_nat_packet() else { return };
        let sent = packet.bytes();
        let to = match packet.addresses() {
            Addresses::V4 { source, .. } => IpAddr::from(source),
            Addresses::V6 { source, .. } => IpAddr::from(source),
        };
        // The source is the destination before DNAT: the sender must not learn the translated address.
        let asked = destination_of(sent).ok().filter(|asked| destination_of(&pkt.bytes).is_ok_and(|now| now != *asked));
        let asked = asked.or_else(|| destination_of(sent).ok().filter(|asked| self.fib.is_local(*asked)));
        let us = match asked {
            Some(asked) => Some(asked),
            // The kernel takes nothing that comes from its own addresses.
            None if pkt.is_output => destination_of(sent).ok(),
            None => self.source_towards(to),
        };
        let Some(answer) = us.and_then(|us| icmp_error::build_icmp_error(&packet, us, kind, code, word)) else {
            return;
        };
        if self.may_send_icmp(to, (kind, code), pkt.now) {
            self.send_reply(answer, pkt);
        }
    }

    /// Takes a token for an ICMP error of this type and code, if one is needed.
    pub(super) fn may_send_icmp(&mut self, to: IpAddr, (kind, code): (u8, u8), now: Instant) -> bool {
        let Some(limiter) = &mut self.icmp_limiter else { return true };
        limiter.allows(IcmpAnswer { to, kind, code }, now)
    }

    /// Sends "host unreachable" for a packet from [`Router::poll_output`] whose next hop could not be resolved.
    pub fn send_host_unreachable(&mut self, bytes: &[u8], now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let (from, kind, code) = match packet.addresses() {
            Addresses::V4 { source, .. } => (IpAddr::from(source), 3, 1),
            Addresses::V6 { source, .. } => (IpAddr::from(source), 1, 3),
        };
        // To the sender after SNAT, which may be an address of our own; NAT then translates the error back.
        let us = match self.fib.is_local(from) {
            true => Some(from),
            false => self.source_towards(from),
        };
        let Some(answer) = us.and_then(|us| icmp_error::build_icmp_error(&packet, us, kind, code, 0)) else { return };
        if self.may_send_icmp(from, (kind, code), now) {
            self.local_out(answer, None, None, now);
        }
    }

    /// Sends an answer to a packet. It belongs to the packet's connection, if that has one; else it is tracked as a packet of its own.
    pub(crate) fn send_reply(&mut self, answer: Vec<u8>, about: &InFlightPacket) {
        if about.is_output && destination_of(&answer).is_ok_and(|to| self.fib.is_local(to)) {
            // To a socket of this machine: no hook would see it but those of the loopback interface.
            self.counters.generated += 1;
            self.push_output(Egress::LocalDeliver(answer), 0);
            return;
        }
        // Not to ourselves, and not to a link-local address: it does not tell which link.
        let may_send = |to: IpAddr| !self.fib.is_local(to) && !is_link_local(to);
        if !destination_of(&answer).is_ok_and(may_send) {
            return;
        }
        let ctx = about.ctx.as_ref().filter(|ctx| ctx.direction().is_some()).map(PacketCtx::reply_ctx);
        self.local_out(answer, ctx, None, about.now);
    }

    /// Sends a packet of our own. With `ctx` it belongs to that connection and is not translated; else it is tracked, and `promise` is stored with the connection it begins.
    pub(crate) fn local_out(
        &mut self,
        bytes: Vec<u8>,
        ctx: Option<PacketCtx>,
        promise: Option<SynproxyState>,
        now: Instant,
    ) {
        let attached = ctx.is_some();
        let meta = PacketMeta::default();
        let mut pkt = InFlightPacket { bytes, meta, ctx, synproxy: promise, now, ..InFlightPacket::default() };
        // Errors about our own packets are not sent.
        let queued = self.output.len();
        let passed = self.run_output_hooks(&mut pkt, attached);
        self.output.truncate(queued);
        // A connection to a group may have been redirected: as in Linux, no IPv6 packet is sent with a group as its source.
        let is_from_group = |packet: Packet<'_>| match packet.addresses() {
            Addresses::V4 { .. } => false,
            Addresses::V6 { source, .. } => IpAddr::from(source).is_multicast(),
        };
        if passed.is_ok()
            && !pkt.packet().is_ok_and(is_from_group)
            && let Ok(to) = destination_of(&pkt.bytes)
            && let Some((oif, next_hop)) = self.find_way_out(&pkt.bytes, pkt.meta.mark)
        {
            self.counters.generated += 1;
            if self.fib.is_loopback(oif.index) {
                // In another's name to the machine itself: a handshake that was answered for one of its servers.
                let iif = self.looped_to(&pkt.bytes);
                return self.push_output(Egress::Loop { iif, packet: pkt.bytes }, pkt.meta.mark);
            }
            let mtu = self.fib.mtu(oif.index) as usize;
            let pieces = match to {
                _ if pkt.bytes.len() <= mtu => vec![pkt.bytes],
                IpAddr::V4(_) => ip_fragment::fragment_v4(pkt.bytes, mtu),
                // What is sent here has no extension headers.
                IpAddr::V6(_) => ip_fragment::fragment_v6(pkt.bytes, 40, mtu, self.fragment_ids.next_id()),
            };
            for packet in pieces {
                self.push_output(Egress::Forward { oif: oif.index, next_hop, packet }, pkt.meta.mark);
            }
        }
    }

    /// Processes a packet that the machine itself sends by the interface of index `oif`: output and postrouting. `max_segment_len` is as for [`Router::handle_gso`]. What may go waits
    /// for [`Router::poll_output`]: as [`Egress::LetOut`], or as another kind if it has got another destination. The packet is taken out of `packet`, and put back if it is dropped.
    ///
    /// # Errors
    /// Why the packet was dropped. An answer to its sender waits for [`Router::poll_output`] as well.
    pub fn handle_output(
        &mut self,
        packet: &mut Vec<u8>,
        max_segment_len: Option<usize>,
        oif: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.process_owned(packet, max_segment_len, PacketOrigin::Host { oif }, now)
    }

    pub(super) fn process_output(&mut self, pkt: &mut InFlightPacket, oif: u32) -> Result<(), DropReason> {
        pkt.sent_by = Some(oif);
        self.defrag(pkt)?;
        let sent_to = pkt.destination()?;
        self.run_output_hooks(pkt, false)?;
        let to = destination_of(&pkt.bytes)?;
        if pkt.goes_on {
            self.push_output(Egress::LetOut(std::mem::take(&mut pkt.bytes)), pkt.meta.mark);
            return Ok(());
        }
        if pkt.meta.is_probe && self.is_looped(to) {
            return Ok(());
        }
        if self.is_looped(to) {
            self.counters.delivered += 1;
            let packet = std::mem::take(&mut pkt.bytes);
            self.push_output(Egress::Loop { iif: self.looped_to(&packet), packet }, pkt.meta.mark);
        } else if to == sent_to && pkt.way_out.is_none() {
            self.note_way(pkt, FlowTarget::LetOut);
            if pkt.meta.is_probe {
                return Ok(());
            }
            self.counters.generated += 1;
            let (whole, mtu) = (std::mem::take(&mut pkt.bytes), self.fib.mtu(oif) as usize);
            for packet in self.fragment_again(pkt, whole, mtu) {
                self.interface_counts.count_sent(oif, packet.len());
                self.push_output(Egress::LetOut(packet), pkt.meta.mark);
            }
        } else {
            let (device, next_hop) = pkt.way_out.ok_or(DropReason::NoRoute)?;
            // As in Linux, unless the interface has route_localnet: nobody could answer.
            if source_of(&pkt.packet()?).is_loopback() {
                return Err(DropReason::Martian);
            }
            self.check_mtu(pkt, to.is_ipv6())?;
            self.note_way(pkt, FlowTarget::Forward { oif: device.index, next_hop });
            if pkt.meta.is_probe {
                return Ok(());
            }
            self.counters.generated += 1;
            let (whole, mtu) = (std::mem::take(&mut pkt.bytes), self.mtu_of(pkt, device.index) as usize);
            for packet in self.fragment_again(pkt, whole, mtu) {
                self.push_output(Egress::Forward { oif: device.index, next_hop, packet }, pkt.meta.mark);
            }
        }
        Ok(())
    }

    /// Sends the copies that rules have made (`dup to`), as Linux does (nf_dup_ipv4, nf_dup_ipv6): untracked, with one hop less where the packet has just come in, through output and
    /// postrouting, but without further copies.
    pub(super) fn send_copies(&mut self, hook: Hook, pkt: &mut InFlightPacket) {
        if pkt.is_copy {
            pkt.meta.copies.clear();
        }
        for PacketCopy { mut bytes, to, device } in std::mem::take(&mut pkt.meta.copies) {
            let through = device.and_then(|name| self.fib.device_by_name(name));
            let Some((oif, next_hop)) = self.fib.next_hop_lookup(to, through.map(|device| device.index)) else {
                continue;
            };
            if device.is_some() && through.is_none() {
                continue;
            }
            prepare_copy(&mut bytes, matches!(hook, Hook::Prerouting | Hook::Input));
            let meta = PacketMeta { oif: Some(oif), untracked: true, ..PacketMeta::default() };
            let (now, is_output, is_copy) = (pkt.now, true, true);
            let mut copy = InFlightPacket { bytes, meta, is_output, is_copy, now, ..InFlightPacket::default() };
            let queued = self.output.len();
            let passed = self.run_output_hooks(&mut copy, true);
            // Neither errors about it nor copies of it are sent.
            self.output.truncate(queued);
            if passed.is_ok() {
                self.counters.generated += 1;
                self.push_output(Egress::Forward { oif: oif.index, next_hop, packet: copy.bytes }, copy.meta.mark);
            }
        }
    }

    /// The output and postrouting hooks. `attached` packets belong to a known connection and were built from the packet before NAT, so they are not translated.
    fn run_output_hooks(&mut self, pkt: &mut InFlightPacket, attached: bool) -> Result<(), DropReason> {
        if !pkt.is_output {
            (pkt.meta.oif, pkt.meta.next_hop) = self.find_way_out(&pkt.bytes, pkt.meta.mark).unzip();
        } else if self.program.reads_next_hop() {
            self.note_next_hop(pkt);
        }
        let sent_to = destination_of(&pkt.bytes)?;
        self.run_filter_chains(Hook::Output, BEFORE_CONNTRACK, pkt)?;
        if pkt.meta.is_probe {
            pkt.ctx = pkt.probe_ctx.take();
        } else if !attached && !pkt.meta.untracked {
            let packet = pkt.packet()?;
            let zone = pkt.meta.zone.unwrap_or_default();
            self.check_held(&packet, zone, pkt.now)?;
            let mut ctx = self.engine.track(&packet, zone, pkt.now);
            self.check_held_related(&ctx, pkt.now)?;
            let outcome = ctx.outcome();
            pkt.synproxy.into_iter().for_each(|promise| self.engine.set_synproxy(&mut ctx, promise));
            pkt.ctx = Some(ctx);
            if outcome.verdict == CtVerdict::Drop {
                return Err(drop_reason_of(&outcome));
            }
        }
        self.run_filter_chains(Hook::Output, CONNTRACK_TO_DNAT, pkt)?;
        if !attached {
            self.run_nat(Hook::Output, Manip::Destination, pkt)?;
        }
        if pkt.sent_by.is_some_and(|oif| self.fib.is_loopback(oif)) && !self.is_translated_by_now(pkt) {
            // The loopback interface is not governed.
            pkt.ctx = None;
            pkt.goes_on = true;
            return Ok(());
        }
        self.run_filter_chains(Hook::Output, AFTER_DNAT, pkt)?;
        let to = destination_of(&pkt.bytes)?;
        // What a socket sends is routed by the kernel, and again only if its destination has changed, or a chain of type route has changed its mark.
        let is_routed = pkt.is_output && to == sent_to;
        if let Some(mark) = if is_routed { pkt.meta.reroute_mark } else { Some(pkt.meta.mark) } {
            pkt.meta.trace.note_mark();
            let (device, next_hop) = self.find_way_out(&pkt.bytes, mark).ok_or(DropReason::NoRoute)?;
            (pkt.meta.oif, pkt.meta.next_hop) = (Some(device), Some(next_hop));
            pkt.way_out = Some((device, next_hop));
        }
        self.run_filter_chains(Hook::Postrouting, BEFORE_SNAT, pkt)?;
        if !attached {
            let is_new = pkt.ctx.as_mut().is_some_and(|ctx| ctx.unconfirmed().is_some());
            if is_new && pkt.meta.next_hop.is_none() && self.program.has_nat_chain_at(Hook::Postrouting) {
                self.note_next_hop(pkt);
            }
            self.run_nat(Hook::Postrouting, Manip::Source, pkt)?;
        }
        self.run_filter_chains(Hook::Postrouting, AFTER_SNAT, pkt)?;
        if pkt.is_output {
            self.synproxy_hook(pkt)?;
            if self.is_looped(to) {
                return self.come_in_by_loopback(pkt);
            }
        }
        self.confirm(pkt)
    }

    /// Notes where a packet that a socket of the machine sends goes next: the kernel has routed it, and told the interface alone.
    fn note_next_hop(&mut self, pkt: &mut InFlightPacket) {
        pkt.meta.trace.note_mark();
        let found = self.find_way_out(&pkt.bytes, pkt.meta.mark);
        // A socket that is bound to an interface is routed otherwise.
        let is_same_way = |(device, _): &(InterfaceInfo, IpAddr)| pkt.meta.oif == Some(*device);
        pkt.meta.next_hop = found.filter(is_same_way).map(|(_, next_hop)| next_hop);
    }

    /// The source of an ICMP error to this address: that of the interface it leaves by, for the next hop of its route.
    fn source_towards(&mut self, to: IpAddr) -> Option<IpAddr> {
        let asked = self.route_oracle.as_mut().filter(|_| !is_link_local(to));
        match asked.and_then(|oracle| oracle.ask(&RouteQuery::from_machine(to))) {
            Some(RouteAnswer::Out { oif, next_hop, .. }) => self.fib.source_address(oif, to, Some(next_hop)),
            Some(RouteAnswer::Nowhere(_) | RouteAnswer::Dropped(_)) => None,
            Some(RouteAnswer::Host) | None => {
                self.fib.route_lookup(to, None).and_then(|device| self.fib.source_address(device.index, to, None))
            }
        }
    }

    /// Does it belong to a connection of the table, or begin one to another end than the packet was sent to?
    fn is_translated_by_now(&self, pkt: &InFlightPacket) -> bool {
        let is_led = |ctx: &PacketCtx| !self.engine.nat_rewrite(ctx, Manip::Destination).is_none();
        pkt.ctx.as_ref().is_some_and(|ctx| ctx.connection().is_some() || is_led(ctx))
    }

    /// Is it a packet of the machine to itself?
    fn is_looped(&self, to: IpAddr) -> bool {
        self.fib.is_local(to)
    }

    /// The hooks that a packet of the machine to itself passes at the other end of the loopback interface. Its connection has its translation already, and is in the table when it has
    /// left: what is dropped on its way in leaves an entry, as in Linux.
    fn come_in_by_loopback(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let ctx = pkt.ctx.as_ref().map(PacketCtx::same_direction_ctx);
        self.confirm(pkt)?;
        pkt.ctx = ctx.map(|ctx| ctx.confirmed_as(pkt.conn_id));
        self.pass_input_of_loopback(pkt)?;
        pkt.ctx = None;
        Ok(())
    }

    fn pass_input_of_loopback(&mut self, pkt: &mut InFlightPacket) -> Result<(), DropReason> {
        let oif = pkt.meta.oif.take();
        pkt.meta.iif = self.fib.device(LOOPBACK_INDEX).or(oif);
        pkt.meta.is_leaving = false;
        self.run_filter_chains(Hook::Prerouting, ALL_PRIORITIES, pkt)?;
        pkt.meta.is_delivered = true;
        self.run_filter_chains(Hook::Input, ALL_PRIORITIES, pkt)
    }

    /// The interface that such a packet comes in by: an answer in another's name by the one that leads to the other (as a reverse path filter wants it), all others by the loopback interface.
    fn looped_to(&self, packet: &[u8]) -> u32 {
        let source = Packet::parse(packet).ok().map(|packet| source_of(&packet));
        let foreign = source.filter(|source| !self.fib.is_local(*source));
        foreign.and_then(|source| self.fib.route_lookup(source, None)).map_or(LOOPBACK_INDEX, |device| device.index)
    }
}

/// The source address.
pub(super) fn source_of(packet: &Packet<'_>) -> IpAddr {
    match packet.addresses() {
        Addresses::V4 { source, .. } => IpAddr::from(source),
        Addresses::V6 { source, .. } => IpAddr::from(source),
    }
}

/// One hop less where the packet has just come in; IPv4 packets are not to be fragmented. As in Linux.
fn prepare_copy(bytes: &mut [u8], has_come_in: bool) {
    let Ok(mut copy) = PacketMut::new(bytes) else { return };
    let &[first, _, _, _, _, _, flags, hops_v6, hops_v4, ..] = copy.bytes() else { return };
    let v4 = first >> 4 == 4;
    if has_come_in {
        copy.set_hop_limit(if v4 { hops_v4 } else { hops_v6 }.wrapping_sub(1));
    }
    if v4 {
        copy.set_bits(HeaderBase::Network, 48..56, u128::from(flags | 0x40), ChecksumMode::Update);
    }
}

/// Is it a link-local IPv6 address?
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
