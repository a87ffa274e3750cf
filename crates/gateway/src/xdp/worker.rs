//! One worker: a queue of every interface, from its sockets through the router and out.
//!
//! The router is locked only while it handles a batch; receiving, merging and sending, which cost most, run in parallel.
use super::port::{Port, probe_burst};
use super::rx_batch::RxBatch;
use super::shared::XdpShared;
use crate::driver::Driver;
use crate::gso;
use crate::packet_batch::TxPacket;
use crate::shared::SharedGateway;
use crate::turns::TurnKind;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::poll;
use keepstate_linux::xdp::{LiveFrames, XdpRedirect};
use keepstate_router::Egress;
use keepstate_wire::gso::GsoPacket;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Frames received from one queue before the next has its turn.
const RX_BATCH: u32 = 64;
/// Fewer frames than this are sent by the sockets: a batch would cost more.
const MIN_BURST: usize = 8;

/// One worker.
pub(super) struct Worker {
    pub(super) ports: Vec<Port>,
    /// Batched tx, for ports in copy mode; and the XDP program that it runs.
    pub(super) burst: Option<LiveFrames>,
    pub(super) redirect: Option<XdpRedirect>,
    shared: Arc<XdpShared>,
    rx: RxBatch,
    /// The main worker sends the packets that waited for a neighbour.
    is_main: bool,
}

impl Worker {
    /// One without ports.
    pub(super) fn new(shared: Arc<XdpShared>, is_main: bool) -> Worker {
        Worker { ports: Vec::new(), burst: None, redirect: None, shared, rx: RxBatch::default(), is_main }
    }

    /// Receives frames; returns how many.
    fn receive(&mut self) -> u32 {
        let mut count = 0;
        for port in &mut self.ports {
            for socket in &mut port.sockets {
                let take = |frame: &[u8]| self.rx.push(frame, port.index);
                count += socket.receive(RX_BATCH, take);
                self.rx.flush(port.index);
            }
        }
        count
    }

    /// Routes the received packets.
    fn route_batch(&mut self, gateway: &SharedGateway, now: Instant) {
        let failed = if self.is_main { self.shared.lock().neighbours.take_failed() } else { Vec::new() };
        self.shared.drops.add_unresolved(failed.len() as u64);
        let packets = &mut self.rx.packets;
        if packets.is_empty() && failed.is_empty() {
            return;
        }
        let router = &mut gateway.lock(TurnKind::Packets).router;
        packets.route(router, now);
        for bytes in failed {
            router.send_host_unreachable(&bytes, now);
        }
        packets.collect_outputs(router);
    }

    /// Sends the packets that the router gave out.
    fn send_batch(&mut self, now: Instant) -> Result<()> {
        let mut packets = self.rx.packets.take_outputs();
        for TxPacket { egress, gso, .. } in packets.drain(..) {
            let bytes = match egress {
                Egress::LocalDeliver(mut bytes)
                | Egress::LetOut(mut bytes)
                | Egress::Loop { packet: mut bytes, .. } => {
                    self.shared.to_kernel(&mut bytes, gso.as_ref())?;
                    bytes
                }
                Egress::Forward { oif: ifindex, next_hop: to, packet: mut bytes } => {
                    match self.ports.iter().position(|port| port.index == ifindex) {
                        Some(at) => {
                            if let Some(mac) = self.shared.resolve((ifindex, to), &bytes, gso.as_ref(), now) {
                                self.send_packet(at, mac, &mut bytes, gso.as_ref())?;
                            }
                        }
                        None => self.shared.to_kernel(&mut bytes, gso.as_ref())?,
                    }
                    bytes
                }
            };
            self.rx.packets.buffers.recycle(bytes);
        }
        self.rx.packets.return_outputs(packets);
        Ok(())
    }

    /// Sends a packet by one of the ports.
    fn send_packet(&mut self, at: usize, mac: [u8; 6], bytes: &mut [u8], gso: Option<&GsoPacket>) -> Result<()> {
        let offload = gso::tx_offload(gso, bytes);
        // A GSO packet must not overtake frames that wait for the flush.
        if match offload.gso_size {
            Some(_) => self.ports.get(at).is_some_and(|port| port.needs_flush),
            None => self.burst.as_ref().is_some_and(LiveFrames::is_full),
        } {
            self.flush()?;
        }
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        let sent = match offload.gso_size {
            Some(_) => port.send_gso(mac, bytes, offload).context("an interface is gone")?,
            None => port.send(mac, bytes, &mut self.burst),
        };
        self.shared.drops.add_ring_full(u64::from(!sent));
        Ok(())
    }

    /// Sends packets whose neighbour is known now.
    fn send_resolved(&mut self) {
        let resolved = self.shared.lock().neighbours.take_resolved();
        for (ifindex, mac, bytes) in resolved {
            if let Some(port) = self.ports.iter_mut().find(|port| port.index == ifindex) {
                self.shared.drops.add_ring_full(u64::from(!port.send(mac, &bytes, &mut self.burst)));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.ports.iter_mut().for_each(|port| port.needs_flush = false);
        if let (Some(burst), Some(redirect)) = (&mut self.burst, &self.redirect) {
            if burst.queued() >= MIN_BURST {
                let lost = burst.send(redirect).context("batched tx failed")?;
                self.shared.drops.add_ring_full(lost);
                // An interface may not support it any more: then its sockets send from now on.
                if lost > 0 {
                    probe_burst(&mut self.ports, burst, redirect);
                }
            } else {
                for (ifindex, frame) in burst.drain() {
                    let port = self.ports.iter_mut().find(|port| port.index == ifindex);
                    self.shared.drops.add_ring_full(u64::from(!port.is_some_and(|port| port.send_frame(frame))));
                }
            }
        }
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.flush().context("an interface is gone")?;
        }
        Ok(())
    }
}

impl Driver for Worker {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        let sockets = self.ports.iter().flat_map(|port| &port.sockets).map(AsFd::as_fd);
        poll::poll_readable(sockets, milliseconds).map(drop).context("waiting for packets")
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        let count = self.receive();
        self.route_batch(gateway, now);
        self.send_batch(now)?;
        if self.is_main {
            self.send_resolved();
        }
        self.flush()?;
        Ok(count as usize)
    }
}
