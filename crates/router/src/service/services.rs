//! All services of a router: which addresses they listen at, and their connections.
use super::backend::{BackendChoice, BackendId};
use super::config::{BackendConfig, Masquerade, ServiceConfig, Transport, WhenDown};
use super::connections::{ConnectionEvent, EndAction, EndMode, ServiceConnections};
use super::state::{BackendState, ServiceState};
use crate::fib::FibTable;
use keepstate_engine::{ConnId, Direction, Engine, Entry, Instant, Manip, NatRange, PacketCtx, Status, Tuple};
use keepstate_rules::{Fib, PacketMeta};
use keepstate_wire::keyed_hash::SipKey;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;

/// All services of a router.
#[derive(Debug)]
pub struct Services {
    /// By key, ascending.
    services: Vec<ServiceState>,
    /// The listening ports, by address and protocol.
    listeners: BTreeMap<(IpAddr, u8), Vec<ListenRange>>,
    connections: ServiceConnections,
    /// Slots of the table from this one on are still to be searched for connections older than their service.
    adopt_cursor: Option<u32>,
    /// Lines for the log.
    notes: VecDeque<String>,
    last_key: u32,
    draws: u64,
    key: SipKey,
    generation: u64,
}

/// A range of listening ports, and the key of its service. Ranges of an address do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ListenRange {
    first: u16,
    last: u16,
    service: u32,
}

/// A packet, and what services need to translate it.
pub(crate) struct ServiceCtx<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) ctx: &'a mut PacketCtx,
    pub(crate) fib: &'a FibTable,
    pub(crate) meta: &'a PacketMeta,
    pub(crate) now: Instant,
}

/// The result for a packet; the router acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceVerdict {
    /// Not for a service, or of a known connection.
    NotService,
    /// Translated to a backend.
    Dispatched(BackendChoice),
    /// No backend is up, or its connection is to be reset: the router rejects the packet.
    Refused,
    /// Its connection has ended: the packet is dropped, and the next one begins a new connection.
    Ended,
}

impl Services {
    /// No services. `key` keys the random choice of backends.
    pub(crate) fn new(key: SipKey) -> Services {
        Services {
            services: Vec::new(),
            listeners: BTreeMap::new(),
            connections: ServiceConnections::new(key.derive(1)),
            adopt_cursor: None,
            notes: VecDeque::new(),
            last_key: 0,
            draws: 0,
            key: key.derive(0),
            generation: 0,
        }
    }

    /// All services, with those that are removed but still have connections.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceState> {
        self.services.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Is any connection of a service in the table?
    pub(crate) fn has_connections(&self) -> bool {
        !self.connections.is_empty() || self.adopt_cursor.is_some()
    }

    /// Changes each time services are replaced: backends may be others then.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every configured backend, with its service.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, &ServiceState, &BackendState)> {
        self.services.iter().filter(|running| !running.removed).flat_map(|running| {
            let named = running.backends.iter().filter(|member| !member.removed);
            named.map(move |member| (BackendId { service: running.key, backend: member.key }, running, member))
        })
    }

    /// Replaces the services. Services with a known name go on; the connections of backends no longer named end, at once or after the service's `drain`.
    pub(crate) fn replace(&mut self, services: Vec<ServiceConfig>, fib: &FibTable, engine: &mut Engine, now: Instant) {
        self.generation += 1;
        self.services.iter_mut().for_each(|running| running.removed = true);
        let mut is_new = false;
        for service in services {
            let keys = &mut self.last_key;
            let mut key = || {
                *keys += 1;
                *keys
            };
            let known = self.services.iter_mut().find(|running| running.config.name == service.name);
            match known {
                Some(running) => running.update_config(service, key),
                None => {
                    let mut running = ServiceState::new(key(), service.clone());
                    running.update_config(service, key);
                    self.services.push(running);
                    is_new = true;
                }
            }
        }
        for running in self.services.iter_mut().filter(|running| running.removed) {
            running.backends.iter_mut().for_each(|member| member.removed = true);
        }
        self.rebuild_listeners();
        self.end_removed_backends(now);
        if is_new {
            self.adopt_cursor = Some(0);
            self.adopt_step(fib, engine, now);
        }
        self.end_step(fib, engine, now);
        self.remove_unused();
    }

    /// Rebuilds the listening ports.
    fn rebuild_listeners(&mut self) {
        self.listeners.clear();
        for running in self.services.iter().filter(|running| !running.removed) {
            let ServiceConfig { address, transport, ports, .. } = &running.config;
            let offers = self.listeners.entry((*address, transport.protocol_number())).or_default();
            offers.push(ListenRange { first: *ports.start(), last: *ports.end(), service: running.key });
            offers.sort_unstable();
        }
    }

    /// The index of the service that listens there.
    fn find_service(&self, fib: &FibTable, to: IpAddr, protocol: u8, port: u16) -> Option<usize> {
        let of = |address: IpAddr| {
            let offers = self.listeners.get(&(address, protocol))?;
            let after = offers.partition_point(|offer| offer.first <= port);
            let offer = offers.get(after.checked_sub(1)?)?;
            (port <= offer.last).then_some(offer.service)
        };
        let everywhere = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let key = of(to).or_else(|| of(everywhere).filter(|_| fib.is_local(to)))?;
        self.services.binary_search_by_key(&key, |running| running.key).ok()
    }

    /// Begins the end of the connections of backends that are no longer named, and calls it off for those that are named again.
    fn end_removed_backends(&mut self, now: Instant) {
        let Services { services, connections, notes, .. } = self;
        for running in services {
            for member in &running.backends {
                let id = BackendId { service: running.key, backend: member.key };
                let is_ending = matches!(connections.ending(id), Some((EndMode::Removed, _)));
                if member.removed && !is_ending {
                    connections.begin_end(id, EndMode::Removed, now.after(running.config.drain));
                    let (name, backend, count) = (&running.config.name, &member.config, member.active);
                    let seconds = running.config.drain.as_secs();
                    let when = if seconds == 0 { "now".into() } else { format!("in {seconds} s at the latest") };
                    notes.push_back(format!("{name}: {backend} removed; its {count} connections end {when}"));
                } else if !member.removed && is_ending {
                    connections.cancel_end(id);
                    if member.is_up == Some(false) {
                        let reset = running.config.when_down == WhenDown::Reset;
                        connections.begin_end(id, EndMode::Down { reset }, now);
                    }
                }
            }
        }
    }

    /// The next line for the log.
    pub(crate) fn pop_note(&mut self) -> Option<String> {
        self.notes.pop_front()
    }

    /// How the connections of a removed backend end: the seconds until then, 0 if they have.
    pub fn removed_in(&self, service: &ServiceState, backend: &BackendState, now: Instant) -> Option<u64> {
        let id = BackendId { service: service.key, backend: backend.key };
        match self.connections.ending(id) {
            Some((EndMode::Removed, at)) => Some(at.since(now).as_secs()),
            _ => None,
        }
    }

    /// Ends some of the connections of backends that are down or removed: a bounded piece of work.
    fn end_step(&mut self, fib: &FibTable, engine: &mut Engine, now: Instant) {
        for (handle, backend) in self.connections.next_ending(now, END_STEP) {
            if let Some(entry) = engine.entry(handle, now)
                && self.end_action(fib, handle, backend, &entry, now) == Some(EndAction::Remove)
            {
                engine.remove(handle, now);
                self.forget_connection(handle);
            }
        }
    }

    /// What is to happen to a connection whose backend ends; one that another service has the same backend for moves there.
    fn end_action(
        &mut self,
        fib: &FibTable,
        handle: ConnId,
        backend: BackendId,
        entry: &Entry,
        now: Instant,
    ) -> Option<EndAction> {
        let action = self.connections.end_action(backend, entry, now)?;
        if matches!(self.connections.ending(backend), Some((EndMode::Removed, _)))
            && let Some((running, member)) = self.backend_of(fib, entry)
            && let Some(running) = self.services.get_mut(running)
            && let Some(member) = running.backends.get_mut(member)
        {
            member.add_connection();
            let to = BackendId { service: running.key, backend: member.key };
            let Services { services: running, connections: live, .. } = self;
            live.insert(handle, to, |backend, found| record_event(running, backend, found));
            return None;
        }
        Some(action)
    }

    fn forget_connection(&mut self, handle: ConnId) {
        let Services { services: running, connections: live, .. } = self;
        live.remove(handle, |backend, found| record_event(running, backend, found));
    }

    /// The configured service and backend, by index, that a connection is translated to.
    fn backend_of(&self, fib: &FibTable, entry: &Entry) -> Option<(usize, usize)> {
        let Tuple { destination, protocol, destination_key, .. } = entry.original;
        let place = self.find_service(fib, destination, protocol, destination_key)?;
        let running = self.services.get(place)?;
        let service = &running.config;
        let is_its = |member: &BackendState| {
            let port = service.backend_port(&member.config, destination_key).unwrap_or(destination_key);
            !member.removed && (member.config.address, port) == (entry.reply.source, entry.reply.source_key)
        };
        Some((place, running.backends.iter().position(is_its)?))
    }

    /// As [`Services::adopt_step`], for the whole table at once: before the first packet.
    pub(crate) fn adopt_connections(&mut self, fib: &FibTable, engine: &mut Engine, now: Instant) {
        self.adopt_cursor = Some(0);
        while self.adopt_cursor.is_some() {
            self.adopt_step(fib, engine, now);
        }
    }

    /// As [`Services::adopt_connections`], a piece a turn: packets pass meanwhile, as those of a known connection do.
    pub(crate) fn begin_adoption(&mut self) {
        self.adopt_cursor = Some(0);
    }

    /// Searches a piece of the table for connections older than their service. Those to one of its backends are counted for it. Those to a host that is not (any more) its backend
    /// end, and UDP connections that are not translated, as kube-proxy does, so that the next packet reaches the service.
    fn adopt_step(&mut self, fib: &FibTable, engine: &mut Engine, now: Instant) {
        let Some(first) = self.adopt_cursor else { return };
        let mut found = Vec::new();
        self.adopt_cursor = engine.dump_range(first, ADOPT_STEP, now, |entry| found.push(entry));
        for entry in found {
            self.adopt_connection(fib, engine, &entry, now);
        }
    }

    fn adopt_connection(&mut self, fib: &FibTable, engine: &mut Engine, entry: &Entry, now: Instant) {
        let Tuple { destination, protocol, destination_key, .. } = entry.original;
        if self.connections.contains(entry.conn_id)
            || self.find_service(fib, destination, protocol, destination_key).is_none()
        {
            return;
        }
        if !entry.status.contains(Status::DST_NAT) {
            if protocol == Transport::Udp.protocol_number() {
                engine.remove(entry.conn_id, now);
            }
            return;
        }
        let Some((running, member)) = self.backend_of(fib, entry) else {
            engine.remove(entry.conn_id, now);
            return;
        };
        let Some(running) = self.services.get_mut(running) else { return };
        let Some(member) = running.backends.get_mut(member) else { return };
        member.add_connection();
        let backend = BackendId { service: running.key, backend: member.key };
        self.connections.insert(entry.conn_id, backend, |_, _| ());
    }

    /// A packet of a known connection: may it go to its backend?
    fn check_known(&mut self, fib: &FibTable, engine: &mut Engine, handle: ConnId, now: Instant) -> ServiceVerdict {
        let Some(backend) = self.connections.ending_backend(handle, now) else { return ServiceVerdict::NotService };
        let Some(entry) = engine.entry(handle, now) else { return ServiceVerdict::NotService };
        match self.end_action(fib, handle, backend, &entry, now) {
            None => ServiceVerdict::NotService,
            Some(EndAction::Reset) => ServiceVerdict::Refused,
            Some(EndAction::Remove) => {
                engine.remove(handle, now);
                self.forget_connection(handle);
                ServiceVerdict::Ended
            }
        }
    }

    /// Chooses a backend for a new connection to a service, and translates its destination.
    pub(crate) fn dispatch(&mut self, service_ctx: ServiceCtx<'_>) -> ServiceVerdict {
        let ServiceCtx { engine, ctx, fib, now, .. } = service_ctx;
        let (handle, direction) = (ctx.connection(), ctx.direction());
        let Some(fresh) = ctx.unconfirmed() else {
            return handle.map_or(ServiceVerdict::NotService, |handle| self.check_known(fib, engine, handle, now));
        };
        if fresh.is_nat_initialized(Manip::Destination) || direction != Some(Direction::Original) {
            return ServiceVerdict::NotService;
        }
        let tuple = fresh.original();
        let Some(place) = self.find_service(fib, tuple.destination, tuple.protocol, tuple.destination_key) else {
            return ServiceVerdict::NotService;
        };
        let random = self.random_u64();
        let Some(running) = self.services.get_mut(place) else { return ServiceVerdict::NotService };
        let chosen = running.choose_backend(&tuple, random, now);
        let range = chosen.and_then(|place| running.nat_range(place, tuple.destination_key));
        let member = chosen.and_then(|place| running.backends.get(place));
        let (Some(range), Some(member)) = (range, member) else {
            running.refused += 1;
            return ServiceVerdict::Refused;
        };
        engine.translate(ctx, Manip::Destination, &range, now);
        let backend = BackendId { service: running.key, backend: member.key };
        ServiceVerdict::Dispatched(BackendChoice {
            backend,
            source: tuple.source,
            masquerade: running.config.masquerade,
        })
    }

    /// Translates the source of a connection to a backend, if the service is configured so.
    pub(crate) fn masquerade(&self, choice: &BackendChoice, to: IpAddr, service_ctx: ServiceCtx<'_>) {
        let ServiceCtx { engine, ctx, fib, meta, now } = service_ctx;
        let Some(device) = meta.oif else { return };
        let is_hairpin = meta.iif.is_some_and(|iif| iif.index == device.index);
        let wanted = match choice.masquerade {
            Masquerade::Never => false,
            Masquerade::Hairpin => is_hairpin,
            Masquerade::Always => true,
        };
        if let Some(us) = fib.source_address(device.index, to, meta.next_hop).filter(|_| wanted) {
            engine.translate(ctx, Manip::Source, &NatRange::masquerade(us), now);
        }
    }

    /// Counts a confirmed connection to a backend.
    pub(crate) fn add_connection(&mut self, choice: &BackendChoice, handle: ConnId, now: Instant) {
        let BackendId { service, backend: key } = choice.backend;
        let Some(running) = self.service_mut(service) else { return };
        if let Some(seconds) = running.config.affinity {
            running.affinity.record(choice.source, key, seconds, now);
        }
        if let Some(member) = running.backend_mut(key) {
            member.total += 1;
            member.add_connection();
        }
        let Services { services: running, connections: live, .. } = self;
        live.insert(handle, choice.backend, |backend, found| record_event(running, backend, found));
    }

    /// Sweeps some connections for those that are closed or gone: a bounded piece of work, larger if `thorough`.
    pub(crate) fn expire_connections(&mut self, fib: &FibTable, engine: &mut Engine, thorough: bool, now: Instant) {
        self.adopt_step(fib, engine, now);
        self.end_step(fib, engine, now);
        let Services { services: running, connections: live, .. } = self;
        let mut ended = false;
        live.sweep(engine, thorough, now, |backend, found| {
            record_event(running, backend, found);
            ended |= found == ConnectionEvent::Removed;
        });
        if ended {
            self.remove_unused();
        }
        for running in &mut self.services {
            if let Some(seconds) = running.config.affinity {
                running.affinity.expire(seconds, now);
            }
        }
    }

    /// The connections in the list.
    pub(crate) fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Looks at some connections for those that are closed or gone; returns how many.
    pub(crate) fn count_connections(&mut self, engine: &Engine, most: usize, now: Instant) -> usize {
        let Services { services: running, connections: live, .. } = self;
        let looked = live.sweep_some(engine, most, now, |backend, found| record_event(running, backend, found));
        self.remove_unused();
        looked
    }

    /// Sets the health of a backend; true if it has changed.
    pub(crate) fn set_health(
        &mut self,
        backend: BackendId,
        is_up: bool,
        fib: &FibTable,
        (engine, now): (&mut Engine, Instant),
    ) -> bool {
        let Some(running) = self.service_mut(backend.service) else { return false };
        let Some(member) = running.backend_mut(backend.backend) else { return false };
        let before = member.is_up.replace(is_up);
        let is_removed = member.removed;
        if before == Some(is_up) {
            return false;
        }
        running.rebuild_schedule();
        let reset = running.config.when_down == WhenDown::Reset;
        if !is_removed {
            if is_up {
                self.connections.cancel_end(backend);
            } else {
                self.connections.begin_end(backend, EndMode::Down { reset }, now);
                self.end_step(fib, engine, now);
            }
        }
        before.is_some() || !is_up
    }

    /// Drains every matching backend, or ends that; returns their number.
    pub(crate) fn drain(&mut self, drained: bool, matching: impl Fn(&ServiceConfig, &BackendConfig) -> bool) -> usize {
        let mut count = 0;
        for running in &mut self.services {
            let ServiceState { config: service, backends: members, .. } = running;
            for member in members.iter_mut().filter(|member| matching(service, &member.config)) {
                member.drained = drained;
                count += 1;
            }
            running.rebuild_schedule();
        }
        count
    }

    /// Removes backends and services that are no longer named and have no connections.
    fn remove_unused(&mut self) {
        self.services.iter_mut().for_each(ServiceState::remove_unused);
        self.services.retain(|running| !running.removed || !running.backends.is_empty());
        let Services { services, connections, .. } = self;
        connections.retain_endings(|id| {
            let place = services.binary_search_by_key(&id.service, |running| running.key).ok();
            place.and_then(|place| services.get(place)).is_some_and(|running| running.index_of(id.backend).is_some())
        });
    }

    fn service_mut(&mut self, key: u32) -> Option<&mut ServiceState> {
        let place = self.services.binary_search_by_key(&key, |running| running.key).ok()?;
        self.services.get_mut(place)
    }

    /// A number that cannot be guessed without the secret.
    fn random_u64(&mut self) -> u64 {
        self.draws += 1;
        self.key.hash_one(self.draws)
    }
}

/// Connections that one step checks for backends that are down or removed.
const END_STEP: usize = 4096;
/// Slots of the table that one step searches for connections older than their service.
const ADOPT_STEP: u32 = 4096;

/// Counts an event of a backend's connection.
fn record_event(
    running: &mut [ServiceState],
    BackendId { service, backend: member }: BackendId,
    found: ConnectionEvent,
) {
    let place = running.binary_search_by_key(&service, |running| running.key).ok();
    let running = place.and_then(|place| running.get_mut(place));
    if let Some(member) = running.and_then(|running| running.backend_mut(member)) {
        member.record_event(found);
    }
}
