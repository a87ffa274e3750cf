//! The driver on real devices: datagrams come and go by AF_XDP, routes and neighbours are the kernel's.
//!
//! Every device named gets the program that diverts its datagrams, and a socket on each of its queues. There are as many workers as the device with the fewest queues has queues, each on a thread of its
//! own, with one queue or more of every device. What the router hands to the machine itself, or to a device that was not named, goes to the kernel through a TUN device (`keepstate0`). Dropped, or
//! killed, it leaves the devices as they were.
mod neighbours;
mod port;
mod rx_batch;
mod shared;
mod worker;

use super::kernel_fib;
use super::main_loop::Driver;
use super::shared::SharedGateway;
use crate::notes;
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_linux::af_packet::PacketSocket;
use keepstate_linux::rtnetlink::{RtLink, RtMonitor};
use keepstate_linux::tun::Tun;
use keepstate_linux::xdp::{LiveFrames, XdpRedirect, XskMode, XskSocket};
use keepstate_router::FibTable;
use neighbours::Neighbours;
use port::{Port, probe_burst};
use shared::XdpShared;
use std::net::IpAddr;
use std::sync::Arc;
use worker::Worker;

/// The device by which the kernel gets what is its own.
const HOST_TUN: &str = "keepstate0";

/// The devices, and what is known of their surroundings.
pub(super) struct XdpDriver {
    main_worker: Worker,
    /// The others, until they are asked for.
    other_workers: Vec<Worker>,
    shared: Arc<XdpShared>,
    fib: Option<FibTable>,
    /// Kept so that they stay on their devices; those that workers send through, these have.
    _diversions: Vec<XdpRedirect>,
}

/// How frames are sent where sockets copy.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpTxMode {
    /// Many with one call, where the device takes them so
    Auto,
    /// By the sockets
    Sockets,
}

/// One device with all its queues.
struct XdpDevice {
    index: u32,
    mac: [u8; 6],
    sockets: Vec<XskSocket>,
    diversion: XdpRedirect,
}

impl XdpDriver {
    /// Takes these devices over.
    ///
    /// # Errors
    /// A device is not there, is no Ethernet or is in use; it may not be done.
    pub(super) fn new(names: &[String], mode: XskMode, sending: XdpTxMode) -> Result<XdpDriver> {
        let mut watcher = RtMonitor::open().context("a socket to the kernel's routes")?;
        let known = watcher.dump_all().context("reading the kernel's devices and routes")?;
        let host = Tun::create_with_offloads(HOST_TUN).with_context(|| {
            format!("TUN device {HOST_TUN}: it needs /dev/net/tun and CAP_NET_ADMIN, and one gateway a namespace")
        })?;
        host.set_up(HOST_TUN).with_context(|| format!("{HOST_TUN} cannot be taken up"))?;
        kernel_fib::disable_rp_filter(HOST_TUN);
        let mut devices = Vec::new();
        for name in names {
            let links = kernel_fib::links(&known);
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                let there: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                bail!("--xdp {name}: there is no such device here; there are {}", there.join(", "));
            };
            devices.push(XdpDevice::open(link, mode).with_context(|| format!("--xdp {name}"))?);
        }
        let mut neighbours = Neighbours::default();
        neighbours.update_all(&known);
        let around = Arc::new(XdpShared::new(watcher, neighbours, host));
        let queues: Vec<usize> = devices.iter().map(|device| device.sockets.len()).collect();
        let drivers: Vec<bool> = devices.iter().map(|device| device.diversion.is_driver_mode()).collect();
        let (workers, diversions) = assign_queues(devices, sending, &around)?;
        let mut workers = workers.into_iter();
        let first = workers.next().context("--xdp names no device")?;
        for (((port, name), queues), by_driver) in first.ports.iter().zip(names).zip(queues).zip(drivers) {
            let copies = if port.is_zero_copy() { "zero-copy" } else { "copied" };
            let sends = if port.uses_burst { "sent in bursts" } else { "sent by its sockets" };
            let way = if by_driver { "in its driver" } else { "behind its driver (slower)" };
            notes::note(format!("{name}: {queues} queues, diverted {way}, {copies}, {sends}"));
        }
        let others: Vec<Worker> = workers.collect();
        if !others.is_empty() {
            notes::note(format!("{} workers, each with a queue of every device", others.len() + 1));
        }
        Ok(XdpDriver {
            main_worker: first,
            other_workers: others,
            shared: around,
            fib: Some(kernel_fib::build_fib(&known)),
            _diversions: diversions,
        })
    }
}

/// As many workers as the device with the fewest queues has queues; the others' queues go round among them.
fn assign_queues(
    devices: Vec<XdpDevice>,
    sending: XdpTxMode,
    around: &Arc<XdpShared>,
) -> Result<(Vec<Worker>, Vec<XdpRedirect>)> {
    let count = devices.iter().map(|device| device.sockets.len()).min().unwrap_or_default();
    let mut workers: Vec<Worker> = (0..count).map(|number| Worker::new(around.clone(), number == 0)).collect();
    let mut diversions = Vec::new();
    for XdpDevice { index, mac, sockets, diversion } in devices {
        let mut sockets: Vec<Option<XskSocket>> = sockets.into_iter().map(Some).collect();
        for (number, worker) in workers.iter_mut().enumerate() {
            let sender = PacketSocket::open(index).context("CAP_NET_RAW is needed")?;
            let own = sockets.iter_mut().skip(number).step_by(count).filter_map(Option::take).collect();
            worker.ports.push(Port { index, mac, sockets: own, uses_burst: false, sender, needs_flush: false });
        }
        diversions.push(diversion);
    }
    if sending == XdpTxMode::Sockets {
        return Ok((workers, diversions));
    }
    // Each burst needs a program of its own, and there are as many as devices; who has none sends by its sockets.
    let mut rest = Vec::new();
    let mut takers = workers.iter_mut();
    for mut diversion in diversions {
        let Some(worker) = takers.next() else {
            rest.push(diversion);
            continue;
        };
        let burst = LiveFrames::new(&mut diversion);
        worker.burst = burst.inspect_err(|error| tracing::trace!("frames are sent one by one: {error}")).ok();
        if let Some(burst) = &mut worker.burst {
            probe_burst(&mut worker.ports, burst, &diversion);
        }
        worker.diversion = Some(diversion);
    }
    Ok((workers, rest))
}

impl XdpDevice {
    fn open(link: &RtLink, mode: XskMode) -> Result<XdpDevice> {
        let mac = link.mac.context("it is no Ethernet device; --device makes TUN devices")?;
        if !link.is_up {
            bail!("it is down: ip link set {} up", link.name);
        }
        let mut diversion = XdpRedirect::attach(link.index)
            .context("is another program on it? ip link set dev … xdp off; CAP_NET_ADMIN and CAP_BPF are needed")?;
        let mut sockets = Vec::new();
        for queue in 0..kernel_fib::rx_queue_count(&link.name) {
            let socket = XskSocket::open(link.index, queue, mode).with_context(|| match mode {
                XskMode::ZeroCopy => format!("queue {queue} has no zero-copy socket; --xdp-mode copy works everywhere"),
                XskMode::Auto | XskMode::Copy => format!("queue {queue} has no socket; CAP_NET_RAW is needed"),
            })?;
            diversion.add_socket(queue, &socket)?;
            sockets.push(socket);
        }
        Ok(XdpDevice { index: link.index, mac, sockets, diversion })
    }
}

impl Driver for XdpDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        self.main_worker.wait(milliseconds)
    }

    fn process_batch(&mut self, core: &SharedGateway, now: Instant) -> Result<usize> {
        self.main_worker.process_batch(core, now)
    }

    fn workers(&mut self) -> Vec<Box<dyn Driver + Send>> {
        let others = std::mem::take(&mut self.other_workers);
        others.into_iter().map(|worker| Box::new(worker) as Box<dyn Driver + Send>).collect()
    }

    fn poll_fib(&mut self) -> Result<Option<FibTable>> {
        let mut held = self.shared.lock();
        let news = held.watcher.poll_changes().context("following the kernel's routes")?;
        for neighbour in &news.neighbours {
            held.neighbours.update(neighbour);
        }
        if news.needs_resync {
            let known = held.watcher.dump_all().context("reading the kernel's devices and routes")?;
            self.fib = Some(kernel_fib::build_fib(&known));
        }
        Ok(self.fib.take())
    }

    fn drop_summary(&self) -> String {
        self.shared.drops.summary()
    }
}

/// The key of a neighbour: the device, and its address there.
type NeighbourKey = (u32, IpAddr);
