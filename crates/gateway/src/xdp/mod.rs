//! The driver on real devices: datagrams come and go by AF_XDP, routes and neighbours are the kernel's.
//!
//! Every device named gets the program that diverts its datagrams, and a socket on each of its queues. There are as many workers as the device with the fewest queues has queues, each on a thread of its
//! own, with one queue or more of every device. What the router hands to the machine itself, or to a device that was not named, goes to the kernel through a TUN device (`keepstate0`). Dropped, or
//! killed, it leaves the devices as they were.
mod around;
mod intake;
mod neighbours;
mod port;
mod worker;

use super::core::Shared;
use super::ground;
use super::run::Driver;
use crate::notes;
use anyhow::{Context, Result, bail};
use around::Around;
use keepstate_engine::Instant;
use keepstate_linux::packet::Sender;
use keepstate_linux::route::{Link, Watcher};
use keepstate_linux::tun::Tun;
use keepstate_linux::xdp::{Burst, Diversion, Mode, Socket};
use keepstate_router::Map;
use neighbours::Neighbours;
use port::{Port, probe};
use std::net::IpAddr;
use std::sync::Arc;
use worker::Worker;

/// The device by which the kernel gets what is its own.
const HOST: &str = "keepstate0";

/// The devices, and what is known of their surroundings.
pub(super) struct Xdp {
    first: Worker,
    /// The others, until they are asked for.
    others: Vec<Worker>,
    around: Arc<Around>,
    map: Option<Map>,
    /// Kept so that they stay on their devices; those that workers send through, these have.
    _diversions: Vec<Diversion>,
}

/// How frames are sent where sockets copy.
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Many with one call, where the device takes them so
    Auto,
    /// By the sockets
    Sockets,
}

/// One device with all its queues.
struct Device {
    index: u32,
    mac: [u8; 6],
    sockets: Vec<Socket>,
    diversion: Diversion,
}

impl Xdp {
    /// Takes these devices over.
    ///
    /// # Errors
    /// A device is not there, is no Ethernet or is in use; it may not be done.
    pub(super) fn new(names: &[String], mode: Mode, sending: Sending) -> Result<Xdp> {
        let mut watcher = Watcher::open().context("a socket to the kernel's routes")?;
        let known = watcher.everything().context("reading the kernel's devices and routes")?;
        let host = Tun::with_offloads(HOST).with_context(|| {
            format!("TUN device {HOST}: it needs /dev/net/tun and CAP_NET_ADMIN, and one gateway a namespace")
        })?;
        host.up(HOST).with_context(|| format!("{HOST} cannot be taken up"))?;
        ground::believe(HOST);
        let mut devices = Vec::new();
        for name in names {
            let links = ground::links(&known);
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                let there: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                bail!("--xdp {name}: there is no such device here; there are {}", there.join(", "));
            };
            devices.push(Device::open(link, mode).with_context(|| format!("--xdp {name}"))?);
        }
        let mut neighbours = Neighbours::default();
        neighbours.learn_all(&known);
        let around = Arc::new(Around::new(watcher, neighbours, host));
        let queues: Vec<usize> = devices.iter().map(|device| device.sockets.len()).collect();
        let drivers: Vec<bool> = devices.iter().map(|device| device.diversion.is_by_driver()).collect();
        let (workers, diversions) = share_out(devices, sending, &around)?;
        let mut workers = workers.into_iter();
        let first = workers.next().context("--xdp names no device")?;
        for (((port, name), queues), by_driver) in first.ports.iter().zip(names).zip(queues).zip(drivers) {
            let copies = if port.is_zero_copy() { "zero-copy" } else { "copied" };
            let sends = if port.by_burst { "sent in bursts" } else { "sent by its sockets" };
            let way = if by_driver { "in its driver" } else { "behind its driver (slower)" };
            notes::note(format!("{name}: {queues} queues, diverted {way}, {copies}, {sends}"));
        }
        let others: Vec<Worker> = workers.collect();
        if !others.is_empty() {
            notes::note(format!("{} workers, each with a queue of every device", others.len() + 1));
        }
        Ok(Xdp { first, others, around, map: Some(ground::map(&known)), _diversions: diversions })
    }
}

/// As many workers as the device with the fewest queues has queues; the others' queues go round among them.
fn share_out(devices: Vec<Device>, sending: Sending, around: &Arc<Around>) -> Result<(Vec<Worker>, Vec<Diversion>)> {
    let count = devices.iter().map(|device| device.sockets.len()).min().unwrap_or_default();
    let mut workers: Vec<Worker> = (0..count).map(|number| Worker::new(around.clone(), number == 0)).collect();
    let mut diversions = Vec::new();
    for Device { index, mac, sockets, diversion } in devices {
        let mut sockets: Vec<Option<Socket>> = sockets.into_iter().map(Some).collect();
        for (number, worker) in workers.iter_mut().enumerate() {
            let sender = Sender::open(index).context("CAP_NET_RAW is needed")?;
            let own = sockets.iter_mut().skip(number).step_by(count).filter_map(Option::take).collect();
            worker.ports.push(Port { index, mac, sockets: own, by_burst: false, sender, waits: false });
        }
        diversions.push(diversion);
    }
    if sending == Sending::Sockets {
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
        let burst = Burst::of(&mut diversion);
        worker.burst = burst.inspect_err(|error| tracing::trace!("frames are sent one by one: {error}")).ok();
        if let Some(burst) = &mut worker.burst {
            probe(&mut worker.ports, burst, &diversion);
        }
        worker.diversion = Some(diversion);
    }
    Ok((workers, rest))
}

impl Device {
    fn open(link: &Link, mode: Mode) -> Result<Device> {
        let mac = link.mac.context("it is no Ethernet device; --device makes TUN devices")?;
        if !link.up {
            bail!("it is down: ip link set {} up", link.name);
        }
        let mut diversion = Diversion::attach(link.index)
            .context("is another program on it? ip link set dev … xdp off; CAP_NET_ADMIN and CAP_BPF are needed")?;
        let mut sockets = Vec::new();
        for queue in 0..ground::queues(&link.name) {
            let socket = Socket::open(link.index, queue, mode).with_context(|| match mode {
                Mode::ZeroCopy => format!("queue {queue} has no zero-copy socket; --xdp-mode copy works everywhere"),
                Mode::Auto | Mode::Copy => format!("queue {queue} has no socket; CAP_NET_RAW is needed"),
            })?;
            diversion.enter(queue, &socket)?;
            sockets.push(socket);
        }
        Ok(Device { index: link.index, mac, sockets, diversion })
    }
}

impl Driver for Xdp {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        self.first.wait(milliseconds)
    }

    fn turn(&mut self, core: &Shared, now: Instant) -> Result<usize> {
        self.first.turn(core, now)
    }

    fn hands(&mut self) -> Vec<Box<dyn Driver + Send>> {
        let others = std::mem::take(&mut self.others);
        others.into_iter().map(|worker| Box::new(worker) as Box<dyn Driver + Send>).collect()
    }

    fn map(&mut self) -> Result<Option<Map>> {
        let mut held = self.around.lock();
        let news = held.watcher.news().context("following the kernel's routes")?;
        for neighbour in &news.neighbours {
            held.neighbours.learn(neighbour);
        }
        if news.map {
            let known = held.watcher.everything().context("reading the kernel's devices and routes")?;
            self.map = Some(ground::map(&known));
        }
        Ok(self.map.take())
    }

    fn account(&self) -> String {
        self.around.losses.account()
    }
}

/// The key of a neighbour: the device, and its address there.
type Key = (u32, IpAddr);
