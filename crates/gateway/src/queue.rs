//! The driver on a queue of netfilter's: works on any machine, beside the kernel's own rules.
//!
//! A rule of the kernel's hands over what comes in (before it is tracked there, if it is wise: `iptables -t raw -I PREROUTING -i eth0 -j NFQUEUE --queue-num 0`). What the router leaves to the machine
//! goes on where it stood; what it sends on leaves by the machine's routes, and the packet that was handed over goes no further.
use super::core::Shared;
use super::ground;
use super::run::Driver;
use anyhow::{Context, Result};
use keepstate_engine::Instant;
use keepstate_linux::nfqueue::{Queue, Sender, Verdict};
use keepstate_linux::route::Watcher;
use keepstate_linux::tun;
use keepstate_router::{Map, Out};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Reads before the rest of the house has its turn.
const TURN: usize = 64;

/// The queue, and what is known of the machine.
pub(super) struct Queued {
    queue: Queue,
    sender: Sender,
    watcher: Watcher,
    map: Option<Map>,
    lost: u64,
    out: Vec<Out>,
    /// Of one read: which packet, and what it goes on as (none: no further).
    verdicts: Vec<(u32, Option<Vec<u8>>)>,
}

impl Queued {
    /// Takes the queue of this number.
    ///
    /// # Errors
    /// It may not be done, or another program has it.
    pub(super) fn new(number: u16) -> Result<Queued> {
        let queue = Queue::bind(number).with_context(|| {
            format!("queue {number}: it needs CAP_NET_ADMIN, a kernel with NFQUEUE, and no other program on it")
        })?;
        let sender = Sender::open().context("a raw socket to send by needs CAP_NET_RAW")?;
        let mut watcher = Watcher::open().context("a socket to the kernel's routes")?;
        let known = watcher.everything().context("reading the kernel's devices and routes")?;
        let map = Some(ground::map(&known));
        Ok(Queued { queue, sender, watcher, map, lost: 0, out: Vec::new(), verdicts: Vec::new() })
    }
}

impl Driver for Queued {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        tun::wait([self.queue.as_fd()], milliseconds).context("waiting for datagrams")
    }

    fn turn(&mut self, core: &Shared, now: Instant) -> Result<usize> {
        let router = &mut core.lock().router;
        let mut count = 0;
        for _ in 0..TURN {
            let Queued { queue, sender, out, verdicts, lost, .. } = self;
            let more = queue
                .receive(|packet| {
                    count += 1;
                    // A loss is counted, and told to whom it must be.
                    let _ = router.handle(packet.datagram, packet.device, now, out);
                    let mut goes_on = None;
                    for left in out.drain(..) {
                        match left {
                            Out::Host(bytes) => goes_on = Some(bytes),
                            Out::Device(_, _, bytes) => {
                                *lost += u64::from(!end(&bytes).is_some_and(|to| sender.send(to, &bytes)));
                                router.recycle(bytes);
                            }
                        }
                    }
                    verdicts.push((packet.id, goes_on));
                })
                .context("the queue is gone")?;
            for (id, goes_on) in self.verdicts.drain(..) {
                let verdict = if goes_on.is_some() { Verdict::Accept } else { Verdict::Drop };
                self.queue.decide(id, verdict, goes_on.as_deref()).context("the queue is gone")?;
            }
            if !more {
                break;
            }
        }
        Ok(count)
    }

    fn map(&mut self) -> Result<Option<Map>> {
        if self.watcher.news().context("following the kernel's routes")?.map {
            let known = self.watcher.everything().context("reading the kernel's devices and routes")?;
            self.map = Some(ground::map(&known));
        }
        Ok(self.map.take())
    }

    fn account(&self) -> String {
        if self.lost == 0 { String::new() } else { format!("; {} could not be sent", self.lost) }
    }
}

/// Where a datagram goes: the kernel finds the neighbour itself.
fn end(datagram: &[u8]) -> Option<IpAddr> {
    match datagram.first()? >> 4 {
        4 => datagram.get(16..20)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        _ => datagram.get(24..40)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
    }
}
