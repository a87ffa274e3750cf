//! One worker: a queue of every device, from its sockets through the router and out.
//!
//! Frames are copied and coupled, and sent, without the router; only in between it is held, over a batch. So workers do side by side what costs most.
use super::port::{ETH_HEADER_LEN, Port, probe_burst};
use super::rx_batch::{RxBatch, RxPacket};
use super::shared::XdpShared;
use crate::gso;
use crate::main_loop::Driver;
use crate::shared::SharedGateway;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::poll;
use keepstate_linux::xdp::{LiveFrames, XdpRedirect};
use keepstate_router::{Egress, Router};
use keepstate_wire::gso::GsoPacket;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Frames taken from one queue before the next has its turn.
const RX_BATCH: u32 = 64;
/// Fewer frames than this are not worth the price of a burst.
const MIN_BURST: usize = 8;

/// One worker.
pub(super) struct Worker {
    pub(super) ports: Vec<Port>,
    /// Sends many frames with one call, for ports whose sockets copy; and the program that does it.
    pub(super) burst: Option<LiveFrames>,
    pub(super) diversion: Option<XdpRedirect>,
    shared: Arc<XdpShared>,
    rx: RxBatch,
    tx: Vec<TxPacket>,
    /// It sees to those who wait for a neighbour.
    is_main: bool,
}

/// What the router has given out.
struct TxPacket {
    out: Egress,
    /// What it came as, if it stands for many.
    gso: Option<GsoPacket>,
}

impl Worker {
    /// One without ports.
    pub(super) fn new(shared: Arc<XdpShared>, is_main: bool) -> Worker {
        Worker {
            ports: Vec::new(),
            burst: None,
            diversion: None,
            shared,
            rx: RxBatch::default(),
            tx: Vec::new(),
            is_main,
        }
    }

    /// Gathers what has come; how many frames that were.
    fn receive(&mut self) -> u32 {
        let mut count = 0;
        for port in &mut self.ports {
            for socket in &mut port.sockets {
                let take = |frame: &[u8]| self.rx.push(frame.get(ETH_HEADER_LEN..).unwrap_or_default(), port.index);
                count += socket.receive(RX_BATCH, take);
                self.rx.flush(port.index);
            }
        }
        count
    }

    /// Has all of it routed.
    fn route_batch(&mut self, core: &SharedGateway, now: Instant) {
        let failed = if self.is_main { self.shared.lock().neighbours.take_failed() } else { Vec::new() };
        self.shared.drops.add_unresolved(failed.len() as u64);
        if self.rx.packets().is_empty() && failed.is_empty() {
            return;
        }
        let router = &mut core.lock().router;
        let mut arrived = std::mem::take(self.rx.packets());
        for RxPacket { mut bytes, gso: train, device } in arrived.drain(..) {
            // A loss is counted, and told to whom it must be.
            match &train {
                Some(train) => gso::route_gso(router, train, &mut bytes, device, now),
                None => drop(router.handle_owned(&mut bytes, device, now)),
            }
            // Empty and without room, if it has left.
            self.rx.recycle(bytes);
            self.tx.extend(outputs(router).map(|out| TxPacket { out, gso: train }));
        }
        *self.rx.packets() = arrived;
        for bytes in failed {
            router.send_host_unreachable(&bytes, now);
        }
        self.tx.extend(outputs(router).map(|out| TxPacket { out, gso: None }));
    }

    /// Sends what the router has given out.
    fn send_batch(&mut self, now: Instant) -> Result<()> {
        let mut leaving = std::mem::take(&mut self.tx);
        for TxPacket { out, gso: train } in leaving.drain(..) {
            let bytes = match out {
                Egress::LocalDeliver(mut bytes) => {
                    self.shared.to_kernel(&mut bytes, train.as_ref())?;
                    bytes
                }
                Egress::Forward { oif: device, next_hop: to, packet: mut bytes } => {
                    match self.ports.iter().position(|port| port.index == device) {
                        Some(at) => {
                            if let Some(mac) = self.shared.resolve((device, to), &bytes, train.as_ref(), now) {
                                self.send_packet(at, mac, &mut bytes, train.as_ref())?;
                            }
                        }
                        None => self.shared.to_kernel(&mut bytes, train.as_ref())?,
                    }
                    bytes
                }
            };
            self.rx.recycle(bytes);
        }
        self.tx = leaving;
        Ok(())
    }

    /// Sends a datagram by one of the ports.
    fn send_packet(&mut self, at: usize, mac: [u8; 6], bytes: &mut [u8], train: Option<&GsoPacket>) -> Result<()> {
        let left = gso::tx_offload(train, bytes);
        // What stands for many segments must not overtake what was to leave before.
        if match left.gso_size {
            Some(_) => self.ports.get(at).is_some_and(|port| port.needs_flush),
            None => self.burst.as_ref().is_some_and(LiveFrames::is_full),
        } {
            self.flush()?;
        }
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        let sent = match left.gso_size {
            Some(_) => port.send_gso(mac, bytes, left).context("a device is gone")?,
            None => port.send(mac, bytes, &mut self.burst),
        };
        self.shared.drops.add_ring_full(u64::from(!sent));
        Ok(())
    }

    /// What has waited for a neighbour that is known now.
    fn send_resolved(&mut self) {
        let released = self.shared.lock().neighbours.take_resolved();
        for (device, mac, bytes) in released {
            if let Some(port) = self.ports.iter_mut().find(|port| port.index == device) {
                self.shared.drops.add_ring_full(u64::from(!port.send(mac, &bytes, &mut self.burst)));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.ports.iter_mut().for_each(|port| port.needs_flush = false);
        if let (Some(burst), Some(diversion)) = (&mut self.burst, &self.diversion) {
            if burst.len() >= MIN_BURST {
                let lost = burst.send(diversion).context("a burst cannot be sent any more")?;
                self.shared.drops.add_ring_full(lost);
                // Perhaps a device has changed its mind: then its sockets send from now on.
                if lost > 0 {
                    probe_burst(&mut self.ports, burst, diversion);
                }
            } else {
                for (device, frame) in burst.drain() {
                    let port = self.ports.iter_mut().find(|port| port.index == device);
                    self.shared.drops.add_ring_full(u64::from(!port.is_some_and(|port| port.send_frame(frame))));
                }
            }
        }
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.flush().context("a device is gone")?;
        }
        Ok(())
    }
}

/// What the router has to send.
fn outputs(router: &mut Router) -> impl Iterator<Item = Egress> {
    std::iter::from_fn(|| router.poll_output())
}

impl Driver for Worker {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        let sockets = self.ports.iter().flat_map(|port| &port.sockets).map(AsFd::as_fd);
        poll::poll_readable(sockets, milliseconds).map(drop).context("waiting for datagrams")
    }

    fn process_batch(&mut self, core: &SharedGateway, now: Instant) -> Result<usize> {
        let count = self.receive();
        self.route_batch(core, now);
        self.send_batch(now)?;
        if self.is_main {
            self.send_resolved();
        }
        self.flush()?;
        Ok(count as usize)
    }
}
