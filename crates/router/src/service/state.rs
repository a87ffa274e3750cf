//! The state of one service: its backends, which of them may get connections, and which gets the next.
//!
//! A backend lives from the configuration that names it until it is no longer named and its last connection has left the table. Its key never changes and is never reused.
use super::affinity::Affinity;
use super::candidate::Candidate;
use super::config::{BackendConfig, Scheduler, ServiceConfig};
use super::connections::ConnectionEvent;
use super::schedule::{Schedule, hash_backend, hash_client};
use keepstate_engine::{Instant, NatRange, Tuple};

/// The state of a backend.
#[derive(Clone, Debug)]
pub struct BackendState {
    pub(super) key: u32,
    pub(super) config: BackendConfig,
    /// The result of its health checks; `None` before the first.
    pub(super) is_up: Option<bool>,
    /// Drained by an operator: it gets no new connections.
    pub(super) drained: bool,
    /// No longer configured.
    pub(super) removed: bool,
    /// Connections in the table that are not closed.
    pub(super) active: u64,
    /// Connections in the table.
    in_table: u64,
    /// Connections since the start.
    pub(super) total: u64,
}

/// Whether a backend gets connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendStatus {
    /// Gets new connections.
    Up,
    /// Its health checks fail.
    Down,
    /// Keeps its connections, gets no new ones.
    Draining,
    /// No longer configured: its connections end.
    Removed,
}

impl BackendStatus {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            BackendStatus::Up => "up",
            BackendStatus::Down => "down",
            BackendStatus::Draining => "draining",
            BackendStatus::Removed => "removed",
        }
    }
}

impl BackendState {
    pub(super) fn new(key: u32, config: BackendConfig) -> BackendState {
        BackendState { key, config, is_up: None, drained: false, removed: false, active: 0, in_table: 0, total: 0 }
    }

    /// Counts a new connection.
    pub(super) fn add_connection(&mut self) {
        self.active += 1;
        self.in_table += 1;
    }

    /// Counts an event of one of its connections.
    pub(super) fn record_event(&mut self, found: ConnectionEvent) {
        match found {
            ConnectionEvent::Closed => self.active = self.active.saturating_sub(1),
            ConnectionEvent::Reopened => self.active += 1,
            ConnectionEvent::Removed => self.in_table = self.in_table.saturating_sub(1),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &BackendConfig {
        &self.config
    }

    /// Whether it gets connections. `Removed` takes precedence over `Down`, that over `Draining`.
    pub fn status(&self) -> BackendStatus {
        match self.is_up {
            _ if self.removed => BackendStatus::Removed,
            Some(false) => BackendStatus::Down,
            _ if self.drained => BackendStatus::Draining,
            _ => BackendStatus::Up,
        }
    }

    /// Why it gets no new connections, as text for an operator; may be empty.
    pub fn status_note(&self) -> &'static str {
        match (self.removed, self.drained) {
            (true, _) => "no longer in the file",
            (_, true) => "drained",
            _ if self.config.weight == 0 => "weight 0",
            _ => "",
        }
    }

    /// The result of its health checks; `None` before the first.
    pub fn is_up(&self) -> Option<bool> {
        self.is_up
    }

    /// Its connections that are not closed.
    pub fn active(&self) -> u64 {
        self.active
    }

    /// Connections since the start.
    pub fn total(&self) -> u64 {
        self.total
    }
}

/// The state of a service.
#[derive(Debug)]
pub struct ServiceState {
    pub(super) key: u32,
    pub(super) config: ServiceConfig,
    /// By key, ascending.
    pub(super) backends: Vec<BackendState>,
    /// No longer configured: removed when its connections have ended.
    pub(super) removed: bool,
    pub(super) affinity: Affinity,
    schedule: Schedule,
    /// Connections refused because no backend was up.
    pub(super) refused: u64,
}

impl ServiceState {
    pub(super) fn new(key: u32, config: ServiceConfig) -> ServiceState {
        ServiceState {
            key,
            schedule: Schedule::new(config.scheduler, Vec::new()),
            config,
            backends: Vec::new(),
            removed: false,
            affinity: Affinity::default(),
            refused: 0,
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Its backends, with those that are removed but still have connections.
    pub fn backends(&self) -> &[BackendState] {
        &self.backends
    }

    /// Whether it is no longer configured.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// Connections refused because no backend was up.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sources with an affinity to a backend.
    pub fn affinity_sources(&self) -> usize {
        self.affinity.len()
    }

    /// Takes a new configuration; backends named again keep their state.
    pub(super) fn update_config(&mut self, service: ServiceConfig, mut fresh_key: impl FnMut() -> u32) {
        self.removed = false;
        self.backends.iter_mut().for_each(|member| member.removed = true);
        for backend in &service.backends {
            let same = |known: &BackendConfig| (known.address, known.port) == (backend.address, backend.port);
            match self.backends.iter_mut().find(|member| same(&member.config)) {
                Some(member) => (member.config, member.removed) = (backend.clone(), false),
                None => self.backends.push(BackendState::new(fresh_key(), backend.clone())),
            }
        }
        if service.check.is_none() {
            self.backends.iter_mut().for_each(|member| member.is_up = None);
        }
        if service.affinity.is_none() {
            self.affinity = Affinity::default();
        }
        self.config = service;
        self.rebuild_schedule();
    }

    /// Rebuilds the schedule if the backends that may get connections have changed.
    pub(super) fn rebuild_schedule(&mut self) {
        let seed = if self.config.scheduler == Scheduler::Maglev { Some(self.config.seed) } else { None };
        let is_open = |member: &&BackendState| member.status() == BackendStatus::Up && member.config.weight > 0;
        let mut open: Vec<(usize, &BackendState)> =
            self.backends.iter().enumerate().filter(|(_, member)| is_open(member)).collect();
        if matches!(self.config.scheduler, Scheduler::Maglev | Scheduler::SourceHash) {
            // Several routers must agree, whatever the order in their files.
            open.sort_by_key(|(_, member)| (member.config.address, member.config.port));
        }
        let candidates = open.into_iter().map(|(place, member)| {
            let BackendConfig { address, port, weight } = member.config;
            let hashes = seed.map(|seed| hash_backend(seed, address, port)).unwrap_or_default();
            Candidate { index: place, weight, hashes }
        });
        let candidates: Vec<Candidate> = candidates.collect();
        // Round robin keeps its turn if nothing has changed; and a Maglev table takes milliseconds to build.
        if !self.schedule.is_for(self.config.scheduler, &candidates) {
            self.schedule = Schedule::new(self.config.scheduler, candidates);
        }
    }

    /// The index of the backend that gets the connection that `tuple` begins.
    pub(super) fn choose_backend(&mut self, tuple: &Tuple, random: u64, now: Instant) -> Option<usize> {
        if let Some(seconds) = self.config.affinity
            && let Some(key) = self.affinity.lookup(tuple.source, seconds, now)
            && let Some(place) = self.index_of(key)
            && self
                .backends
                .get(place)
                .is_some_and(|member| member.status() == BackendStatus::Up && member.config.weight > 0)
        {
            return Some(place);
        }
        let hash = hash_client(self.config.seed, self.config.hash_input, tuple);
        let members = &self.backends;
        self.schedule.pick(hash, random, |place| members.get(place).map_or(0, |member| member.active))
    }

    /// The destination of a connection to `port` of the service, if it goes to the backend at `place`.
    pub(super) fn nat_range(&self, place: usize, port: u16) -> Option<NatRange> {
        let backend = &self.backends.get(place)?.config;
        Some(match self.config.backend_port(backend, port) {
            Some(port) => NatRange::to_port(backend.address, port),
            None => NatRange::to(backend.address),
        })
    }

    /// The index of the backend with this key.
    pub(super) fn index_of(&self, key: u32) -> Option<usize> {
        self.backends.binary_search_by_key(&key, |member| member.key).ok()
    }

    pub(super) fn backend_mut(&mut self, key: u32) -> Option<&mut BackendState> {
        let place = self.index_of(key)?;
        self.backends.get_mut(place)
    }

    /// Removes backends that are no longer configured and have no connections.
    pub(super) fn remove_unused(&mut self) {
        let before = self.backends.len();
        self.backends.retain(|member| !member.removed || member.in_table > 0);
        if self.backends.len() < before {
            // Indices have changed.
            self.rebuild_schedule();
        }
    }
}
