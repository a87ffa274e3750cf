//! The driver on real devices: datagrams come and go by AF_XDP, routes and neighbours are the kernel's.
//!
//! Every device named gets the program that diverts its datagrams, and a socket on each of its queues. What the router hands to the machine itself, or to a device
//! that was not named, goes to the kernel through a TUN device (`keepstate0`). Dropped, or killed, it leaves the devices as they were.
mod ground;
mod neighbours;

use super::run::Driver;
use crate::notes;
use anyhow::{Context, Result, bail};
use keepstate_engine::Instant;
use keepstate_gateway::{Map, Out, Router};
use keepstate_linux::route::{Link, Watcher};
use keepstate_linux::tun::{self, Tun};
use keepstate_linux::xdp::{Diversion, Mode, Socket};
use neighbours::{Found, Neighbours};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Frames taken from one queue before the next has its turn.
const TURN: u32 = 64;
/// Octets of an Ethernet header.
const HEADER: usize = 14;
/// The device by which the kernel gets what is its own.
const HOST: &str = "keepstate0";

/// The devices, and what is known of their surroundings.
pub(super) struct Xdp {
    ports: Vec<Port>,
    watcher: Watcher,
    neighbours: Neighbours,
    host: Tun,
    map: Option<Map>,
    out: Vec<Out>,
    losses: Losses,
}

/// One device.
struct Port {
    index: u32,
    mac: [u8; 6],
    sockets: Vec<Socket>,
    /// Kept so that it stays on the device.
    _diversion: Diversion,
}

/// What the driver lost.
#[derive(Default)]
struct Losses {
    /// No room in a device's queue.
    room: u64,
    /// A neighbour that did not answer.
    neighbour: u64,
}

impl Xdp {
    /// Takes these devices over.
    ///
    /// # Errors
    /// A device is not there, is no Ethernet or is in use; it may not be done.
    pub(super) fn new(names: &[String], mode: Mode) -> Result<Xdp> {
        let mut watcher = Watcher::open().context("a socket to the kernel's routes")?;
        let known = watcher.everything().context("reading the kernel's devices and routes")?;
        let host = Tun::create(HOST).with_context(|| {
            format!("TUN device {HOST}: it needs /dev/net/tun and CAP_NET_ADMIN, and one gateway a namespace")
        })?;
        host.up(HOST).with_context(|| format!("{HOST} cannot be taken up"))?;
        ground::believe(HOST);
        let mut ports = Vec::new();
        for name in names {
            let links = ground::links(&known);
            let Some(link) = links.iter().find(|link| link.name == *name) else {
                let there: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
                bail!("--xdp {name}: there is no such device here; there are {}", there.join(", "));
            };
            ports.push(Port::open(link, mode).with_context(|| format!("--xdp {name}"))?);
        }
        let mut neighbours = Neighbours::default();
        neighbours.learn_all(&known);
        let map = Some(ground::map(&known));
        Ok(Xdp { ports, watcher, neighbours, host, map, out: Vec::new(), losses: Losses::default() })
    }

    /// Sends what the router has given out.
    fn send(&mut self, router: &mut Router, now: Instant) -> Result<()> {
        let mut out = std::mem::take(&mut self.out);
        for left in out.drain(..) {
            let bytes = match left {
                Out::Host(bytes) => self.hand_over(bytes)?,
                Out::Device(device, to, bytes) => match self.ports.iter().position(|port| port.index == device) {
                    Some(at) => match self.neighbours.find(device, to, now, &mut self.watcher) {
                        Found::At(mac) => {
                            self.losses.room +=
                                u64::from(!self.ports.get_mut(at).is_some_and(|port| port.send(mac, &bytes)));
                            bytes
                        }
                        Found::NotYet => {
                            self.losses.neighbour += u64::from(!self.neighbours.wait(device, to, bytes));
                            continue;
                        }
                    },
                    // By a device that is the kernel's: it goes on there, if the kernel forwards.
                    None => self.hand_over(bytes)?,
                },
            };
            router.recycle(bytes);
        }
        self.out = out;
        Ok(())
    }

    fn hand_over(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.losses.room += u64::from(!self.host.write(&bytes).with_context(|| format!("{HOST} is gone"))?);
        Ok(bytes)
    }

    /// What has waited for a neighbour that is known now.
    fn release(&mut self) {
        for (device, mac, bytes) in self.neighbours.released() {
            if let Some(port) = self.ports.iter_mut().find(|port| port.index == device) {
                self.losses.room += u64::from(!port.send(mac, &bytes));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.flush().context("a device is gone")?;
        }
        Ok(())
    }
}

impl Port {
    fn open(link: &Link, mode: Mode) -> Result<Port> {
        let mac = link.mac.context("it is no Ethernet device; --device makes TUN devices")?;
        if !link.up {
            bail!("it is down: ip link set {} up", link.name);
        }
        let diversion = Diversion::attach(link.index)
            .context("is another program on it? ip link set dev … xdp off; CAP_NET_ADMIN and CAP_BPF are needed")?;
        let mut port = Port { index: link.index, mac, sockets: Vec::new(), _diversion: diversion };
        for queue in 0..ground::queues(&link.name) {
            let socket = Socket::open(link.index, queue, mode).with_context(|| match mode {
                Mode::ZeroCopy => format!("queue {queue} has no zero-copy socket; --xdp-mode copy works everywhere"),
                Mode::Auto | Mode::Copy => format!("queue {queue} has no socket; CAP_NET_RAW is needed"),
            })?;
            port._diversion.enter(queue, &socket)?;
            port.sockets.push(socket);
        }
        let way = if port._diversion.is_by_driver() { "in its driver" } else { "behind its driver (slower)" };
        let copies = if port.sockets.iter().all(Socket::is_zero_copy) { "zero-copy" } else { "copied" };
        notes::note(format!("{}: {} queues, diverted {way}, {copies}", link.name, port.sockets.len()));
        Ok(port)
    }

    /// False if there is no room.
    fn send(&mut self, to: [u8; 6], bytes: &[u8]) -> bool {
        let kind: [u8; 2] = if bytes.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0] };
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(to.into_iter().chain(self.mac).chain(kind)) {
            *to = from;
        }
        self.sockets.first_mut().is_some_and(|socket| socket.send(&header, bytes))
    }
}

impl Driver for Xdp {
    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        let sockets = self.ports.iter().flat_map(|port| &port.sockets).map(AsFd::as_fd);
        tun::wait(sockets, milliseconds).context("waiting for datagrams")
    }

    fn turn(&mut self, router: &mut Router, now: Instant) -> Result<usize> {
        let mut count = 0;
        for port in &mut self.ports {
            for socket in &mut port.sockets {
                count += socket.receive(TURN, |frame| {
                    // A loss is counted, and told to whom it must be.
                    let _ = router.handle(frame.get(HEADER..).unwrap_or_default(), port.index, now, &mut self.out);
                });
            }
        }
        self.send(router, now)?;
        self.release();
        self.flush()?;
        Ok(count as usize)
    }

    fn map(&mut self) -> Result<Option<Map>> {
        let news = self.watcher.news().context("following the kernel's routes")?;
        for neighbour in &news.neighbours {
            self.neighbours.learn(neighbour);
        }
        if news.map {
            let known = self.watcher.everything().context("reading the kernel's devices and routes")?;
            self.map = Some(ground::map(&known));
        }
        Ok(self.map.take())
    }

    fn account(&self) -> String {
        let waited: u64 = self.losses.neighbour + self.neighbours.lost();
        match (self.losses.room, waited) {
            (0, 0) => String::new(),
            (room, waited) => format!("; {room} found no room in a device's queue, {waited} no neighbour"),
        }
    }
}

/// The key of a neighbour: the device, and its address there.
type Key = (u32, IpAddr);
