//! Addresses that the gateway gives its machine's interfaces while it decides their shard, and tells the network of: a thread of its own, which waits for the kernel so that nobody else has to.
//!
//! Its life: started before the gateway gives up its rights, of which it keeps two; told of each role; when the gateway ends it takes the addresses away. One that is killed cannot: the kernel removes
//! them some seconds later by itself, since each lives only until it is given again. A fenced gateway keeps them: it forwards what it knows, and nobody else may have them yet.
use super::announcement::announcement;
use super::config::{AddressTakeoverConfig, ClusterConfig};
use anyhow::{Context, Result, anyhow};
use keepstate_cluster::ShardRole;
use keepstate_linux::af_packet::PacketSocket;
use keepstate_linux::privileges::{self, CapabilitySet};
use keepstate_linux::rtnetlink::{AddressSocket, RtLink, dump_links};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The kernel removes an address that was not given again for so long.
const LIFETIME: Duration = Duration::from_secs(10);
/// Each is given again so often.
const RENEWAL: Duration = Duration::from_secs(1);
/// When the network is told, after the address was taken: hosts may ignore a change right behind another one. Then so often.
const ANNOUNCED_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(1_300), Duration::from_millis(3_000)];
const ANNOUNCED_EVERY: Duration = Duration::from_secs(10);

/// The thread; dropped, it takes the addresses away and ends.
pub(crate) struct AddressTakeover {
    orders: Option<Sender<(usize, bool)>>,
    thread: Option<JoinHandle<()>>,
}

impl AddressTakeover {
    /// Starts the thread if there are addresses to take over. To be called while this thread still has the rights that it needs.
    ///
    /// # Errors
    /// The system's; CAP_NET_ADMIN is missing.
    pub(crate) fn start(config: &ClusterConfig) -> Result<Option<AddressTakeover>> {
        if config.takeover.is_empty() {
            return Ok(None);
        }
        let (orders, received) = channel();
        let (started, ready) = sync_channel(1);
        let addresses = config.takeover.clone();
        let thread = std::thread::Builder::new().name("addresses".into()).spawn(move || {
            let opened = privileges::keep_capabilities(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW)
                .and_then(|()| AddressSocket::open())
                .map_err(|error| anyhow!("takeover: {error}"))
                .and_then(|socket| TakenAddresses::new(socket, addresses));
            match opened {
                Ok(mut taken) => {
                    if started.send(Ok(())).is_ok() {
                        taken.run(&received);
                    }
                }
                Err(error) => drop(started.send(Err(error))),
            }
        })?;
        ready.recv().context("the thread of the addresses has ended")??;
        Ok(Some(AddressTakeover { orders: Some(orders), thread: Some(thread) }))
    }

    /// A shard has this role now.
    pub(super) fn set_role(&self, shard: usize, role: ShardRole) {
        let has = match role {
            ShardRole::Active => true,
            ShardRole::Standby => false,
            ShardRole::Demoting | ShardRole::Fenced => return,
        };
        // A thread that has ended has said why.
        if let Some(orders) = &self.orders {
            let _ = orders.send((shard, has));
        }
    }
}

impl Drop for AddressTakeover {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }
}

/// Places of errors.
const ADDRESS: usize = 0;
const NETWORK: usize = 1;

struct TakenAddress {
    config: AddressTakeoverConfig,
    /// Since when it is this gateway's.
    taken: Option<Instant>,
    renewed: Option<Instant>,
    /// How often the network was told, and when last.
    announced: (usize, Instant),
    /// The last errors of the address and of telling the network, each of which is told once.
    errors: [Option<String>; 2],
}

struct TakenAddresses {
    socket: AddressSocket,
    all: Vec<TakenAddress>,
}

impl TakenAddresses {
    /// What one that was killed has left is taken away.
    fn new(socket: AddressSocket, configs: Vec<AddressTakeoverConfig>) -> Result<TakenAddresses> {
        let now = Instant::now();
        let address =
            |config| TakenAddress { config, taken: None, renewed: None, announced: (0, now), errors: [None, None] };
        let mut taken = TakenAddresses { socket, all: configs.into_iter().map(address).collect() };
        let links = dump_links().context("takeover: the interfaces cannot be read")?;
        for address in &mut taken.all {
            // An interface may come later.
            if let Some(link) = links.iter().find(|link| link.name == address.config.interface) {
                let AddressTakeoverConfig { address, length, interface, .. } = &address.config;
                taken.socket.remove(link.index, (*address, *length)).with_context(|| {
                    format!("takeover: {address}/{length} on {interface}: the gateway may not change addresses (CAP_NET_ADMIN)")
                })?;
            }
        }
        Ok(taken)
    }

    fn run(&mut self, orders: &Receiver<(usize, bool)>) {
        loop {
            match orders.recv_timeout(self.next_due()) {
                Ok((shard, has)) => self.order(shard, has),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let shards: Vec<usize> = self.all.iter().map(|address| address.config.shard).collect();
                    shards.into_iter().for_each(|shard| self.order(shard, false));
                    return;
                }
            }
            self.keep();
        }
    }

    /// How long nothing is to be done.
    fn next_due(&self) -> Duration {
        let now = Instant::now();
        let taken = self.all.iter().filter(|address| address.taken.is_some());
        let due = taken.flat_map(|address| {
            let renewal = address.renewed.map_or(now, |renewed| renewed + RENEWAL);
            [renewal, address.announcement_due().unwrap_or(now)]
        });
        due.min().map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now))
    }

    fn order(&mut self, shard: usize, has: bool) {
        let now = Instant::now();
        for address in self.all.iter_mut().filter(|address| address.config.shard == shard) {
            if has && address.taken.is_none() {
                (address.taken, address.renewed, address.announced) = (Some(now), None, (0, now));
            }
            if !has && address.taken.take().is_some() {
                let config = &address.config;
                let removed = link_of(&config.interface).and_then(|link| {
                    let removed = self.socket.remove(link.index, (config.address, config.length));
                    removed.map_err(|error| error.to_string())
                });
                address.note(ADDRESS, removed);
            }
        }
    }

    /// Gives again what is held, and tells the network.
    fn keep(&mut self) {
        for address in self.all.iter_mut().filter(|address| address.taken.is_some()) {
            let now = Instant::now();
            let is_renewed = address.renewed.is_some_and(|renewed| now < renewed + RENEWAL);
            let is_told = address.announcement_due().is_some_and(|due| now < due);
            if is_renewed && is_told {
                continue;
            }
            let config = &address.config;
            let link = link_of(&config.interface);
            if !is_renewed {
                let put = link.as_ref().map_err(Clone::clone).and_then(|link| {
                    let put = self.socket.put(link.index, (config.address, config.length), LIFETIME);
                    put.map_err(|error| error.to_string())
                });
                address.renewed = Some(now);
                address.note(ADDRESS, put);
            }
            if !is_told {
                // Without the interface there is nobody to tell.
                let told = link.map_or(Ok(()), |link| announce(&link, &address.config));
                address.announced = (address.announced.0 + 1, now);
                address.note(NETWORK, told);
            }
        }
    }
}

impl TakenAddress {
    /// When the network is told next; `None`: never, since it is not taken.
    fn announcement_due(&self) -> Option<Instant> {
        let (times, last) = self.announced;
        let taken = self.taken?;
        Some(ANNOUNCED_AFTER.get(times).map_or(last + ANNOUNCED_EVERY, |after| taken + *after))
    }

    /// Tells an error once.
    fn note(&mut self, what: usize, done: Result<(), String>) {
        let error = done.err();
        let AddressTakeoverConfig { address, length, interface, .. } = &self.config;
        let Some(known) = self.errors.get_mut(what) else { return };
        match &error {
            Some(error) if known.as_ref() != Some(error) => {
                tracing::error!("takeover: {address}/{length} on {interface}: {error}");
            }
            None if known.is_some() => tracing::info!("takeover: {address}/{length} on {interface}: it works again"),
            _ => {}
        }
        *known = error;
    }
}

fn link_of(interface: &str) -> Result<RtLink, String> {
    let links = dump_links().map_err(|error| error.to_string())?;
    links.into_iter().find(|link| link.name == interface).ok_or_else(|| "there is no such interface".to_owned())
}

/// An interface that is no Ethernet has nobody to tell.
fn announce(link: &RtLink, config: &AddressTakeoverConfig) -> Result<(), String> {
    let Some(mac) = link.mac.filter(|_| link.is_up) else { return Ok(()) };
    let (header, packet) = announcement(mac, config.address);
    let sent = PacketSocket::open(link.index).and_then(|socket| socket.send(&header, &packet));
    // One that is lost is sent again later.
    sent.map(drop).map_err(|error| format!("the network cannot be told: {error}"))
}
