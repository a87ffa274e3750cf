//! Packets of the router's own: what it answers, and the way they take.
//!
//! An answer to a packet with a connection belongs to that connection, and is made from the packet as it was sent; any other is tracked, filtered and translated like anything that
//! leaves a machine. Nobody is told what became of an answer.
use super::{
    AFTER_DNAT, AFTER_SNAT, BEFORE_CONNTRACK, BEFORE_SNAT, CONNTRACK_TO_DNAT, DropReason, Egress, InFlightPacket,
    Router, destination_address, destination_of, drop_reason_of,
};
use crate::icmp_error;
use keepstate_engine::{CtVerdict, Instant, Manip, PacketCtx, SynproxyState};
use keepstate_rules::ast::{Hook, Reject};
use keepstate_rules::{Fib, PacketMeta};
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
            None => {
                let answer = pkt.pre_nat_packet().and_then(|packet| icmp_error::build_tcp_reset(&packet));
                answer.into_iter().for_each(|answer| self.send_reply(answer, pkt));
            }
        }
    }

    /// Tells the sender what became of its packet: about the packet as it was sent, not as we have translated it.
    pub(super) fn send_icmp_error(&mut self, pkt: &InFlightPacket, kind: u8, code: u8, word: u32) {
        let Some(packet) = pkt.pre_nat_packet() else { return };
        let sent = packet.bytes();
        let to = match packet.addresses() {
            Addresses::V4 { source, .. } => IpAddr::from(source),
            Addresses::V6 { source, .. } => IpAddr::from(source),
        };
        // About a translated destination we speak as that destination: nobody is to learn what stands behind it.
        let asked = destination_of(sent).ok().filter(|asked| destination_of(&pkt.bytes).is_ok_and(|now| now != *asked));
        let asked = asked.or_else(|| destination_of(sent).ok().filter(|asked| self.fib.is_local(*asked)));
        let us = asked
            .or_else(|| self.fib.route_lookup(to, None).and_then(|device| self.fib.source_address(device.index, to)));
        let Some(answer) = us.and_then(|us| icmp_error::build_icmp_error(&packet, us, kind, code, word)) else {
            return;
        };
        // Who is not told of a path's MTU never gets through.
        let always = if to.is_ipv6() { kind == 2 } else { (kind, code) == (3, 4) };
        if always || self.icmp_limiter.as_mut().is_none_or(|limiter| limiter.allows(to, pkt.now)) {
            self.send_reply(answer, pkt);
        }
    }

    /// Tells the sender of a datagram that had left here that its next neighbour does not answer.
    pub fn send_host_unreachable(&mut self, bytes: &[u8], now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let (from, kind, code) = match packet.addresses() {
            Addresses::V4 { source, .. } => (IpAddr::from(source), 3, 1),
            Addresses::V6 { source, .. } => (IpAddr::from(source), 1, 3),
        };
        // To its sender as the world sees him, who may be ourselves; the answer is translated as any other.
        let us = match self.fib.is_local(from) {
            true => Some(from),
            false => self.fib.route_lookup(from, None).and_then(|device| self.fib.source_address(device.index, from)),
        };
        let Some(answer) = us.and_then(|us| icmp_error::build_icmp_error(&packet, us, kind, code, 0)) else { return };
        if self.icmp_limiter.as_mut().is_none_or(|limiter| limiter.allows(from, now)) {
            self.local_out(answer, None, None, now);
        }
    }

    /// Sends an answer of our own about a packet. It belongs to the packet's connection, if that has one; else it is tracked like anything that leaves.
    pub(crate) fn send_reply(&mut self, answer: Vec<u8>, about: &InFlightPacket) {
        // Nothing is said to ourselves, nor to who has no address beyond his link: which link that was, an address does not say.
        let speaks = |to: IpAddr| !self.fib.is_local(to) && !is_link_local(to);
        if !destination_of(&answer).is_ok_and(speaks) {
            return;
        }
        let ctx = about.ctx.as_ref().filter(|ctx| ctx.direction().is_some()).map(PacketCtx::reply_ctx);
        self.local_out(answer, ctx, None, about.now);
    }

    /// Sends a packet of our own. With a passage it belongs to that connection, and is as its other end is to see it; else it is tracked like anything that leaves, and a connection that it
    /// begins keeps the promise.
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
        // Errors about our own packets go to nobody.
        let queued = self.output.len();
        let passed = self.run_output_hooks(&mut pkt, attached);
        self.output.truncate(queued);
        if passed.is_ok()
            && let Ok(to) = destination_of(&pkt.bytes)
            && let Some((oif, next_hop)) = self.fib.next_hop(to)
        {
            self.counters.generated += 1;
            self.output.push_back(Egress::Forward { oif: oif.index, next_hop, packet: pkt.bytes });
        }
        self.queue_log(&mut pkt.meta.log_lines);
    }

    /// The way of our own packets. `attached` ones were made from what their connection's packet was before it was translated, so that nothing is to be
    /// changed in them.
    fn run_output_hooks(&mut self, pkt: &mut InFlightPacket, attached: bool) -> Result<(), DropReason> {
        pkt.meta.oif = self.fib.route_lookup(destination_of(&pkt.bytes)?, None);
        self.run_filter_chains(Hook::Output, BEFORE_CONNTRACK, pkt)?;
        if !attached && !pkt.meta.untracked {
            let packet = pkt.packet()?;
            let mut ctx = self.engine.track(&packet, pkt.meta.zone, pkt.now);
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
        self.run_filter_chains(Hook::Output, AFTER_DNAT, pkt)?;
        pkt.meta.oif = Some(self.fib.route_lookup(destination_of(&pkt.bytes)?, None).ok_or(DropReason::NoRoute)?);
        self.run_filter_chains(Hook::Postrouting, BEFORE_SNAT, pkt)?;
        if !attached {
            self.run_nat(Hook::Postrouting, Manip::Source, pkt)?;
        }
        self.run_filter_chains(Hook::Postrouting, AFTER_SNAT, pkt)?;
        self.confirm(pkt)
    }
}

/// Does it mean something on its link alone?
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
