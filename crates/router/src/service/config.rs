//! The configuration of services: plain data, and its validation.
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One service: connections to its address and ports go to one of its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its name, unique.
    pub name: String,
    /// The virtual address; `0.0.0.0` or `::` is every address of the router itself, as with a container's published port.
    pub address: IpAddr,
    /// Its ports.
    pub ports: RangeInclusive<u16>,
    /// Its transport protocol.
    pub transport: Transport,
    /// Which backend gets a new connection.
    pub scheduler: Scheduler,
    /// What `SourceHash` and `Maglev` hash.
    pub hash_input: HashInput,
    /// Seed of the hash: routers with the same seed send a client to the same backend.
    pub seed: u64,
    /// Seconds for which a source stays with its backend after its last new connection.
    pub affinity: Option<u32>,
    /// Whether backends see the client's address or the router's.
    pub masquerade: Masquerade,
    /// What happens to TCP connections when their backend goes down.
    pub when_down: WhenDown,
    /// How long the connections of a backend that is no longer configured go on; zero: they end at once.
    pub drain: Duration,
    /// The health check of the backends; without one all are up.
    pub check: Option<HealthCheckConfig>,
    /// The backends.
    pub backends: Vec<BackendConfig>,
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its address, of the service's family.
    pub address: IpAddr,
    /// Its port for the first port of the service, counted up for the others; `None` keeps the client's destination port.
    pub port: Option<u16>,
    /// Its relative weight. With 0 it gets no new connections.
    pub weight: u16,
}

/// Transport protocols of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Which backend gets a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By a hash of the client; most clients move when the backends change.
    SourceHash,
    /// By a hash of the client; few clients move when the backends change.
    Maglev,
    /// The fewest connections for its weight.
    LeastConnections,
}

/// The part of a client that is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashInput {
    /// Its address: all its connections go to one backend.
    #[default]
    Address,
    /// Its address and port: its connections are spread.
    AddressAndPort,
}

/// Whether backends see the client's address or the router's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Masquerade {
    /// Always the client's: replies must be routed through the router.
    Never,
    /// The router's if the packet leaves by the interface it came in by: the backend would otherwise answer the client directly.
    #[default]
    Hairpin,
    /// Always the router's.
    Always,
}

/// What happens to TCP connections when their backend goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenDown {
    /// They are kept: the backend may come back, or only its health check has failed.
    #[default]
    Keep,
    /// Their next segment is answered by a reset.
    Reset,
}

/// How to check whether a backend is up. The router does not check: its driver does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// What to try.
    pub probe: Probe,
    /// Time between two tries.
    pub interval: Duration,
    /// A longer try has failed.
    pub timeout: Duration,
    /// Successes in a row until a backend is up.
    pub rise: u32,
    /// Failures in a row until a backend is down.
    pub fall: u32,
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection.
    Connect {
        /// The port; `None` for the backend's.
        port: Option<u16>,
        /// The source address; `None` for the kernel's choice.
        source: Option<IpAddr>,
    },
    /// A program and its arguments: healthy if it exits with 0.
    Command(Vec<String>),
}

/// An error in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfigError {
    /// The index of the service.
    pub service: usize,
    /// The index of its backend, if it is about one.
    pub backend: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Backends of a service, at most.
const MAX_BACKENDS: usize = 4096;

impl Transport {
    /// Its IP protocol number.
    pub const fn protocol_number(self) -> u8 {
        match self {
            Transport::Tcp => 6,
            Transport::Udp => 17,
            Transport::Sctp => 132,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        }
    }
}

impl Scheduler {
    /// Every scheduler.
    pub const ALL: [Scheduler; 5] = [
        Scheduler::RoundRobin,
        Scheduler::Random,
        Scheduler::SourceHash,
        Scheduler::Maglev,
        Scheduler::LeastConnections,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Scheduler::RoundRobin => "round-robin",
            Scheduler::Random => "random",
            Scheduler::SourceHash => "source-hash",
            Scheduler::Maglev => "maglev",
            Scheduler::LeastConnections => "least-connections",
        }
    }
}

impl ServiceConfig {
    /// A service without backends, with round robin.
    pub fn new(name: &str, at: (IpAddr, RangeInclusive<u16>), transport: Transport) -> ServiceConfig {
        let (address, ports) = at;
        ServiceConfig {
            name: name.to_owned(),
            address,
            ports,
            transport,
            scheduler: Scheduler::default(),
            hash_input: HashInput::default(),
            seed: 0,
            affinity: None,
            masquerade: Masquerade::default(),
            when_down: WhenDown::default(),
            drain: Duration::ZERO,
            check: None,
            backends: Vec::new(),
        }
    }

    /// Adds a backend.
    #[must_use]
    pub fn with_backend(mut self, backend: BackendConfig) -> ServiceConfig {
        self.backends.push(backend);
        self
    }

    /// The port of `backend` for `port` of the service.
    pub(super) fn backend_port(&self, backend: &BackendConfig, port: u16) -> Option<u16> {
        backend.port.map(|first| first.saturating_add(port.saturating_sub(*self.ports.start())))
    }

    fn overlaps(&self, other: &ServiceConfig) -> bool {
        let apart = self.ports.end() < other.ports.start() || other.ports.end() < self.ports.start();
        (self.address, self.transport) == (other.address, other.transport) && !apart
    }
}

impl std::fmt::Display for ServiceConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        let (first, last) = (self.ports.start(), self.ports.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

impl std::fmt::Display for BackendConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.address, self.port) {
            (IpAddr::V4(address), None) => write!(f, "{address}"),
            (IpAddr::V6(address), None) => write!(f, "[{address}]"),
            (IpAddr::V4(address), Some(port)) => write!(f, "{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => write!(f, "[{address}]:{port}"),
        }
    }
}

/// All errors of a configuration, in the order of the services.
pub fn validate(services: &[ServiceConfig]) -> Vec<ServiceConfigError> {
    let mut found = Vec::new();
    for (place, service) in services.iter().enumerate() {
        let mut report = |backend: Option<usize>, what: String| {
            found.push(ServiceConfigError { service: place, backend, message: what })
        };
        for other in services.iter().take(place) {
            if other.name == service.name {
                report(None, format!("duplicate service name {:?}: give each service its own name", service.name));
            } else if service.overlaps(other) {
                let transport = service.transport.name();
                report(
                    None,
                    format!(
                        "{transport} {service} overlaps with service {:?}: change the address or the ports of one",
                        other.name
                    ),
                );
            }
        }
        if service.ports.is_empty() || *service.ports.start() == 0 {
            report(None, "invalid ports: write 1 to 65535, the smaller one first".into());
        }
        if service.address.is_multicast() {
            report(None, format!("{} is a multicast address: a service needs a unicast address", service.address));
        }
        if let Some(what) = service.check.as_ref().and_then(|check| check.validate(service)) {
            report(None, what);
        }
        if service.backends.len() > MAX_BACKENDS {
            report(None, format!("{} backends: a service can have at most {MAX_BACKENDS}", service.backends.len()));
        }
        for (at, backend) in service.backends.iter().enumerate() {
            validate_backend(service, at, backend).into_iter().for_each(|message| report(Some(at), message));
        }
    }
    found
}

impl HealthCheckConfig {
    fn validate(&self, service: &ServiceConfig) -> Option<String> {
        if self.rise == 0 || self.fall == 0 || self.interval.is_zero() || self.timeout.is_zero() {
            return Some("interval, timeout, rise and fall of a health check must be at least 1".into());
        }
        match &self.probe {
            Probe::Command(words) if words.is_empty() => {
                Some("empty command of a health check: write a program and its arguments".into())
            }
            Probe::Command(_) => None,
            Probe::Connect { port: None, .. } if service.transport != Transport::Tcp => {
                let name = service.transport.name();
                Some(format!("a {name} port takes no TCP connection: give the health check a TCP port, or a command"))
            }
            Probe::Connect { port: None, .. } if service.backends.iter().any(|backend| backend.port.is_none()) => {
                Some("a backend has no port: give the health check one".into())
            }
            Probe::Connect { source: Some(source), .. } if source.is_ipv4() != service.address.is_ipv4() => {
                Some(format!("the source {source} of the health check is of another address family than the service"))
            }
            Probe::Connect { .. } => None,
        }
    }
}

fn validate_backend(service: &ServiceConfig, at: usize, backend: &BackendConfig) -> Option<String> {
    let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
    let before = service.backends.iter().take(at);
    if backend.address.is_ipv4() != service.address.is_ipv4() {
        let (theirs, ours) = (family(backend.address), family(service.address));
        return Some(format!(
            "backend {backend} is {theirs}, its service {ours}: NAT does not translate between address families"
        ));
    }
    if backend.address.is_unspecified() || backend.address.is_multicast() {
        return Some(format!("{} is not a unicast address: write the backend's own address", backend.address));
    }
    if before.clone().any(|other| (other.address, other.port) == (backend.address, backend.port)) {
        return Some(format!("duplicate backend {backend}: give it more weight instead"));
    }
    if service.address == backend.address && backend.port.is_none_or(|port| service.ports.contains(&port)) {
        return Some(format!("backend {backend} is the service itself: connections would loop"));
    }
    let more = service.ports.end().saturating_sub(*service.ports.start());
    match backend.port {
        Some(0) => Some("invalid port: write 1 to 65535".into()),
        Some(port) if port.checked_add(more).is_none() => {
            Some(format!("backend {backend}: {} ports from this one on would exceed 65535", u32::from(more) + 1))
        }
        _ => None,
    }
}
