//! The NFQUEUE driver: works on any host, beside the kernel's own rules.
//!
//! A kernel rule queues the packets that come in (best before conntrack: `iptables -t raw -I PREROUTING -i eth0 -j NFQUEUE --queue-num 0`). A packet that the router
//! delivers to the host is accepted and goes on in the kernel; one that it forwards is sent by a raw socket and the host's routes, and the queued packet is dropped.
use super::driver::Driver;
use super::kernel_fib;
use super::shared::SharedGateway;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::nfqueue::{NfQueue, QueueVerdict};
use keepstate_linux::poll;
use keepstate_linux::raw_socket::RawIpSender;
use keepstate_linux::rtnetlink::RtMonitor;
use keepstate_router::{Egress, FibTable};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Reads in one batch.
const RX_BATCH: usize = 64;

/// The queue, the raw socket, and the kernel's routes.
pub(super) struct NfqueueDriver {
    queue: NfQueue,
    sender: RawIpSender,
    watcher: RtMonitor,
    fib: Option<FibTable>,
    send_failures: u64,
    /// Of one read: the packet id, and the packet to accept it as (none: drop).
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
        let mut watcher = RtMonitor::open().context("opening a route socket")?;
        let messages = watcher.dump_all().context("reading the kernel's interfaces and routes")?;
        let fib = Some(kernel_fib::build_fib(&messages));
        Ok(NfqueueDriver { queue, sender, watcher, fib, send_failures: 0, verdicts: Vec::new() })
    }
}

impl Driver for NfqueueDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        poll::poll_readable([self.queue.as_fd()], milliseconds).map(drop).context("waiting for packets")
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        let router = &mut gateway.lock().router;
        let mut count = 0;
        for _ in 0..RX_BATCH {
            let NfqueueDriver { queue, sender, verdicts, send_failures, .. } = self;
            let more = queue
                .receive(|packet| {
                    count += 1;
                    // Drops are counted and answered by the router.
                    let _ = router.handle(packet.packet, packet.ifindex_in, now);
                    let mut accepted = None;
                    while let Some(egress) = router.poll_output() {
                        match egress {
                            Egress::LocalDeliver(bytes) | Egress::LetOut(bytes) => accepted = Some(bytes),
                            Egress::Forward { packet: bytes, .. } => {
                                *send_failures +=
                                    u64::from(!destination(&bytes).is_some_and(|to| sender.send(to, &bytes)));
                                router.recycle_buffer(bytes);
                            }
                        }
                    }
                    verdicts.push((packet.id, accepted));
                })
                .context("reading NFQUEUE")?;
            for (id, accepted) in self.verdicts.drain(..) {
                let verdict = if accepted.is_some() { QueueVerdict::Accept } else { QueueVerdict::Drop };
                self.queue.send_verdict(id, verdict, accepted.as_deref()).context("reading NFQUEUE")?;
            }
            if !more {
                break;
            }
        }
        Ok(count)
    }

    fn poll_fib(&mut self) -> Result<Option<FibTable>> {
        if self.watcher.poll_changes().context("following the kernel's routes")?.needs_resync {
            let messages = self.watcher.dump_all().context("reading the kernel's interfaces and routes")?;
            self.fib = Some(kernel_fib::build_fib(&messages));
        }
        Ok(self.fib.take())
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
