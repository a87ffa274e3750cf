//! The AF_XDP driver: packets of existing interfaces, with the kernel's routes and neighbours.
//!
//! Every interface gets an XDP program that redirects its packets, and a socket on each of its queues. There are as many workers as the interface with the fewest queues has queues, each on a thread of
//! its own, with one queue or more of every interface. Packets that the router delivers to the host, or forwards to another interface, go to the kernel through a TUN interface (`keepstate0`). When the
//! driver is dropped, or its process killed, the interfaces are as before.
mod neighbours;
mod port;
mod rx_batch;
mod shared;
mod worker;

use super::driver::Driver;
use super::kernel_fib;
use super::route_follower::{FibUpdate, RouteFollower};
use super::shared::SharedGateway;
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_linux::af_packet::PacketSocket;
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tun::Tun;
use keepstate_linux::xdp::{LiveFrames, QUEUE_MEMORY, XdpRedirect, XskMode, XskSocket};
use keepstate_router::FibTable;
use neighbours::Neighbours;
use port::{Port, probe_burst};
use shared::{HOST_TUN, XdpShared};
use std::sync::Arc;
use worker::Worker;

/// The interfaces, and what all workers share.
pub(super) struct XdpDriver {
    main_worker: Worker,
    /// The other workers, until the main loop takes them.
    other_workers: Vec<Worker>,
    shared: Arc<XdpShared>,
    routes: RouteFollower,
    /// The routes at the start, until they are taken.
    fib: Option<FibTable>,
    /// The XDP programs that no worker sends through; dropping one detaches it.
    _redirects: Vec<XdpRedirect>,
}

/// How frames are sent in copy mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpTxMode {
    /// In batches by one system call, where the interface supports that.
    Auto,
    /// One by one, by the AF_XDP sockets.
    Sockets,
}

/// One interface with all its queues.
struct XdpInterface {
    index: u32,
    mac: [u8; 6],
    sockets: Vec<XskSocket>,
    redirect: XdpRedirect,
}

impl XdpDriver {
    /// Attaches to these interfaces.
    ///
    /// # Errors
    /// An interface does not exist, is not Ethernet or is in use; missing capabilities.
    pub(super) fn new(names: &[String], mode: XskMode, tx: XdpTxMode) -> Result<XdpDriver> {
        let (routes, fib, messages) = RouteFollower::open()?;
        let host = Tun::create_with_offloads(HOST_TUN).with_context(|| {
            format!("cannot create TUN interface {HOST_TUN}: needs /dev/net/tun and CAP_NET_ADMIN, and one gateway per network namespace")
        })?;
        host.set_up(HOST_TUN).with_context(|| format!("cannot set {HOST_TUN} up"))?;
        kernel_fib::disable_rp_filter(HOST_TUN);
        let mut interfaces = Vec::new();
        for name in names {
            let links = kernel_fib::links(&messages);
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                bail!("--xdp {name}: no such interface; there are {}", names.join(", "));
            };
            interfaces.push(XdpInterface::open(link, mode).with_context(|| format!("--xdp {name}"))?);
        }
        let mut neighbours = Neighbours::default();
        neighbours.update_all(&messages);
        let shared = Arc::new(XdpShared::new(neighbours, host));
        let queues: Vec<usize> = interfaces.iter().map(|interface| interface.sockets.len()).collect();
        let native: Vec<bool> = interfaces.iter().map(|interface| interface.redirect.is_driver_mode()).collect();
        let (workers, redirects) = assign_queues(interfaces, tx, &shared)?;
        let mut workers = workers.into_iter();
        let first = workers.next().context("--xdp names no interface")?;
        for (((port, name), queues), is_native) in first.ports.iter().zip(names).zip(queues).zip(native) {
            let xdp = if is_native { "native XDP" } else { "generic XDP (slow)" };
            let copy = if port.is_zero_copy() { "zero-copy" } else { "copy mode" };
            let tx = if port.uses_burst { "batched tx" } else { "socket tx" };
            let megabytes = queues * QUEUE_MEMORY / 1_000_000;
            tracing::info!("{name}: {queues} queues, {xdp}, {copy}, {tx}, {megabytes} MB of packet buffers");
        }
        let others: Vec<Worker> = workers.collect();
        if !others.is_empty() {
            tracing::info!("{} workers, each with a queue of every interface", others.len() + 1);
        }
        Ok(XdpDriver {
            main_worker: first,
            other_workers: others,
            shared,
            routes,
            fib: Some(fib),
            _redirects: redirects,
        })
    }
}

/// As many workers as the interface with the fewest queues has queues; further queues are dealt out among them.
fn assign_queues(
    interfaces: Vec<XdpInterface>,
    tx: XdpTxMode,
    shared: &Arc<XdpShared>,
) -> Result<(Vec<Worker>, Vec<XdpRedirect>)> {
    let count = interfaces.iter().map(|interface| interface.sockets.len()).min().unwrap_or_default();
    let mut workers: Vec<Worker> = (0..count).map(|number| Worker::new(shared.clone(), number == 0)).collect();
    let mut redirects = Vec::new();
    for XdpInterface { index, mac, sockets, redirect } in interfaces {
        let mut sockets: Vec<Option<XskSocket>> = sockets.into_iter().map(Some).collect();
        for (number, worker) in workers.iter_mut().enumerate() {
            let sender = PacketSocket::open(index).context("opening a packet socket (needs CAP_NET_RAW)")?;
            let own = sockets.iter_mut().skip(number).step_by(count).filter_map(Option::take).collect();
            worker.ports.push(Port { index, mac, sockets: own, uses_burst: false, sender, needs_flush: false });
        }
        redirects.push(redirect);
    }
    if tx == XdpTxMode::Sockets {
        return Ok((workers, redirects));
    }
    // Batched tx needs an XDP program of its own, and there are as many as interfaces; a worker without one sends by its sockets.
    let mut rest = Vec::new();
    let mut receivers = workers.iter_mut();
    for mut redirect in redirects {
        let Some(worker) = receivers.next() else {
            rest.push(redirect);
            continue;
        };
        let burst = LiveFrames::new(&mut redirect);
        worker.burst = burst.inspect_err(|error| tracing::trace!("no batched tx: {error}")).ok();
        if let Some(burst) = &mut worker.burst {
            probe_burst(&mut worker.ports, burst, &redirect);
        }
        worker.redirect = Some(redirect);
    }
    Ok((workers, rest))
}

impl XdpInterface {
    fn open(link: &RtLink, mode: XskMode) -> Result<XdpInterface> {
        let mac = link.mac.context("not an Ethernet interface (--device creates TUN interfaces)")?;
        if !link.is_up {
            bail!("interface is down: ip link set {} up", link.name);
        }
        let mut redirect = XdpRedirect::attach(link.index).with_context(|| {
            format!("cannot attach the XDP program: needs CAP_NET_ADMIN and CAP_BPF, and no other program there (ip link set dev {} xdp off)", link.name)
        })?;
        let mut sockets = Vec::new();
        for queue in 0..kernel_fib::rx_queue_count(&link.name) {
            let socket = XskSocket::open(link.index, queue, mode).with_context(|| match mode {
                XskMode::ZeroCopy => format!("queue {queue}: no zero-copy socket; --xdp-mode copy works everywhere"),
                XskMode::Auto | XskMode::Copy => {
                    format!("queue {queue}: cannot open an AF_XDP socket (needs CAP_NET_RAW)")
                }
            })?;
            redirect.add_socket(queue, &socket)?;
            sockets.push(socket);
        }
        Ok(XdpInterface { index: link.index, mac, sockets, redirect })
    }
}

impl Driver for XdpDriver {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        self.main_worker.wait(milliseconds)
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        self.main_worker.process_batch(gateway, now)
    }

    fn workers(&mut self) -> Vec<Box<dyn Driver + Send>> {
        let others = std::mem::take(&mut self.other_workers);
        others.into_iter().map(|worker| Box::new(worker) as Box<dyn Driver + Send>).collect()
    }

    fn start(&mut self) -> Result<()> {
        self.shared.start_resolver()?;
        let shared = Arc::clone(&self.shared);
        self.routes.start(Box::new(move |seen| shared.observe(&seen)))
    }

    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        let first = self.fib.take().map(|fib| FibUpdate::Table(Box::new(fib)));
        Ok(first.or_else(|| self.routes.poll()))
    }

    fn drop_counts(&self) -> Vec<(&'static str, u64)> {
        self.shared.drops.counts()
    }
}
