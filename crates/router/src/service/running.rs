//! One service at work: its members, who of them may get connections, and to whom the next goes.
//!
//! A member lives from the load that names it until it is named no more and its last connection has left the table. Its key never changes and is never given again.
use super::affinity::Affinity;
use super::live::Found;
use super::plan::{Backend, Scheduler, Service};
use super::schedule::{Candidate, Schedule, hash_backend, hash_client};
use keepstate_engine::{Instant, Range, Tuple};

/// A backend at work.
#[derive(Clone, Debug)]
pub struct Member {
    pub(super) key: u32,
    pub(super) backend: Backend,
    /// What its checks say; `None` before the first.
    pub(super) is_up: Option<bool>,
    /// An operator wants it to get no new connections.
    pub(super) is_drained: bool,
    /// The services' file names it no more.
    pub(super) is_gone: bool,
    /// Connections in the table that are not over.
    pub(super) live: u64,
    /// Connections in the table.
    held: u64,
    /// Connections it ever got.
    pub(super) picked: u64,
}

/// Whether a backend gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It gets new connections.
    Up,
    /// Its checks fail.
    Down,
    /// It keeps those it has, and gets no new ones.
    Draining,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Down => "down",
            State::Draining => "draining",
        }
    }
}

impl Member {
    pub(super) fn new(key: u32, backend: Backend) -> Member {
        Member { key, backend, is_up: None, is_drained: false, is_gone: false, live: 0, held: 0, picked: 0 }
    }

    /// It has one more connection.
    pub(super) fn enter(&mut self) {
        self.live += 1;
        self.held += 1;
    }

    /// Something was found of one of its connections.
    pub(super) fn note_found(&mut self, found: Found) {
        match found {
            Found::Over => self.live = self.live.saturating_sub(1),
            Found::Revived => self.live += 1,
            Found::Gone => self.held = self.held.saturating_sub(1),
        }
    }

    /// The backend as it was asked for.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Whether it gets connections. One that is down is down, drained or not.
    pub fn state(&self) -> State {
        match self.is_up {
            Some(false) => State::Down,
            _ if self.is_drained || self.is_gone => State::Draining,
            _ => State::Up,
        }
    }

    /// Why it gets no connections, or only some, for people; empty if there is nothing to say.
    pub fn note(&self) -> &'static str {
        match (self.is_gone, self.is_drained) {
            (true, _) => "no longer in the file",
            (_, true) => "drained",
            _ if self.backend.weight == 0 => "weight 0",
            _ => "",
        }
    }

    /// What its checks say; `None` before the first.
    pub fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// Its connections that are not over.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Connections it ever got.
    pub fn picked(&self) -> u64 {
        self.picked
    }
}

/// A service at work.
#[derive(Debug)]
pub struct Running {
    pub(super) key: u32,
    pub(super) service: Service,
    /// By key, ascending.
    pub(super) members: Vec<Member>,
    /// The file names it no more: it only waits for its connections to end.
    pub(super) is_gone: bool,
    pub(super) affinity: Affinity,
    schedule: Schedule,
    /// Connections that found no backend.
    pub(super) refused: u64,
}

impl Running {
    pub(super) fn new(key: u32, service: Service) -> Running {
        Running {
            key,
            schedule: Schedule::new(service.scheduler, Vec::new()),
            service,
            members: Vec::new(),
            is_gone: false,
            affinity: Affinity::default(),
            refused: 0,
        }
    }

    /// The service as it was asked for.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Its backends, and those that still have connections.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The file names it no more.
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }

    /// Connections that found no backend.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sources that stay with a backend.
    pub fn sources(&self) -> usize {
        self.affinity.len()
    }

    /// Takes what is asked for now; members that are asked for again stay who they were.
    pub(super) fn become_as(&mut self, service: Service, mut fresh_key: impl FnMut() -> u32) {
        self.is_gone = false;
        self.members.iter_mut().for_each(|member| member.is_gone = true);
        for backend in &service.backends {
            let same = |known: &Backend| (known.address, known.port) == (backend.address, backend.port);
            match self.members.iter_mut().find(|member| same(&member.backend)) {
                Some(member) => (member.backend, member.is_gone) = (backend.clone(), false),
                None => self.members.push(Member::new(fresh_key(), backend.clone())),
            }
        }
        if service.check.is_none() {
            self.members.iter_mut().for_each(|member| member.is_up = None);
        }
        if service.affinity.is_none() {
            self.affinity = Affinity::default();
        }
        self.service = service;
        self.arrange();
    }

    /// Makes its schedule anew, if need be: somebody may get connections now who might not before, or the other way round.
    pub(super) fn arrange(&mut self) {
        let seed = if self.service.scheduler == Scheduler::Maglev { Some(self.service.seed) } else { None };
        let is_open = |member: &&Member| member.state() == State::Up && member.backend.weight > 0;
        let mut open: Vec<(usize, &Member)> =
            self.members.iter().enumerate().filter(|(_, member)| is_open(member)).collect();
        if matches!(self.service.scheduler, Scheduler::Maglev | Scheduler::SourceHash) {
            // The order of the file is to mean nothing where routers are to agree.
            open.sort_by_key(|(_, member)| (member.backend.address, member.backend.port));
        }
        let candidates = open.into_iter().map(|(place, member)| {
            let Backend { address, port, weight } = member.backend;
            let hashes = seed.map(|seed| hash_backend(seed, address, port)).unwrap_or_default();
            Candidate { member: place, weight, hashes }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        // Whose turn it is, is not forgotten for nothing; and a table of Maglev takes milliseconds to make.
        if !self.schedule.is_of(self.service.scheduler, &candidates) {
            self.schedule = Schedule::new(self.service.scheduler, candidates);
        }
    }

    /// The place of the member who gets the connection that `tuple` begins.
    pub(super) fn choose(&mut self, tuple: &Tuple, lot: u64, now: Instant) -> Option<usize> {
        if let Some(seconds) = self.service.affinity
            && let Some(key) = self.affinity.find(tuple.source, seconds, now)
            && let Some(place) = self.place(key)
            && self.members.get(place).is_some_and(|member| member.state() == State::Up && member.backend.weight > 0)
        {
            return Some(place);
        }
        let hash = hash_client(self.service.seed, self.service.hashed, tuple);
        let members = &self.members;
        self.schedule.pick(hash, lot, |place| members.get(place).map_or(0, |member| member.live))
    }

    /// Where a connection for `port` of the service is sent, if it goes to the member at `place`.
    pub(super) fn range(&self, place: usize, port: u16) -> Option<Range> {
        let backend = &self.members.get(place)?.backend;
        Some(match self.service.port_of(backend, port) {
            Some(port) => Range::to_port(backend.address, port),
            None => Range::to(backend.address),
        })
    }

    /// The place of the member with this key.
    pub(super) fn place(&self, key: u32) -> Option<usize> {
        self.members.binary_search_by_key(&key, |member| member.key).ok()
    }

    pub(super) fn member(&mut self, key: u32) -> Option<&mut Member> {
        let place = self.place(key)?;
        self.members.get_mut(place)
    }

    /// Lets go of members that are named no more and have no connections.
    pub(super) fn shed(&mut self) {
        let before = self.members.len();
        self.members.retain(|member| !member.is_gone || member.held > 0);
        if self.members.len() < before {
            // Places have changed.
            self.arrange();
        }
    }
}
