//! The driver on a queue of netfilter's: works on any machine, beside the kernel's own rules.
//!
//! A rule of the kernel's hands over what comes in (before it is tracked there, if it is wise: `iptables -t raw -I PREROUTING -i eth0 -j NFQUEUE --queue-num 0`). What the router leaves to the machine
//! goes on where it stood; what it sends on leaves by the machine's routes, and the packet that was handed over goes no further.
use super::kernel_fib;
use super::main_loop::Driver;
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

/// Reads before the rest of the house has its turn.
const RX_BATCH: usize = 64;

/// The queue, and what is known of the machine.
pub(super) struct NfqueueDriver {
    queue: NfQueue,
    sender: RawIpSender,
    watcher: RtMonitor,
    fib: Option<FibTable>,
    send_failures: u64,
    /// Of one read: which packet, and what it goes on as (none: no further).
    verdicts: Vec<(u32, Option<Vec<u8>>)>,
}

impl NfqueueDriver {
    /// Takes the queue of this number.
    ///
    /// # Errors
    /// It may not be done, or another program has it.
    pub(super) fn new(number: u16) -> Result<NfqueueDriver> {
        let queue = NfQueue::bind(number).with_context(|| {
            format!("queue {number}: it needs CAP_NET_ADMIN, a kernel with NFQUEUE, and no other program on it")
        })?;
        let sender = RawIpSender::open().context("a raw socket to send by needs CAP_NET_RAW")?;
        let mut watcher = RtMonitor::open().context("a socket to the kernel's routes")?;
        let known = watcher.dump_all().context("reading the kernel's devices and routes")?;
        let map = Some(kernel_fib::build_fib(&known));
        Ok(NfqueueDriver { queue, sender, watcher, fib: map, send_failures: 0, verdicts: Vec::new() })
    }
}

impl Driver for NfqueueDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        poll::poll_readable([self.queue.as_fd()], milliseconds).map(drop).context("waiting for datagrams")
    }

    fn process_batch(&mut self, core: &SharedGateway, now: Instant) -> Result<usize> {
        let router = &mut core.lock().router;
        let mut count = 0;
        for _ in 0..RX_BATCH {
            let NfqueueDriver { queue, sender, verdicts, send_failures: lost, .. } = self;
            let more = queue
                .receive(|packet| {
                    count += 1;
                    // A loss is counted, and told to whom it must be.
                    let _ = router.handle(packet.packet, packet.ifindex_in, now);
                    let mut goes_on = None;
                    while let Some(left) = router.poll_output() {
                        match left {
                            Egress::LocalDeliver(bytes) => goes_on = Some(bytes),
                            Egress::Forward { packet: bytes, .. } => {
                                *lost += u64::from(!destination(&bytes).is_some_and(|to| sender.send(to, &bytes)));
                                router.recycle_buffer(bytes);
                            }
                        }
                    }
                    verdicts.push((packet.id, goes_on));
                })
                .context("the queue is gone")?;
            for (id, goes_on) in self.verdicts.drain(..) {
                let verdict = if goes_on.is_some() { QueueVerdict::Accept } else { QueueVerdict::Drop };
                self.queue.send_verdict(id, verdict, goes_on.as_deref()).context("the queue is gone")?;
            }
            if !more {
                break;
            }
        }
        Ok(count)
    }

    fn poll_fib(&mut self) -> Result<Option<FibTable>> {
        if self.watcher.poll_changes().context("following the kernel's routes")?.needs_resync {
            let known = self.watcher.dump_all().context("reading the kernel's devices and routes")?;
            self.fib = Some(kernel_fib::build_fib(&known));
        }
        Ok(self.fib.take())
    }

    fn drop_summary(&self) -> String {
        if self.send_failures == 0 { String::new() } else { format!("; {} could not be sent", self.send_failures) }
    }
}

/// Where a datagram goes: the kernel finds the neighbour itself.
fn destination(datagram: &[u8]) -> Option<IpAddr> {
    match datagram.first()? >> 4 {
        4 => datagram.get(16..20)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        _ => datagram.get(24..40)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
    }
}
