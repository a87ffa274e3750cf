//! The driver at tc's hooks: packets of existing interfaces, with the kernel's routes and neighbours, and those of the machine itself.
//!
//! Programs at ingress and egress of each governed interface send every IP packet to the carrier; here it is read, goes through the router, and is written back with what is to be done with it. Packets that
//! are forwarded leave by the kernel's own neighbours; those for the machine go on into its stack on the interface they came by, those from it leave as they were about to.
//!
//! Programs and carrier outlive this process (see [`keepstate_linux::tc`]): when it dies, nothing passes until the next one has taken over. [`detach`] ends that.
mod attached;
mod carried_packets;
mod entered;
mod flow_entry;
mod flows;
mod governed;
mod ipsec;
mod ipsec_news;
mod joined_groups;
mod kernel_routes;
mod kernel_sockets;
mod link_news;
mod listeners;
mod looped;
mod open;
mod opened;
mod options;
mod outside_ports;
mod unanswered;
mod xdp_hops;
mod xdp_interfaces;

use super::driver::Driver;
use super::gso::MAX_GSO_LEN;
use super::kernel_fib;
use super::packet_batch::BufferPool;
use super::route_follower::{FibUpdate, MessageObserver, RouteFollower, Seen};
use super::shared::SharedGateway;
use super::turns::TurnKind;
use anyhow::{Context, Result, bail};
use attached::AttachedInterfaces;
use flows::TcFlows;
pub(crate) use governed::GovernedInterfaces;
pub use governed::InterfacePattern;
use keepstate_engine::Instant;
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::poll;
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tc::{
    CARRIER_NAME, CarriedPacket, Carrier, CarrierAction, HookCounters, HookOptions, HookSecrets, HopTable, TcHooks,
};
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_router::{FibTable, RouteOracle, Router};
use keepstate_rules::SocketLookup;
use kernel_routes::{KernelRoutes, RoutingState};
use kernel_sockets::KernelSockets;
use link_news::{LinkNews, lock, observe_links};
use listeners::Listeners;
pub use open::detach;
use open::{open_carrier, open_pins};
pub use options::{Lifeline, OffloadXdp, OnExit, TcOptions, Unattended};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use unanswered::Unanswered;
use xdp_hops::HopNews;
use xdp_interfaces::XdpInterfaces;

/// Between two times that the packets sent on at XDP are counted, in nanoseconds.
const XDP_COUNT_INTERVAL: u64 = 500_000_000;

/// The carrier, the programs, and what is known of the interfaces.
pub(super) struct TcDriver {
    carrier: Carrier,
    hooks: TcHooks,
    flows: TcFlows,
    attached: AttachedInterfaces,
    routes: RouteFollower,
    links: Arc<Mutex<LinkNews>>,
    routing: Arc<RoutingState>,
    listeners: Listeners,
    ipsec_changes: u64,
    unanswered: Arc<Mutex<Unanswered>>,
    xdp: XdpInterfaces,
    /// Is there an interface with the program at XDP?
    has_xdp: Arc<AtomicBool>,
    next_xdp_count: Instant,
    /// The neighbours that XDP programs send to, until the thread that follows them has it.
    hop_table: Option<HopTable>,
    hops: Option<HopNews>,
    /// The routes at the start, until they are taken.
    fib: Option<FibTable>,
    on_exit: OnExit,
    /// Room for the longest packet.
    buffer: Vec<u8>,
    buffers: BufferPool,
    received: Vec<RxPacket>,
    to_send: Vec<TxPacket>,
    lost: u64,
    /// Was it said that nothing can be led back to the machine itself?
    loopback_failed: bool,
    /// Do first packets of the machine to itself come here?
    asks_loopback: bool,
    /// Interfaces that an earlier gateway has left closed.
    closed_before: Vec<u32>,
    /// From then on interfaces stay closed when this ends.
    started: bool,
}

/// A packet read, and not yet routed.
struct RxPacket {
    carried: CarriedPacket,
    bytes: Vec<u8>,
}

/// A packet routed, and not yet written.
struct TxPacket {
    action: CarrierAction,
    carried: CarriedPacket,
    bytes: Vec<u8>,
    offload: VirtioNetHdr,
}

impl TcDriver {
    /// Governs the interfaces of these names.
    ///
    /// # Errors
    /// An interface does not exist or cannot be governed; another gateway runs; missing capabilities.
    pub(super) fn new(patterns: &[InterfacePattern], secrets: HookSecrets, options: TcOptions) -> Result<TcDriver> {
        let check = |governed: &GovernedInterfaces, links: &[&RtLink]| {
            governed.check(links)?;
            match &options.lifeline {
                Some(Lifeline { interface, .. })
                    if !governed.select(links).0.iter().any(|link| link.name == *interface) =>
                {
                    bail!("--lifeline {interface}: it is not one of the governed interfaces")
                }
                _ => Ok(()),
            }
        };
        Ok(TcDriver::open(patterns, secrets, options.clone(), check)?.0)
    }

    /// Governs those of the interfaces that are there, after `check` has seen what there is.
    fn open<T>(
        patterns: &[InterfacePattern],
        secrets: HookSecrets,
        options: TcOptions,
        check: impl FnOnce(&GovernedInterfaces, &[&RtLink]) -> Result<T>,
    ) -> Result<(TcDriver, T)> {
        let (routes, fib, messages) = RouteFollower::open()?;
        let links = kernel_fib::links(&messages);
        let governed = GovernedInterfaces(patterns.to_vec());
        let checked = check(&governed, &links)?;
        let pins = open_pins()?;
        let mut carrier = open_carrier()?;
        let hook_options = HookOptions {
            open_when_dead: options.on_exit == OnExit::Open,
            unattended: options.unattended.0,
            size: options.offload_size,
        };
        let mut hooks = TcHooks::load(&carrier, secrets, hook_options, pins)
            .context("cannot load the programs for tc: needs Linux 6.6 or newer, CAP_BPF and CAP_NET_ADMIN")?;
        let (asked, size) = (options.offload_size, hooks.flow_table_size());
        if size != asked {
            tracing::warn!(
                "the kernel keeps the room for {size} established connections of the gateway before, not for {asked}; \
                 to change it type: keepstate gateway --detach, and start again"
            );
        }
        let flows = TcFlows::new(&mut hooks)?;
        // Without known flows there is nothing to send on.
        let offload_xdp = if options.offload { options.offload_xdp } else { OffloadXdp::Off };
        let closed_before = hooks.attached();
        // From here on the interfaces stay closed when this process dies.
        carrier.set_persistent(true).with_context(|| format!("keeping {CARRIER_NAME}"))?;
        let mut driver = TcDriver {
            carrier,
            hooks,
            flows,
            attached: AttachedInterfaces::new(governed.clone(), options.lifeline),
            routes,
            links: Arc::default(),
            routing: Arc::default(),
            listeners: Listeners::default(),
            ipsec_changes: 0,
            unanswered: Arc::default(),
            xdp: XdpInterfaces::new(offload_xdp),
            has_xdp: Arc::default(),
            next_xdp_count: Instant(0),
            hop_table: None,
            hops: None,
            fib: Some(fib),
            on_exit: options.on_exit,
            buffer: vec![0; MAX_GSO_LEN],
            buffers: BufferPool::default(),
            received: Vec::new(),
            to_send: Vec::new(),
            lost: 0,
            loopback_failed: false,
            asks_loopback: false,
            closed_before,
            started: false,
        };
        driver.follow_interfaces(&links).context("cannot govern the interfaces")?;
        if offload_xdp != OffloadXdp::Off {
            driver.hop_table = Some(driver.hooks.hop_table()?);
        }
        let others = governed.others(&links);
        if !others.is_empty() {
            tracing::info!(
                "not governed: {}; what the kernel forwards from there to a governed interface is dropped",
                others.join(", ")
            );
        }
        driver.observer()(Seen::All(&messages));
        ipsec_news::read(&driver.routing).context("reading IPsec policies")?;
        driver.tell_of_forwarding();
        Ok((driver, checked))
    }

    /// What sees the kernel's messages.
    fn observer(&self) -> MessageObserver {
        let links = Arc::clone(&self.links);
        let routing = Arc::clone(&self.routing);
        let unanswered = Arc::clone(&self.unanswered);
        let hops = self.hops.clone();
        Box::new(move |seen| {
            let messages = match &seen {
                Seen::All(messages) => messages,
                Seen::Change(message) => std::slice::from_ref(*message),
            };
            for message in messages {
                routing.observe(message);
                lock(&unanswered).observe(message);
            }
            observe_links(&links, &seen);
            hops.iter().for_each(|hops| hops.observe(&seen));
        })
    }

    /// Says where the machine does not forward by itself.
    fn tell_of_forwarding(&self) {
        let not_forwarding = self.routing.not_forwarding();
        let is_off = |(index, _): &(&u32, &String)| not_forwarding.of_v4.contains(index);
        let names: Vec<&str> = self.attached.names().iter().filter(is_off).map(|(_, name)| name.as_str()).collect();
        if !names.is_empty() {
            tracing::info!(
                "{}: the machine does not forward IPv4 from there (net.ipv4.ip_forward=0). Packets are forwarded only if \
                 the ruleset has a chain for forwarded packets or for NAT, and by the main table, since the kernel tells no \
                 routes. For policy rules, several ways or VRFs type: sysctl -w net.ipv4.ip_forward=1",
                names.join(", ")
            );
        }
        if not_forwarding.v6 {
            tracing::info!(
                "the machine does not forward IPv6 (net.ipv6.conf.all.forwarding=0): packets are forwarded only if the \
                 ruleset has a chain for forwarded packets or for NAT"
            );
        }
    }

    /// Makes the established connections that an earlier gateway has left in the kernel known to the router, before the first packet.
    pub(super) fn adopt_flows(&mut self, router: &mut Router, now: Instant) {
        if let Err(error) = self.follow_translation(router.translates_own_output()) {
            tracing::error!("{error:#}");
        }
        let count = self.flows.adopt(router, now);
        if count > 0 {
            tracing::info!("{count} established connections taken over from the gateway before");
            // They count for their backends.
            router.adopt_connections(now);
        }
    }

    /// Who tells the router the kernel's way of a packet.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub(super) fn route_oracle(&self) -> Result<Box<dyn RouteOracle>> {
        let routes = KernelRoutes::open(Arc::clone(&self.routing)).context("opening a route socket")?;
        Ok(Box::new(routes))
    }

    /// Who finds the machine's sockets.
    ///
    /// # Errors
    /// The socket that asks cannot be opened.
    pub(super) fn socket_lookup(&self) -> Result<Box<dyn SocketLookup>> {
        let sockets = KernelSockets::open().context("opening a socket that asks for sockets (sock_diag)")?;
        Ok(Box::new(sockets))
    }

    /// The name of a governed interface.
    pub(super) fn name_of(&self, index: u32) -> Option<&str> {
        self.attached.names().get(&index).map(String::as_str)
    }

    /// The names of the governed interfaces.
    pub(super) fn interface_names(&self) -> String {
        let names: Vec<&str> = self.attached.names().values().map(String::as_str).collect();
        names.join(", ")
    }

    /// Closes the interfaces of these names that are there, before a gateway runs: the programs stand, and nobody reads what they send. Returns their names, joined, and those that are not there.
    ///
    /// # Errors
    /// A gateway runs; an interface cannot be governed; missing capabilities.
    pub(super) fn close_before_start(
        patterns: &[InterfacePattern],
        secrets: HookSecrets,
        options: TcOptions,
    ) -> Result<(String, Vec<String>)> {
        let (mut driver, missing) =
            TcDriver::open(patterns, secrets, options, |governed, links| Ok(governed.missing(links)))?;
        // They stay so when this ends, although no gateway has run.
        driver.started = true;
        Ok((driver.interface_names(), missing))
    }

    /// Attaches to interfaces that have come, and forgets those that have gone.
    fn follow_interfaces(&mut self, links: &[&RtLink]) -> Result<()> {
        let attached = self.attached.follow(links, &mut self.hooks, !self.started)?;
        self.has_xdp.store(self.xdp.follow(&attached, &mut self.hooks), Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for TcDriver {
    /// A start that has failed leaves the interfaces as it found them.
    fn drop(&mut self) {
        if self.started {
            return;
        }
        let undone = if self.closed_before.is_empty() {
            self.hooks.give_back().map(drop).and_then(|()| self.carrier.set_persistent(false))
        } else {
            let new = self.hooks.attached().into_iter().filter(|index| !self.closed_before.contains(index));
            new.collect::<Vec<_>>().into_iter().try_for_each(|index| self.hooks.detach(index))
        };
        if let Err(error) = undone {
            tracing::error!("some interfaces stay closed ({error}); keepstate gateway --detach gives them back");
        }
    }
}

impl Driver for TcDriver {
    fn allow_files(&self, access: FileAccess) -> FileAccess {
        self.hooks.allow(access)
    }

    fn wait(&mut self, milliseconds: i32) -> Result<()> {
        // Lines that are given back soon make room, and their last counts are wanted.
        let milliseconds = if self.flows.has_leaving() { milliseconds.min(10) } else { milliseconds };
        let milliseconds = if self.flows.is_busy() { milliseconds.min(1) } else { milliseconds };
        let others = [self.carrier.as_fd(), self.routes.news()];
        let ready = poll::poll_readable(others.into_iter().chain(self.flows.bell()), milliseconds);
        if ready.context("waiting for packets")? > 0 {
            self.flows.hear();
        }
        Ok(())
    }

    fn process_batch(&mut self, gateway: &SharedGateway, now: Instant) -> Result<usize> {
        self.receive()?;
        let received = std::mem::take(&mut self.received);
        let count = received.len();
        let failed = lock(&self.unanswered).take_failed();
        if !failed.is_empty() {
            let router = &mut gateway.lock(TurnKind::Packets).router;
            self.report_unanswered(failed, router, now);
        }
        if count > 0 {
            let router = &mut gateway.lock(TurnKind::Packets).router;
            // Segments that have gone on before these packets came.
            self.flows.take_notes(router, now);
            self.send_own();
            router.prefetch(received.iter().map(|packet| packet.bytes.as_slice()));
            for packet in received {
                self.route(packet, router, now);
            }
            self.sync_flows(router, now)?;
        }
        self.send()?;
        Ok(count)
    }

    fn sync_flows(&mut self, router: &mut Router, now: Instant) -> Result<()> {
        self.hooks.beat();
        self.follow_translation(router.translates_own_output())?;
        let ipsec_changes = self.routing.ipsec_changes();
        let has_ipsec_changed = std::mem::replace(&mut self.ipsec_changes, ipsec_changes) != ipsec_changes;
        if self.listeners.take_changed(router.program().asks_for_sockets()) || has_ipsec_changed {
            router.revoke_flows();
        }
        self.flows.sync(router, &mut self.hooks, now).context("telling the programs which flows are known")?;
        if self.has_xdp.load(Ordering::Relaxed) && now >= self.next_xdp_count {
            self.next_xdp_count = Instant(now.0 + XDP_COUNT_INTERVAL);
            router.set_sent_at_xdp(self.hooks.counters().unwrap_or_default().known_by_xdp);
        }
        self.send_own();
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        if let Some(table) = self.hop_table.take() {
            self.hops = Some(xdp_hops::start(table, Arc::clone(&self.has_xdp))?);
        }
        let observer = self.observer();
        self.routes.start(observer)?;
        self.listeners.start().context("starting the thread that follows what listens")?;
        ipsec_news::follow(&self.routing).context("starting the thread that follows IPsec policies")?;
        self.started = true;
        Ok(())
    }

    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        let links = {
            let mut news = lock(&self.links);
            let is_due = std::mem::take(&mut news.changed) || self.attached.is_retry_due();
            is_due.then(|| news.links.values().cloned().collect::<Vec<_>>())
        };
        if let Some(links) = links {
            self.follow_interfaces(&links.iter().collect::<Vec<_>>())?;
        }
        let first = self.fib.take().map(|fib| FibUpdate::Table(Box::new(fib)));
        Ok(first.or_else(|| self.routes.poll()))
    }

    fn drop_counts(&self) -> Vec<(&'static str, u64)> {
        let HookCounters { ungoverned, broken, .. } = self.hooks.counters().unwrap_or_default();
        let (_, refused) = self.flows.counts();
        vec![
            ("flows without a place in the table", refused),
            ("lost on the way back", self.lost),
            ("forwarded by the kernel from interfaces that are not governed", ungoverned),
            ("refused by the kernel", broken),
        ]
    }

    fn close(&mut self) -> Result<()> {
        let names = self.interface_names();
        self.flows.close();
        self.follow_translation(false)?;
        match self.on_exit {
            OnExit::Closed => {
                tracing::warn!(
                    "closed: no packet passes {names} until a gateway runs again; keepstate gateway --detach gives the interfaces back to the kernel"
                );
            }
            OnExit::Open => {
                self.hooks.give_back().context("giving the interfaces back to the kernel")?;
                self.carrier.set_persistent(false).context("removing the carrier")?;
                tracing::warn!("open: the kernel has {names} again, without this ruleset");
            }
        }
        Ok(())
    }
}
