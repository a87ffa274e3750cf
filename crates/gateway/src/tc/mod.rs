//! The driver at tc's hooks: packets of existing interfaces, with the kernel's routes and neighbours, and those of the machine itself.
//!
//! Programs at ingress and egress of each governed interface send every IP packet to the carrier; here it is read, goes through the router, and is written back with what is to be done with it. Packets that
//! are forwarded leave by the kernel's own neighbours; those for the machine go on into its stack on the interface they came by, those from it leave as they were about to.
//!
//! Programs and carrier outlive this process (see [`keepstate_linux::tc`]): when it dies, nothing passes until the next one has taken over. [`detach`] ends that.
mod flow_entry;
mod flows;
mod governed;
mod kernel_routes;
mod link_news;
mod looped;
mod open;
mod opened;
mod options;
mod outside_ports;
mod unanswered;

use super::driver::Driver;
use super::gso::MAX_GSO_LEN;
use super::packet_batch::BufferPool;
use super::route_follower::{FibUpdate, MessageObserver, RouteFollower, Seen};
use super::shared::SharedGateway;
use super::turns::TurnKind;
use super::{gso, kernel_fib};
use anyhow::{Context, Result, bail};
use flows::TcFlows;
pub(crate) use governed::GovernedInterfaces;
pub use governed::InterfacePattern;
use keepstate_engine::Instant;
use keepstate_linux::file_access::FileAccess;
use keepstate_linux::poll;
use keepstate_linux::rtnetlink::RtLink;
use keepstate_linux::tc::{
    CARRIER_NAME, CarriedPacket, Carrier, CarrierAction, HookCounters, HookSecrets, TcHook, TcHooks,
};
use keepstate_linux::virtio_net::VirtioNetHdr;
use keepstate_router::{Egress, FibTable, MarkedEgress, RouteOracle, Router};
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::rewrite;
use kernel_routes::{KernelRoutes, RoutingState};
use link_news::{LinkNews, lock, observe_links};
pub use open::detach;
use open::{open_carrier, open_pins};
pub use options::{Lifeline, OnExit, TcOptions};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use unanswered::Unanswered;

/// Packets read before the router is locked.
const RX_BATCH: usize = 64;

/// The carrier, the programs, and what is known of the interfaces.
pub(super) struct TcDriver {
    carrier: Carrier,
    hooks: TcHooks,
    flows: TcFlows,
    governed: GovernedInterfaces,
    /// Names of the governed interfaces, by index.
    attached: BTreeMap<u32, String>,
    /// What was said of interfaces that cannot be governed.
    refused: Vec<String>,
    routes: RouteFollower,
    links: Arc<Mutex<LinkNews>>,
    routing: Arc<RoutingState>,
    unanswered: Arc<Mutex<Unanswered>>,
    /// The routes at the start, until they are taken.
    fib: Option<FibTable>,
    on_exit: OnExit,
    lifeline: Option<Lifeline>,
    /// Room for the longest packet.
    buffer: Vec<u8>,
    buffers: BufferPool,
    received: Vec<RxPacket>,
    to_send: Vec<TxPacket>,
    lost: u64,
    /// Was it said that nothing can be led back to the machine itself?
    loopback_failed: bool,
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
        let (routes, fib, messages) = RouteFollower::open()?;
        let links = kernel_fib::links(&messages);
        let governed = GovernedInterfaces(patterns.to_vec());
        governed.check(&links)?;
        if let Some(lifeline) = &options.lifeline
            && !governed.select(&links).0.iter().any(|link| link.name == lifeline.interface)
        {
            bail!("--lifeline {}: it is not one of the governed interfaces", lifeline.interface);
        }
        let pins = open_pins()?;
        let mut carrier = open_carrier()?;
        let mut hooks =
            TcHooks::load(&carrier, secrets, options.on_exit == OnExit::Open, options.offload_size, pins)
                .context("cannot load the programs for tc: needs Linux 6.6 or newer, CAP_BPF and CAP_NET_ADMIN")?;
        let (asked, size) = (options.offload_size, hooks.flow_table_size());
        if size != asked {
            tracing::warn!(
                "the kernel keeps the room for {size} established connections of the gateway before, not for {asked}; \
                 to change it type: keepstate gateway --detach, and start again"
            );
        }
        let flows = TcFlows::new(&mut hooks)?;
        let closed_before = hooks.attached();
        // From here on the interfaces stay closed when this process dies.
        carrier.set_persistent(true).with_context(|| format!("keeping {CARRIER_NAME}"))?;
        let mut driver = TcDriver {
            carrier,
            hooks,
            flows,
            governed,
            attached: BTreeMap::new(),
            refused: Vec::new(),
            routes,
            links: Arc::default(),
            routing: Arc::default(),
            unanswered: Arc::default(),
            fib: Some(fib),
            on_exit: options.on_exit,
            lifeline: options.lifeline,
            buffer: vec![0; MAX_GSO_LEN],
            buffers: BufferPool::default(),
            received: Vec::new(),
            to_send: Vec::new(),
            lost: 0,
            loopback_failed: false,
            closed_before,
            started: false,
        };
        driver.follow_interfaces(&links).context("cannot govern the interfaces")?;
        let others = driver.governed.others(&links);
        if !others.is_empty() {
            tracing::info!(
                "not governed: {}; what the kernel forwards from there to a governed interface is dropped",
                others.join(", ")
            );
        }
        driver.observer()(Seen::All(&messages));
        driver.warn_of_forwarding();
        Ok(driver)
    }

    /// What sees the kernel's messages.
    fn observer(&self) -> MessageObserver {
        let links = Arc::clone(&self.links);
        let routing = Arc::clone(&self.routing);
        let unanswered = Arc::clone(&self.unanswered);
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
        })
    }

    /// Tells the senders of packets to neighbours that have not answered.
    fn report_unanswered(&mut self, failed: Vec<Vec<u8>>, router: &mut Router, now: Instant) {
        router.set_packet_mark(0);
        for packet in failed {
            router.send_host_unreachable(&packet, now);
            while let Some(out) = router.poll_marked_output() {
                self.queue_own(out);
            }
        }
    }

    /// Queues what the router has answered to connections that were opened by class, and notes who may have to be told that a neighbour does not answer.
    fn send_own(&mut self) {
        for (neighbour, syn) in self.flows.take_gone_on() {
            lock(&self.unanswered).note(neighbour, &syn);
        }
        self.flows.take_outputs().into_iter().for_each(|out| self.queue_own(out));
    }

    /// Queues a packet of the router's own, which is an answer to none that was read.
    fn queue_own(&mut self, MarkedEgress { egress, mark }: MarkedEgress) {
        let Egress::Forward { oif, next_hop, packet } = egress else { return };
        let offload = VirtioNetHdr::default();
        let carried =
            CarriedPacket { hook: TcHook::Ingress, ifindex: 0, mark, uid: None, ethernet: [0; 14], offload, length: 0 };
        self.to_send.push(TxPacket {
            action: CarrierAction::Neighbour(oif, next_hop),
            carried,
            bytes: packet,
            offload,
        });
    }

    /// Says where the kernel cannot be asked for routes.
    fn warn_of_forwarding(&self) {
        let not_forwarding = self.routing.not_forwarding();
        let is_off = |(index, _): &(&u32, &String)| not_forwarding.contains(index);
        let names: Vec<&str> = self.attached.iter().filter(is_off).map(|(_, name)| name.as_str()).collect();
        if !names.is_empty() {
            tracing::info!(
                "{}: the kernel does not forward IPv4 there, so it tells no routes, and those of the main table are used. \
                 For policy rules, several ways or VRFs type: sysctl -w net.ipv4.ip_forward=1",
                names.join(", ")
            );
        }
    }

    /// Makes the established connections that an earlier gateway has left in the kernel known to the router, before the first packet.
    pub(super) fn adopt_flows(&mut self, router: &mut Router, now: Instant) {
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

    /// The names of the governed interfaces.
    pub(super) fn interface_names(&self) -> String {
        let names: Vec<&str> = self.attached.values().map(String::as_str).collect();
        names.join(", ")
    }

    /// Attaches to interfaces that have come, and forgets those that have gone.
    fn follow_interfaces(&mut self, links: &[&RtLink]) -> Result<()> {
        let (selected, refused) = self.governed.select(links);
        for why in refused.iter().filter(|why| !self.refused.contains(why)) {
            tracing::warn!("not governed: {why}");
        }
        self.refused = refused;
        for link in &selected {
            match self.attached.get(&link.index) {
                None => {
                    self.hooks.attach(&link.name, link.index).with_context(|| format!("--interface {}", link.name))?;
                    tracing::info!("{}: governed", link.name);
                    if let Some(lifeline) = self.lifeline.as_ref().filter(|lifeline| lifeline.interface == link.name) {
                        self.hooks.set_lifeline(link.index, lifeline.port).context("--lifeline")?;
                        tracing::info!("{}: TCP port {} stays open when no gateway runs", link.name, lifeline.port);
                    }
                }
                Some(before) if *before != link.name => tracing::info!("{before} is called {} now", link.name),
                Some(_) => (),
            }
            self.attached.insert(link.index, link.name.clone());
        }
        for index in self.hooks.attached() {
            if !selected.iter().any(|link| link.index == index) {
                let name = self.attached.remove(&index).unwrap_or_else(|| format!("interface {index}"));
                self.hooks.detach(index).with_context(|| format!("detaching from {name}"))?;
                tracing::warn!("{name}: no longer governed");
            }
        }
        Ok(())
    }

    /// Reads a batch of packets at most.
    fn receive(&mut self) -> Result<()> {
        while self.received.len() < RX_BATCH {
            let read = self.carrier.read(&mut self.buffer).with_context(|| format!("{CARRIER_NAME} is gone"))?;
            let Some(carried) = read else { break };
            let bytes = self.buffers.take_packet(&mut self.buffer, carried.length);
            self.received.push(RxPacket { carried, bytes });
        }
        Ok(())
    }

    /// Gives a packet to the router, and takes what it gives out.
    fn route(&mut self, mut packet: RxPacket, router: &mut Router, now: Instant) {
        let carried = packet.carried;
        router.set_packet_mark(carried.mark);
        router.set_socket_uid(carried.uid);
        router.set_link_header(Some(carried.ethernet));
        let gso = carried.offload.gso_size.and_then(|size| GsoPacket::parse(&packet.bytes, size));
        match (&gso, carried.offload.needs_csum) {
            (Some(gso), Some(_)) => route_gso(router, gso, &mut packet.bytes, &carried, now),
            (_, needs_csum) => {
                if let Some((from, at)) = needs_csum {
                    rewrite::finish_partial_checksum(&mut packet.bytes, from.into(), at.into());
                }
                route_one(router, &mut packet.bytes, None, &carried, now);
            }
        }
        while let Some(MarkedEgress { egress, mark }) = router.poll_marked_output() {
            let (action, mut bytes) = match egress {
                Egress::Forward { oif, next_hop, packet } => (CarrierAction::Neighbour(oif, next_hop), packet),
                Egress::LocalDeliver(packet) => (CarrierAction::Deliver(carried.ifindex), packet),
                Egress::LetOut(packet) => (CarrierAction::Send(carried.ifindex), packet),
                Egress::Loop { iif, packet } => {
                    if carried.ifindex != looped::LOOPBACK_INDEX {
                        looped::expect_answers(&mut self.hooks, &packet, &mut self.loopback_failed);
                    }
                    (CarrierAction::Deliver(iif), packet)
                }
            };
            let offload = gso::tx_offload(gso.as_ref(), &mut bytes);
            let mut carried = CarriedPacket { mark, ..carried };
            if let (TcHook::Egress, CarrierAction::Deliver(iif)) = (carried.hook, action) {
                // To the machine itself: as if the other end of the link had sent it.
                let (to, from) = carried.ethernet.split_at_mut(6);
                to.swap_with_slice(from.get_mut(..6).unwrap_or_default());
                if iif != carried.ifindex {
                    to.copy_from_slice(&self.mac_of(iif));
                }
            }
            self.to_send.push(TxPacket { action, carried, bytes, offload });
        }
        self.buffers.recycle(packet.bytes);
    }

    /// The MAC address of an interface, as far as it has one.
    fn mac_of(&self, ifindex: u32) -> [u8; 6] {
        lock(&self.links).links.get(&ifindex).and_then(|link| link.mac).unwrap_or_default()
    }

    /// Writes what the router gave out.
    fn send(&mut self) -> Result<()> {
        for TxPacket { action, carried, bytes, offload } in std::mem::take(&mut self.to_send) {
            if let (CarrierAction::Neighbour(oif, next_hop), None) = (action, offload.gso_size) {
                lock(&self.unanswered).note((oif, next_hop), &bytes);
            }
            let written = self.carrier.write(action, &carried, &bytes, offload);
            self.lost += u64::from(!written.with_context(|| format!("{CARRIER_NAME} is gone"))?);
            self.buffers.recycle(bytes);
        }
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

fn route_one(router: &mut Router, bytes: &mut Vec<u8>, max_len: Option<usize>, carried: &CarriedPacket, now: Instant) {
    // Drops are counted and answered by the router.
    let _ = match (carried.hook, max_len) {
        (TcHook::Egress, max_len) => router.handle_output(bytes, max_len, carried.ifindex, now),
        (TcHook::Ingress, None) => router.handle_owned(bytes, carried.ifindex, now),
        (TcHook::Ingress, Some(max_len)) => router.handle_gso(bytes, max_len, carried.ifindex, now),
    };
}

/// Routes a GSO packet; segment by segment, where the segments are too big for the outgoing MTU.
fn route_gso(router: &mut Router, gso: &GsoPacket, bytes: &mut Vec<u8>, carried: &CarriedPacket, now: Instant) {
    if carried.hook == TcHook::Ingress {
        return gso::route_gso(router, gso, bytes, carried.ifindex, now);
    }
    route_one(router, bytes, Some(gso.max_segment_len()), carried, now);
}

impl Driver for TcDriver {
    fn allow_files(&self, access: FileAccess) -> FileAccess {
        self.hooks.pins().allow(access)
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
        self.flows.sync(router, &mut self.hooks, now).context("telling the programs which flows are known")?;
        self.send_own();
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let observer = self.observer();
        self.routes.start(observer)?;
        self.started = true;
        Ok(())
    }

    fn poll_fib(&mut self) -> Result<Option<FibUpdate>> {
        let links = {
            let mut news = lock(&self.links);
            std::mem::take(&mut news.changed).then(|| news.links.values().cloned().collect::<Vec<_>>())
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
