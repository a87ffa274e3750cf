//! Services as they are asked for: plain data, and what must hold of it before it is put to work.
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One service: who asks for its address and ports is sent to one of its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Its own name.
    pub name: String,
    /// The virtual address; the unspecified one of a family (`0.0.0.0`, `::`) is every address of the router itself, as where a container's port is published.
    pub address: IpAddr,
    /// Its ports.
    pub ports: RangeInclusive<u16>,
    /// Its transport.
    pub transport: Transport,
    /// Who gets a new connection.
    pub scheduler: Scheduler,
    /// What `SourceHash` and `Maglev` look at.
    pub hash_input: HashInput,
    /// Mixed into what is hashed: several routers with the same seed send the same client to the same backend.
    pub seed: u64,
    /// Seconds for which a source stays with its backend after its last new connection.
    pub affinity: Option<u32>,
    /// Whether backends see the client's address or the router's.
    pub masquerade: Masquerade,
    /// What becomes of TCP connections whose backend is down.
    pub when_down: WhenDown,
    /// How somebody is to find out which of the backends are up; without it all of them are.
    pub check: Option<HealthCheckConfig>,
    /// The backends.
    pub backends: Vec<BackendConfig>,
}

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its address, of the service's family.
    pub address: IpAddr,
    /// Its port: for the first port of the service, and so on; `None` keeps the port that was asked for.
    pub port: Option<u16>,
    /// Its share beside the others'. With 0 it gets no new connection.
    pub weight: u16,
}

/// Transports that can be balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Who gets a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// One after the other, by weight, evenly mixed.
    #[default]
    RoundRobin,
    /// By lot, by weight.
    Random,
    /// By the client: simple, and nearly everybody moves when the backends change.
    SourceHash,
    /// By the client, and few move when the backends change.
    Maglev,
    /// Who has the fewest connections for his weight.
    LeastConnections,
}

/// What is hashed of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashInput {
    /// Its address: all its connections go to one backend.
    #[default]
    Address,
    /// Its address and port: they are spread.
    AddressAndPort,
}

/// Whether backends see the client's address or the router's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Masquerade {
    /// The client's, always: answers must come back through the router.
    Never,
    /// The router's where the packet leaves by the device it came in by: the backend would answer a neighbour directly.
    #[default]
    Hairpin,
    /// The router's, always.
    Always,
}

/// What becomes of TCP connections whose backend is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenDown {
    /// They are left alone: the backend may come back, or only its check has failed.
    #[default]
    Keep,
    /// The next segment is answered by a reset.
    Reset,
}

/// How a backend is asked whether it is up. Nobody is asked here: this is for who can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// What is tried.
    pub probe: Probe,
    /// From one try to the next.
    pub interval: Duration,
    /// A try that takes longer has failed.
    pub timeout: Duration,
    /// So many successes in a row, and one that was down is up.
    pub rise: u32,
    /// So many failures in a row, and one that was up is down.
    pub fall: u32,
}

/// What is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A TCP connection.
    Connect {
        /// To this port, or the backend's.
        port: Option<u16>,
        /// From this address of the machine.
        source: Option<IpAddr>,
    },
    /// A program and its arguments: it is well if that ends with 0.
    Command(Vec<String>),
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfigError {
    /// The service, by its place.
    pub service: usize,
    /// Its backend, by its place, if it is about one.
    pub backend: Option<usize>,
    /// What does not fit, and what to do.
    pub message: String,
}

/// Backends that a service can have.
const MAX_BACKENDS: usize = 4096;

impl Transport {
    /// Its number in the IP header.
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
    /// A service without backends, by round robin.
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
            check: None,
            backends: Vec::new(),
        }
    }

    /// The same with one more backend.
    #[must_use]
    pub fn with_backend(mut self, backend: BackendConfig) -> ServiceConfig {
        self.backends.push(backend);
        self
    }

    /// The port of `backend` that stands for `port` of the service.
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

/// Everything that does not fit, in the order of the services.
pub fn validate(services: &[ServiceConfig]) -> Vec<ServiceConfigError> {
    let mut found = Vec::new();
    for (place, service) in services.iter().enumerate() {
        let mut say = |backend: Option<usize>, what: String| {
            found.push(ServiceConfigError { service: place, backend, message: what })
        };
        for other in services.iter().take(place) {
            if other.name == service.name {
                say(None, format!("there is a service {:?} already: give each its own name", service.name));
            } else if service.overlaps(other) {
                let transport = service.transport.name();
                say(
                    None,
                    format!(
                        "{transport} {service} is the service {:?}'s already: one of them has to give way",
                        other.name
                    ),
                );
            }
        }
        if service.ports.is_empty() || *service.ports.start() == 0 {
            say(None, "ports go from 1 to 65535, the smaller one first".into());
        }
        if service.address.is_multicast() {
            say(None, format!("{} is an address of many: a service has one of its own", service.address));
        }
        if let Some(what) = service.check.as_ref().and_then(|check| check.validate(service)) {
            say(None, what);
        }
        if service.backends.len() > MAX_BACKENDS {
            say(None, format!("{} backends: a service has {MAX_BACKENDS} at most", service.backends.len()));
        }
        for (at, backend) in service.backends.iter().enumerate() {
            validate_backend(service, at, backend).into_iter().for_each(|what| say(Some(at), what));
        }
    }
    found
}

impl HealthCheckConfig {
    fn validate(&self, service: &ServiceConfig) -> Option<String> {
        if self.rise == 0 || self.fall == 0 || self.interval.is_zero() || self.timeout.is_zero() {
            return Some("a check's interval, timeout, rise and fall are at least 1".into());
        }
        match &self.probe {
            Probe::Command(words) if words.is_empty() => {
                Some("a check's command is a program and its arguments".into())
            }
            Probe::Command(_) => None,
            Probe::Connect { port: None, .. } if service.transport != Transport::Tcp => {
                let name = service.transport.name();
                Some(format!("a {name} port takes no TCP connection: give the check a port that does, or a command"))
            }
            Probe::Connect { port: None, .. } if service.backends.iter().any(|backend| backend.port.is_none()) => {
                Some("backends without a port: give the check one".into())
            }
            Probe::Connect { source: Some(source), .. } if source.is_ipv4() != service.address.is_ipv4() => {
                Some(format!("a check cannot go from {source} to the other family's addresses"))
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
            "{backend} is of {theirs}, its service of {ours}: addresses are translated within a family only"
        ));
    }
    if backend.address.is_unspecified() || backend.address.is_multicast() {
        return Some(format!("{} is nobody's own address: write the backend's", backend.address));
    }
    if before.clone().any(|other| (other.address, other.port) == (backend.address, backend.port)) {
        return Some(format!("{backend} is there twice: give it more weight instead"));
    }
    if service.address == backend.address && backend.port.is_none_or(|port| service.ports.contains(&port)) {
        return Some(format!("{backend} is the service itself: connections would go round and round"));
    }
    let more = service.ports.end().saturating_sub(*service.ports.start());
    match backend.port {
        Some(0) => Some("ports go from 1 to 65535".into()),
        Some(port) if port.checked_add(more).is_none() => {
            Some(format!("{backend}: for {} ports from there on, ports do not suffice", u32::from(more) + 1))
        }
        _ => None,
    }
}
