//! The driver on real devices: datagrams come and go by AF_XDP, routes and neighbours are the kernel's.
//!
//! Every device named gets the program that diverts its datagrams, and a socket on each of its queues. What the router hands to the machine itself, or to a device
//! that was not named, goes to the kernel through a TUN device (`keepstate0`). Dropped, or killed, it leaves the devices as they were.
mod intake;
mod neighbours;

use super::ground;
use super::run::Driver;
use super::train;
use crate::notes;
use anyhow::{Context, Result, bail};
use intake::{Intake, Trains};
use keepstate_engine::Instant;
use keepstate_gateway::{Map, Out, Router};
use keepstate_linux::offload::Offload;
use keepstate_linux::packet::Sender;
use keepstate_linux::route::{Link, Watcher};
use keepstate_linux::tun::{self, Tun};
use keepstate_linux::xdp::{Burst, Diversion, Mode, Socket};
use keepstate_wire::segment::Train;
use neighbours::{Found, Neighbours};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Frames taken from one queue before the next has its turn.
const TURN: u32 = 64;
/// Fewer frames than this are not worth the price of a burst.
const FEW: usize = 8;
/// Octets of an Ethernet header.
const HEADER: usize = 14;
/// The device by which the kernel gets what is its own.
const HOST: &str = "keepstate0";

/// The devices, and what is known of their surroundings.
pub(super) struct Xdp {
    ports: Vec<Port>,
    watcher: Watcher,
    neighbours: Neighbours,
    /// Sends many frames with one call, for ports whose sockets copy.
    burst: Option<Burst>,
    host: Tun,
    map: Option<Map>,
    trains: Trains,
    out: Vec<Leaving>,
    losses: Losses,
}

/// What the router has given out.
struct Leaving {
    out: Out,
    /// What it came as, if it stands for many.
    train: Option<Train>,
}

/// How frames are sent where sockets copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sending {
    /// Many with one call, where the device takes them so
    Auto,
    /// By the sockets
    Sockets,
}

/// One device.
struct Port {
    index: u32,
    mac: [u8; 6],
    sockets: Vec<Socket>,
    /// Frames leave by the burst, not by a socket.
    by_burst: bool,
    /// What stands for many segments leaves by this.
    sender: Sender,
    /// Frames wait for the next flush.
    waits: bool,
    /// Kept so that it stays on the device.
    diversion: Diversion,
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
    pub(super) fn new(names: &[String], mode: Mode, sending: Sending) -> Result<Xdp> {
        let mut watcher = Watcher::open().context("a socket to the kernel's routes")?;
        let known = watcher.everything().context("reading the kernel's devices and routes")?;
        let host = Tun::with_offloads(HOST).with_context(|| {
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
        let first = ports.first_mut().context("--xdp names no device")?;
        let mut burst = match sending {
            Sending::Auto => Burst::of(&mut first.diversion)
                .inspect_err(|error| tracing::debug!("frames are sent one by one: {error}"))
                .ok(),
            Sending::Sockets => None,
        };
        probe(&mut ports, &mut burst);
        for (port, name) in ports.iter().zip(names) {
            let copies = if port.is_zero_copy() { "zero-copy" } else { "copied" };
            let sends = if port.by_burst { "sent in bursts" } else { "sent by its sockets" };
            let way = if port.diversion.is_by_driver() { "in its driver" } else { "behind its driver (slower)" };
            notes::note(format!("{name}: {} queues, diverted {way}, {copies}, {sends}", port.sockets.len()));
        }
        let mut neighbours = Neighbours::default();
        neighbours.learn_all(&known);
        let map = Some(ground::map(&known));
        Ok(Xdp {
            ports,
            watcher,
            neighbours,
            burst,
            host,
            map,
            trains: Trains::default(),
            out: Vec::new(),
            losses: Losses::default(),
        })
    }

    /// Sends what the router has given out.
    fn send(&mut self, router: &mut Router, now: Instant) -> Result<()> {
        let mut out = std::mem::take(&mut self.out);
        for Leaving { out, train } in out.drain(..) {
            let bytes = match out {
                Out::Host(bytes) => self.hand_over(bytes, train)?,
                Out::Device(device, to, mut bytes) => match self.ports.iter().position(|port| port.index == device) {
                    Some(at) => match self.neighbours.find(device, to, now, &mut self.watcher) {
                        Found::At(mac) => {
                            let left = train::offload(train.as_ref(), &mut bytes);
                            self.leave(at, mac, &bytes, left)?;
                            bytes
                        }
                        Found::NotYet => {
                            self.hold(device, to, bytes, train);
                            continue;
                        }
                    },
                    // By a device that is the kernel's: it goes on there, if the kernel forwards.
                    None => self.hand_over(bytes, train)?,
                },
            };
            if let Err(bytes) = self.trains.recycle(bytes) {
                router.recycle(bytes);
            }
        }
        self.out = out;
        Ok(())
    }

    /// Sends a datagram by one of the ports.
    fn leave(&mut self, at: usize, mac: [u8; 6], bytes: &[u8], left: Offload) -> Result<()> {
        // What stands for many segments must not overtake what was to leave before.
        if match left.segment {
            Some(_) => self.ports.get(at).is_some_and(|port| port.waits),
            None => self.burst.as_ref().is_some_and(Burst::is_full),
        } {
            self.flush()?;
        }
        let Some(port) = self.ports.get_mut(at) else { return Ok(()) };
        let sent = match left.segment {
            Some(_) => port.sender.send(&port.header(mac, bytes), bytes, left).context("a device is gone")?,
            None => port.send(mac, bytes, &mut self.burst),
        };
        self.losses.room += u64::from(!sent);
        Ok(())
    }

    /// Keeps a datagram until its neighbour is known: in single segments, as there will be few.
    fn hold(&mut self, device: u32, to: IpAddr, bytes: Vec<u8>, train: Option<Train>) {
        let mut hold = |bytes| self.losses.neighbour += u64::from(!self.neighbours.wait(device, to, bytes));
        match train.filter(|train| bytes.len() > train.longest()) {
            None => hold(bytes),
            Some(train) => train.segments(&bytes).for_each(hold),
        }
    }

    fn hand_over(&mut self, mut bytes: Vec<u8>, train: Option<Train>) -> Result<Vec<u8>> {
        let left = train::offload(train.as_ref(), &mut bytes);
        self.losses.room += u64::from(!self.host.write(&bytes, left).with_context(|| format!("{HOST} is gone"))?);
        Ok(bytes)
    }

    /// What has waited for a neighbour that is known now.
    fn release(&mut self) {
        for (device, mac, bytes) in self.neighbours.released() {
            if let Some(port) = self.ports.iter_mut().find(|port| port.index == device) {
                self.losses.room += u64::from(!port.send(mac, &bytes, &mut self.burst));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.ports.iter_mut().for_each(|port| port.waits = false);
        if let (Some(burst), Some(first)) = (&mut self.burst, self.ports.first()) {
            if burst.waiting() >= FEW {
                let lost = burst.go(&first.diversion).context("a burst cannot be sent any more")?;
                self.losses.room += lost;
                // Perhaps a device has changed its mind: then its sockets send from now on.
                if lost > 0 {
                    probe(&mut self.ports, &mut self.burst);
                }
            } else {
                for (device, frame) in burst.frames() {
                    let port = self.ports.iter_mut().find(|port| port.index == device);
                    self.losses.room += u64::from(!port.is_some_and(|port| port.send_frame(frame)));
                }
            }
        }
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.flush().context("a device is gone")?;
        }
        Ok(())
    }
}

/// Which devices take frames of a burst? A frame to itself, of a kind for experiments, says so, and nobody else minds it.
fn probe(ports: &mut [Port], burst: &mut Option<Burst>) {
    for at in 0..ports.len() {
        let (Some(burst), Some(first), Some(port)) = (burst.as_mut(), ports.first(), ports.get(at)) else { return };
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(port.mac.into_iter().chain(port.mac).chain([0x88, 0xb5])) {
            *to = from;
        }
        let takes = !port.is_zero_copy()
            && burst.put(port.index, &header, &[0; 46])
            && burst.go(&first.diversion).is_ok_and(|lost| lost == 0);
        if let Some(port) = ports.get_mut(at) {
            port.by_burst = takes;
        }
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
        let sender = Sender::open(link.index).context("CAP_NET_RAW is needed")?;
        let mut port =
            Port { index: link.index, mac, sockets: Vec::new(), by_burst: false, sender, waits: false, diversion };
        for queue in 0..ground::queues(&link.name) {
            let socket = Socket::open(link.index, queue, mode).with_context(|| match mode {
                Mode::ZeroCopy => format!("queue {queue} has no zero-copy socket; --xdp-mode copy works everywhere"),
                Mode::Auto | Mode::Copy => format!("queue {queue} has no socket; CAP_NET_RAW is needed"),
            })?;
            port.diversion.enter(queue, &socket)?;
            port.sockets.push(socket);
        }
        Ok(port)
    }

    /// Does the driver write into our frames?
    fn is_zero_copy(&self) -> bool {
        self.sockets.iter().all(Socket::is_zero_copy)
    }

    /// By a socket. False if there is no room.
    fn send_frame(&mut self, frame: &[u8]) -> bool {
        self.sockets.first_mut().is_some_and(|socket| socket.send(frame, &[]))
    }

    /// The Ethernet header of a datagram to this neighbour.
    fn header(&self, to: [u8; 6], bytes: &[u8]) -> [u8; HEADER] {
        let kind: [u8; 2] = if bytes.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0] };
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(to.into_iter().chain(self.mac).chain(kind)) {
            *to = from;
        }
        header
    }

    /// False if there is no room.
    fn send(&mut self, to: [u8; 6], bytes: &[u8], burst: &mut Option<Burst>) -> bool {
        let header = self.header(to, bytes);
        self.waits = true;
        if self.by_burst && burst.as_mut().is_some_and(|burst| burst.put(self.index, &header, bytes)) {
            return true;
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
                let mut intake =
                    Intake { trains: &mut self.trains, router, device: port.index, now, out: &mut self.out };
                count += socket.receive(TURN, |frame| intake.take(frame.get(HEADER..).unwrap_or_default()));
                intake.end();
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
