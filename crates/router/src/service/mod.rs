//! Services: a virtual address, and backends that share its connections, as Docker's published ports, Kubernetes' services and LVS do it.
//!
//! Services decide where a *new* connection goes, and translate it there; from then on its packets follow its tuples like any translated connection's, and
//! nothing asked here again. So a backend can be drained, weighed anew or taken out of the file without cutting anybody off. Services are loaded whole, and loaded
//! again: who is still named stays who it was, with its connections, its state and its counts.
//!
//! Nothing here reads a file, a clock or a device, or asks a backend how it is: that is said from outside ([`Router::judge`](crate::Router::judge)).
mod affinity;
mod live;
mod maglev;
mod plan;
mod router;
mod running;
mod schedule;
#[cfg(test)]
mod tests;

pub use plan::{Backend, Check, Hashed, Masquerade, Misfit, Probe, Scheduler, Service, Transport, WhenDown, misfits};
pub use running::{Member, Running, State};

use crate::map::Map;
use keepstate_engine::{Direction, Engine, Entry, Handle, Instant, Manip, Passage, Range, Status, Tuple};
use keepstate_rules::{Ground, Way};
use live::{Found, Live};
use siphasher::sip::SipHasher13;
use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::IpAddr;

/// Names a backend of a service at work; never given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId {
    service: u32,
    member: u32,
}

/// All services of a router.
#[derive(Debug, Default)]
pub struct Services {
    /// By key, ascending.
    running: Vec<Running>,
    /// What is offered at an address, by protocol.
    offered: BTreeMap<(IpAddr, u8), Vec<Offer>>,
    live: Live,
    keys: u32,
    lots: u64,
    secret: (u64, u64),
    loads: u64,
}

/// Ports of an address, and the key of the service that answers there. None meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    first: u16,
    last: u16,
    service: u32,
}

/// A packet that services are asked about.
pub(crate) struct Asked<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) passage: &'a mut Passage,
    pub(crate) map: &'a Map,
    pub(crate) way: &'a Way,
    pub(crate) now: Instant,
}

/// What services say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It is no service's, or its connection stands already.
    Nothing,
    /// It was sent to a backend.
    Sent(Pick),
    /// There is nobody to send it to, or whom it was sent to is down: it is to be refused.
    Refused,
}

/// A new connection on its way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    backend: BackendId,
    source: IpAddr,
    masquerade: Masquerade,
}

impl Services {
    /// No services yet. `secret` is for lots that nobody is to guess.
    pub(crate) fn new(secret: (u64, u64)) -> Services {
        Services { secret, ..Services::default() }
    }

    /// The services at work, and those that wait for their last connections to end.
    pub fn iter(&self) -> impl Iterator<Item = &Running> {
        self.running.iter()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// How often services were loaded: who keeps something for each backend sees here that they may be others.
    pub fn loads(&self) -> u64 {
        self.loads
    }

    /// Every backend that the loaded services name, with its service.
    pub fn backends(&self) -> impl Iterator<Item = (BackendId, &Running, &Member)> {
        self.running.iter().filter(|running| !running.is_gone).flat_map(|running| {
            let named = running.members.iter().filter(|member| !member.is_gone);
            named.map(move |member| (BackendId { service: running.key, member: member.key }, running, member))
        })
    }

    /// Exchanges the services. Those of a name that is known go on; backends that are named no more drain.
    fn load(&mut self, services: Vec<Service>, map: &Map, engine: &mut Engine, now: Instant) {
        self.loads += 1;
        self.running.iter_mut().for_each(|running| running.is_gone = true);
        let mut is_new = false;
        for service in services {
            let keys = &mut self.keys;
            let mut key = || {
                *keys += 1;
                *keys
            };
            let known = self.running.iter_mut().find(|running| running.service.name == service.name);
            match known {
                Some(running) => running.become_as(service, key),
                None => {
                    let mut running = Running::new(key(), service.clone());
                    running.become_as(service, key);
                    self.running.push(running);
                    is_new = true;
                }
            }
        }
        for running in self.running.iter_mut().filter(|running| running.is_gone) {
            running.members.iter_mut().for_each(|member| member.is_gone = true);
        }
        self.offer();
        if is_new {
            self.adopt(map, engine, now);
        }
        self.shed();
    }

    /// Which address leads to which service.
    fn offer(&mut self) {
        self.offered.clear();
        for running in self.running.iter().filter(|running| !running.is_gone) {
            let Service { address, transport, ports, .. } = &running.service;
            let offers = self.offered.entry((*address, transport.number())).or_default();
            offers.push(Offer { first: *ports.start(), last: *ports.end(), service: running.key });
            offers.sort_unstable();
        }
    }

    /// The place of the service that answers there, if one does.
    fn offering(&self, map: &Map, to: IpAddr, protocol: u8, port: u16) -> Option<usize> {
        let of = |address: IpAddr| {
            let offers = self.offered.get(&(address, protocol))?;
            let after = offers.partition_point(|offer| offer.first <= port);
            let offer = offers.get(after.checked_sub(1)?)?;
            (port <= offer.last).then_some(offer.service)
        };
        let everywhere = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let key = of(to).or_else(|| of(everywhere).filter(|_| map.is_local(to)))?;
        self.running.binary_search_by_key(&key, |running| running.key).ok()
    }

    /// Connections that stood before their service was known: those that go to one of its backends are its own from now on, and datagrams that go elsewhere are to
    /// ask again, as kube-proxy has it.
    fn adopt(&mut self, map: &Map, engine: &mut Engine, now: Instant) {
        let entries: Vec<Entry> = engine.entries(now).collect();
        for entry in entries {
            let Tuple { destination, protocol, destination_key, .. } = entry.original;
            let Some(running) = self.offering(map, destination, protocol, destination_key) else { continue };
            let Some(running) = self.running.get_mut(running) else { continue };
            if !entry.status.has(Status::DST_NAT) {
                if protocol == Transport::Udp.number() {
                    engine.remove(entry.handle, now);
                }
                continue;
            }
            let service = &running.service;
            let is_its = |backend: &Backend| {
                let port = service.port_of(backend, destination_key).unwrap_or(destination_key);
                (backend.address, port) == (entry.reply.source, entry.reply.source_key)
            };
            let member = running.members.iter_mut().find(|member| is_its(&member.backend));
            if let Some(member) = member.filter(|_| !self.live.has(entry.handle)) {
                member.enter();
                let backend = BackendId { service: running.key, member: member.key };
                self.live.enter(entry.handle, backend, |_, _| ());
            }
        }
    }

    /// Where the packet's connection goes, if it begins one, and that to a service.
    pub(crate) fn send(&mut self, asked: Asked<'_>) -> Said {
        let Asked { engine, passage, map, now, .. } = asked;
        let (handle, direction) = (passage.connection(), passage.direction());
        let Some(fresh) = passage.unconfirmed() else {
            return if self.live.is_condemned(handle) { Said::Refused } else { Said::Nothing };
        };
        if fresh.is_decided(Manip::Destination) || direction != Some(Direction::Original) {
            return Said::Nothing;
        }
        let tuple = fresh.original();
        let Some(place) = self.offering(map, tuple.destination, tuple.protocol, tuple.destination_key) else {
            return Said::Nothing;
        };
        let lot = self.draw();
        let Some(running) = self.running.get_mut(place) else { return Said::Nothing };
        let chosen = running.choose(&tuple, lot, now);
        let range = chosen.and_then(|place| running.range(place, tuple.destination_key));
        let member = chosen.and_then(|place| running.members.get(place));
        let (Some(range), Some(member)) = (range, member) else {
            running.refused += 1;
            return Said::Refused;
        };
        engine.translate(passage, Manip::Destination, &range, now);
        let backend = BackendId { service: running.key, member: member.key };
        Said::Sent(Pick { backend, source: tuple.source, masquerade: running.service.masquerade })
    }

    /// The source of a connection that was sent to a backend, where it leaves.
    pub(crate) fn masquerade(&self, pick: &Pick, to: IpAddr, asked: Asked<'_>) {
        let Asked { engine, passage, map, way, now } = asked;
        let Some(device) = way.oif else { return };
        let is_hairpin = way.iif.is_some_and(|iif| iif.index == device.index);
        let wanted = match pick.masquerade {
            Masquerade::Never => false,
            Masquerade::Hairpin => is_hairpin,
            Masquerade::Always => true,
        };
        if let Some(us) = map.address(device.index, to).filter(|_| wanted) {
            engine.translate(passage, Manip::Source, &Range::to(us), now);
        }
    }

    /// A connection that was sent to a backend stands in the table.
    pub(crate) fn enter(&mut self, pick: &Pick, handle: Handle, now: Instant) {
        let BackendId { service, member: key } = pick.backend;
        let Some(running) = self.find(service) else { return };
        if let Some(seconds) = running.service.affinity {
            running.affinity.note(pick.source, key, seconds, now);
        }
        if let Some(member) = running.member(key) {
            member.picked += 1;
            member.enter();
        }
        let Services { running, live, .. } = self;
        live.enter(handle, pick.backend, |backend, found| note(running, backend, found));
    }

    /// A bounded piece of looking which connections are over; a larger one, if `thorough`.
    fn tend(&mut self, engine: &Engine, thorough: bool, now: Instant) {
        let Services { running, live, .. } = self;
        let mut ended = false;
        live.sweep(engine, thorough, now, |backend, found| {
            note(running, backend, found);
            ended |= found == Found::Gone;
        });
        if ended {
            self.shed();
        }
        for running in &mut self.running {
            if let Some(seconds) = running.service.affinity {
                running.affinity.forget(seconds, now);
            }
        }
    }

    /// What checks say of a backend. True if that is news.
    fn judge(&mut self, backend: BackendId, is_up: bool, engine: &mut Engine, now: Instant) -> bool {
        let Some(running) = self.find(backend.service) else { return false };
        let Some(member) = running.member(backend.member) else { return false };
        let before = member.is_up.replace(is_up);
        if before == Some(is_up) {
            return false;
        }
        running.arrange();
        let reset = running.service.when_down == WhenDown::Reset;
        if is_up {
            self.live.spare(backend);
        } else {
            let Services { running, live, .. } = self;
            live.end(engine, backend, reset, now, |backend, found| note(running, backend, found));
        }
        before.is_some() || !is_up
    }

    /// Drains, or drains no longer, every backend that `matching` says; how many these are.
    fn drain(&mut self, drained: bool, matching: impl Fn(&Service, &Backend) -> bool) -> usize {
        let mut count = 0;
        for running in &mut self.running {
            let Running { service, members, .. } = running;
            for member in members.iter_mut().filter(|member| matching(service, &member.backend)) {
                member.is_drained = drained;
                count += 1;
            }
            running.arrange();
        }
        count
    }

    /// Lets go of whoever is named no more and has no connections.
    fn shed(&mut self) {
        self.running.iter_mut().for_each(Running::shed);
        self.running.retain(|running| !running.is_gone || !running.members.is_empty());
    }

    fn find(&mut self, key: u32) -> Option<&mut Running> {
        let place = self.running.binary_search_by_key(&key, |running| running.key).ok()?;
        self.running.get_mut(place)
    }

    /// A number that nobody can guess who does not know the secret.
    fn draw(&mut self) -> u64 {
        self.lots += 1;
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        hasher.write_u64(self.lots);
        hasher.finish()
    }
}

/// Something was found of a backend's connection.
fn note(running: &mut [Running], BackendId { service, member }: BackendId, found: Found) {
    let place = running.binary_search_by_key(&service, |running| running.key).ok();
    let running = place.and_then(|place| running.get_mut(place));
    if let Some(member) = running.and_then(|running| running.member(member)) {
        member.note_found(found);
    }
}
