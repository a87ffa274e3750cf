//! Packets of the carrier: read, given to the router, and written back with what is to be done with them.
use super::link_news::lock;
use super::looped::{self, LoopedFlow};
use super::{RxPacket, TcDriver, TxPacket};
use crate::gso;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::tc::{CARRIER_NAME, CarriedPacket, CarrierAction, LoopedEnds, TcHook};
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_router::{Egress, MarkedEgress, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;

/// Packets read before the router is locked.
const RX_BATCH: usize = 64;

impl TcDriver {
    /// Tells the senders of packets to neighbours that have not answered.
    pub(super) fn report_unanswered(&mut self, failed: Vec<Vec<u8>>, router: &mut Router, now: Instant) {
        router.set_packet_mark(0);
        for packet in failed {
            router.send_host_unreachable(&packet, now);
            while let Some(out) = router.poll_marked_output() {
                self.queue_own(out);
            }
        }
    }

    /// Queues what the router has answered to connections that were opened by class, and notes who may have to be told that a neighbour does not answer.
    pub(super) fn send_own(&mut self) {
        for (neighbour, syn) in self.flows.take_gone_on() {
            lock(&self.unanswered).note(neighbour, &syn);
        }
        self.flows.take_outputs().into_iter().for_each(|out| self.queue_own(out));
    }

    /// Queues a packet of the router's own, which is an answer to none that was read.
    pub(super) fn queue_own(&mut self, MarkedEgress { egress, mark }: MarkedEgress) {
        let Egress::Forward { oif, next_hop, packet } = egress else { return };
        let offload = VirtioNetHdr::default();
        let carried =
            CarriedPacket { hook: TcHook::Ingress, ifindex: 0, mark, uid: None, ethernet: [0; 14], offload, length: 0 };
        self.to_send.push(TxPacket {
            action: CarrierAction::Neighbour(oif, next_hop),
            carried,
            bytes: packet,
            offload,
        });
    }

    /// Reads a batch of packets at most.
    pub(super) fn receive(&mut self) -> Result<()> {
        while self.received.len() < RX_BATCH {
            let read = self.carrier.read(&mut self.buffer).with_context(|| format!("{CARRIER_NAME} is gone"))?;
            let Some(carried) = read else { break };
            let bytes = self.buffers.take_packet(&mut self.buffer, carried.length);
            self.received.push(RxPacket { carried, bytes });
        }
        Ok(())
    }

    /// Gives a packet to the router, and takes what it gives out.
    pub(super) fn route(&mut self, mut packet: RxPacket, router: &mut Router, now: Instant) {
        let carried = packet.carried;
        // What the machine sends to itself is told by its ends whether it comes here again.
        let looped = (carried.ifindex == looped::LOOPBACK_INDEX).then(|| looped::ends_of(&packet.bytes)).flatten();
        router.set_packet_mark(carried.mark);
        router.set_socket_uid(carried.uid);
        router.set_link_header(Some(carried.ethernet));
        let gso = carried.offload.gso_size.and_then(|size| GsoPacket::parse(&packet.bytes, size));
        match (&gso, carried.offload.needs_csum) {
            (Some(gso), Some(_)) => route_gso(router, gso, &mut packet.bytes, &carried, now),
            (_, needs_csum) => {
                if let Some((from, at)) = needs_csum {
                    rewrite::finish_partial_checksum(&mut packet.bytes, from.into(), at.into());
                }
                route_one(router, &mut packet.bytes, None, &carried, now);
            }
        }
        while let Some(MarkedEgress { egress, mark }) = router.poll_marked_output() {
            let (action, mut bytes) = match egress {
                Egress::Forward { oif, next_hop, packet } => {
                    self.note_looped(LoopedFlow::Taken, looped);
                    (CarrierAction::Neighbour(oif, next_hop), packet)
                }
                Egress::LocalDeliver(packet) => (CarrierAction::Deliver(carried.ifindex), packet),
                Egress::ToProxy { protocol, listens_at, packet } => {
                    (CarrierAction::Proxy { ifindex: carried.ifindex, protocol, listens_at }, packet)
                }
                Egress::LetOut(packet) if looped.is_some() => {
                    self.note_looped(LoopedFlow::LetOn, looped);
                    (CarrierAction::Deliver(carried.ifindex), packet)
                }
                Egress::LetOut(packet) => (CarrierAction::Send(carried.ifindex), packet),
                Egress::Loop { iif, packet } => {
                    self.note_looped(LoopedFlow::Taken, looped);
                    self.note_looped(LoopedFlow::Taken, looped::ends_of(&packet).map(|ends| ends.answers()));
                    (CarrierAction::Deliver(iif), packet)
                }
            };
            let offload = gso::tx_offload(gso.as_ref(), &mut bytes);
            let mut carried = CarriedPacket { mark, ..carried };
            if let CarrierAction::Deliver(iif) = action {
                let (to, from) = carried.ethernet.split_at_mut(6);
                if carried.hook == TcHook::Egress {
                    // To the machine itself: as if the other end of the link had sent it.
                    to.swap_with_slice(from.get_mut(..6).unwrap_or_default());
                }
                if iif != carried.ifindex {
                    to.copy_from_slice(&self.mac_of(iif));
                }
            }
            self.to_send.push(TxPacket { action, carried, bytes, offload });
        }
        self.buffers.recycle(packet.bytes);
    }

    /// Tells the programs what becomes of packets with these ends at the loopback interface.
    fn note_looped(&mut self, flow: LoopedFlow, ends: Option<LoopedEnds>) {
        if let Some(ends) = ends {
            looped::tell_programs(&mut self.hooks, flow, &ends, &mut self.loopback_failed);
        }
    }

    /// Is asked of what the machine sends to itself, as long as rules translate what it sends.
    pub(super) fn follow_translation(&mut self, asks: bool) -> Result<()> {
        if asks != self.asks_loopback {
            self.hooks.ask_of_loopback(asks).context("asking of what the machine sends to itself")?;
            self.asks_loopback = asks;
        }
        Ok(())
    }

    /// The MAC address of an interface, as far as it has one.
    fn mac_of(&self, ifindex: u32) -> [u8; 6] {
        lock(&self.links).links.get(&ifindex).and_then(|link| link.mac).unwrap_or_default()
    }

    /// Writes what the router gave out.
    pub(super) fn send(&mut self) -> Result<()> {
        for TxPacket { action, carried, bytes, offload } in std::mem::take(&mut self.to_send) {
            if let (CarrierAction::Neighbour(oif, next_hop), None) = (action, offload.gso_size) {
                lock(&self.unanswered).note((oif, next_hop), &bytes);
            }
            let written = self.carrier.write(action, &carried, &bytes, offload);
            self.lost += u64::from(!written.with_context(|| format!("{CARRIER_NAME} is gone"))?);
            self.buffers.recycle(bytes);
        }
        Ok(())
    }
}

fn route_one(router: &mut Router, bytes: &mut Vec<u8>, max_len: Option<usize>, carried: &CarriedPacket, now: Instant) {
    // Drops are counted and answered by the router.
    let _ = match (carried.hook, max_len) {
        (TcHook::Egress, max_len) => router.handle_output(bytes, max_len, carried.ifindex, now),
        (TcHook::Ingress, None) => router.handle_owned(bytes, carried.ifindex, now),
        (TcHook::Ingress, Some(max_len)) => router.handle_gso(bytes, max_len, carried.ifindex, now),
    };
}

/// Routes a GSO packet; segment by segment, where the segments are too big for the outgoing MTU.
fn route_gso(router: &mut Router, gso: &GsoPacket, bytes: &mut Vec<u8>, carried: &CarriedPacket, now: Instant) {
    if carried.hook == TcHook::Ingress {
        return gso::route_gso(router, gso, bytes, carried.ifindex, now);
    }
    route_one(router, bytes, Some(gso.max_segment_len()), carried, now);
}
