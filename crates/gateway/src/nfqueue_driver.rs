//! The NFQUEUE driver: works on any host, beside the kernel's own rules.
//!
//! A kernel rule queues the packets that come in (best before conntrack: `iptables -t raw -I PREROUTING -i eth0 -j NFQUEUE --queue-num 0`). A packet that the router
//! delivers to the host is accepted and goes on in the kernel; one that it forwards is sent by a raw socket and the host's routes, and the queued packet is dropped.
use super::driver::Driver;
use super::packet_batch::{PacketBatch, TxPacket};
use super::route_follower::{FibUpdate, RouteFollower};
use super::shared::SharedGateway;
use super::turns::TurnKind;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::nfqueue::{NfQueue, QueueVerdict};
use keepstate_linux::poll;
use keepstate_linux::raw_socket::RawIpSender;
use keepstate_router::{Egress, FibTable};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Packets read before they are routed; a read may give some more.
const RX_BATCH: usize = 64;

/// The queue, the raw socket, and the kernel's routes.
pub(super) struct NfqueueDriver {
    queue: NfQueue,
    sender: RawIpSender,
    routes: RouteFollower,
    /// The routes at the start, until they are taken.
    fib: Option<FibTable>,
    send_failures: u64,
    batch: PacketBatch,
    /// Of the batch, in order: the packet's id, and the packet to accept it as (none: drop).
    verdicts: Vec<(u32, Option<Vec<u8>>)>,
}

impl NfqueueDriver {
    /// Binds to the queue of this number.
    ///
    /// # Errors
    /// Missing capabilities, or another program is bound to it.
    pub(super) fn new(number: u16) -> Result<NfqueueDriver> {
        let queue = NfQueue::bind(number).with_context(|| {
            format!("NFQUEUE {number}: needs CAP_NET_ADMIN, a kernel with NFQUEUE, and no other program bound to it")
        })?;
        let sender = RawIpSender::open().context("opening a raw socket (needs CAP_NET_RAW)")?;
        let (routes, fib, _) = RouteFollower::open()?;
        Ok(NfqueueDriver {
            queue,
            sender,
            routes,
            fib: Some(fib),
            send_failures: 0,
            batch: PacketBatch::default(),
            verdicts: Vec::new(),
        })
    }
}

impl NfqueueDriver {
    fn read_batch(&mut self) -> Result<()> {
        let NfqueueDriver { queue, batch, verdicts, .. } = self;
        let mut more = true;
        while more && batch.len() < RX_BATCH {
            let read = queue.receive(|packet| {
                batch.push(packet.packet, packet.ifindex_in, packet.id);
                verdicts.push((packet.id, None));
            });
            more = read.context("reading NFQUEUE")?;
        }
        Ok(())
    }

    /// Sends what the router gave out, and the verdict on each packet of the batch: accepted as what it is delivered as, dropped otherwise.
    fn send_outputs(&mut self) -> Result<()> {
        let mut outputs = self.batch.take_outputs();
        // Outputs are in the order of the packets.
        let mut at = 0;
        for TxPacket { egress, id, .. } in outputs.drain(..) {
            match egress {
                Egress::LocalDeliver(bytes)
                | Egress::LetOut(bytes)
                | Egress::ToProxy { packet: bytes, .. }
                | Egress::Loop { packet: bytes, .. } => {
                    let own = self.verdicts.iter().skip(at).position(|(queued, _)| *queued == id);
                    at += own.unwrap_or_default();
                    if let (Some(_), Some((_, accepted))) = (own, self.verdicts.get_mut(at)) {
                        *accepted = Some(bytes);
                    }
                }
                Egress::Forward { packet, .. } => {
                    let sent = destination(&packet).is_some_and(|to| self.sender.send(to, &packet));
                    self.send_failures += u64::from(!sent);
                    self.batch.buffers.recycle(packet);
                }
            }
        }
        self.batch.return_outputs(outputs);
        for (id, accepted) in self.verdicts.drain(..) {
            let verdict = if accepted.is_some() { QueueVerdict::Accept } else { QueueVerdict::Drop };
            self.queue.send_verdict(id, verdict, accepted.as_deref()).context("reading NFQUEUE")?;
            accepted.into_iter().for_each(|bytes| self.batch.buffers.recycle(bytes));
        }
        Ok(())
    }
}

impl Driver for NfqueueDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        poll::poll_readable([self.queue.as_fd()], milliseconds).map(drop).context("waiting for packets")
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        self.read_batch()?;
        let count = self.batch.len();
        if count > 0 {
            self.batch.route(&mut gateway.lock(TurnKind::Packets).router, now);
            self.send_outputs()?;
        }
        Ok(count)
    }

    fn start(&mut self) -> Result<()> {
        self.routes.start(Box::new(|_| ()))
    }

    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        let first = self.fib.take().map(|fib| FibUpdate::Table(Box::new(fib)));
        Ok(first.or_else(|| self.routes.poll()))
    }

    fn drop_counts(&self) -> Vec<(&'static str, u64)> {
        vec![("send failed", self.send_failures)]
    }
}

/// The destination address of a packet: the kernel finds the neighbour itself.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
        _ => packet.get(24..40)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
    }
}
