//! The load to size for: described, or observed on a machine.
use crate::kernel_constants::MIN_ESTABLISHED_TIMEOUT;
use crate::size::machine::SizingMachine;
use crate::units::{Count, Seconds};
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// Where the load comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// A described demand.
    Demand(Demand),
    /// What a table holds now.
    Observed(ObservedLoad),
}

/// A kind of machine, with typical figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Many clients that stay connected for days and send little.
    MqttBroker,
    /// Forwards and translates connections.
    NatGateway,
    /// Short requests between services, and DNS queries.
    KubernetesNode,
    /// Many short client connections.
    WebServer,
}

/// A demand, described. Shares are from 0 to 1, rates are per second, times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// The profile it is based on.
    pub profile: Option<Profile>,
    /// TCP connections open at one time; `rate` × `lifetime`.
    pub connections: u64,
    /// New TCP connections per second.
    pub rate: f64,
    /// Lifetime of a connection.
    pub lifetime: f64,
    /// Longest silence of an open connection; `None` without keepalives.
    pub keepalive: Option<u64>,
    /// The share of connections that end without FIN or RST: lost radio, power cut.
    pub silent: f64,
    /// How long after its last packet the other end closes such a connection; `None`: never, or not through this machine.
    pub notice: Option<u64>,
    /// UDP queries (mostly DNS) per second, each from its own port.
    pub udp_rate: f64,
    /// Handshakes per second that are never finished: scans, floods.
    pub half_open_rate: f64,
    /// The share of clients that reconnect from new ports while their old entries still exist: a restart, a network outage.
    pub storm: f64,
    /// Are connections translated (NAT) here?
    pub nat: bool,
}

/// What was read from a live table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ObservedLoad {
    /// Connections: the count of the namespace, or of the slab of all namespaces, whichever is more.
    pub connections: u64,
    /// The limit.
    pub max: Option<u64>,
    /// Seconds between the two readings; 0 if the counters were read once.
    pub interval: f64,
    /// Growth of the count per second.
    pub growth: Option<f64>,
    /// New connections per second, if this kernel or the machine's own sockets count them.
    pub rate: Option<f64>,
    /// Packets dropped in the interval because the table was full (`drop` grows together with `early_drop`, or alone).
    pub dropped: Option<u64>,
    /// Inserts refused in the interval because a chain was too long.
    pub chain_too_long: Option<u64>,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 4] =
        [Profile::MqttBroker, Profile::NatGateway, Profile::KubernetesNode, Profile::WebServer];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::MqttBroker => "mqtt-broker",
            Profile::NatGateway => "nat-gateway",
            Profile::KubernetesNode => "kubernetes-node",
            Profile::WebServer => "web-server",
        }
    }

    /// Typical figures.
    pub fn demand(self) -> Demand {
        let plain = Demand {
            profile: Some(self),
            connections: 0,
            rate: 0.0,
            lifetime: 0.0,
            keepalive: None,
            silent: 0.0,
            notice: None,
            udp_rate: 0.0,
            half_open_rate: 0.0,
            storm: 0.25,
            nat: false,
        };
        let demand = match self {
            // With MQTT's usual keepalive; MQTT 3.1.2.10: the broker waits 1.5 × keepalive.
            Profile::MqttBroker => Demand {
                connections: 100_000,
                lifetime: 86_400.0,
                keepalive: Some(60),
                silent: 0.1,
                notice: Some(90),
                storm: 0.5,
                ..plain
            },
            Profile::NatGateway => Demand {
                rate: 1000.0,
                lifetime: 60.0,
                silent: 0.01,
                udp_rate: 500.0,
                half_open_rate: 20.0,
                storm: 0.1,
                nat: true,
                ..plain
            },
            // Two hours and nine probes 75 s apart: TCP's own keepalive, if a service enables it.
            Profile::KubernetesNode => Demand {
                rate: 500.0,
                lifetime: 30.0,
                silent: 0.001,
                notice: Some(7875),
                udp_rate: 1000.0,
                nat: true,
                ..plain
            },
            // Servers close an idle connection after about a minute (nginx: 75 s).
            Profile::WebServer => Demand {
                rate: 500.0,
                lifetime: 20.0,
                keepalive: Some(75),
                silent: 0.01,
                notice: Some(75),
                half_open_rate: 20.0,
                ..plain
            },
        };
        demand.completed()
    }
}

impl Demand {
    /// Fills in the one of connections, rate and lifetime that is zero, by Little's law: open connections are the rate times the
    /// lifetime.
    pub fn completed(mut self) -> Demand {
        if self.connections == 0 {
            self.connections = ceil_u64(self.rate * self.lifetime);
        } else if self.rate == 0.0 && self.lifetime > 0.0 {
            self.rate = self.connections as f64 / self.lifetime;
        } else if self.lifetime == 0.0 && self.rate > 0.0 {
            self.lifetime = self.connections as f64 / self.rate;
        }
        self
    }

    /// The least established timeout, and why.
    pub fn min_established_timeout(&self) -> (u64, String) {
        let silence = self.keepalive.unwrap_or(0);
        let needed = silence.saturating_mul(3).div_ceil(2).saturating_add(KEEPALIVE_MARGIN);
        if needed > MIN_ESTABLISHED_TIMEOUT {
            let why = format!("1.5 × the keepalive of {}, plus {KEEPALIVE_MARGIN} s", Seconds(silence));
            (needed, why)
        } else {
            (MIN_ESTABLISHED_TIMEOUT, "RFC 5382 (REQ-5) requires at least 2 h 4 min".into())
        }
    }
}

impl Workload {
    /// Do entries have the 128-byte extension for NAT, accounting, events or timestamps?
    pub fn has_extension(&self, knobs: &Sysctls) -> bool {
        let nat = match self {
            Workload::Demand(demand) => demand.nat,
            // It cannot be observed, and most tables have it.
            Workload::Observed(_) => true,
        };
        nat || knobs.is_enabled(Sysctl::Acct) || knobs.is_enabled(Sysctl::Timestamp) || knobs[Sysctl::Events] == 1
    }

    /// What to know about the origin of the numbers.
    pub(crate) fn warnings(&self, machine: &SizingMachine) -> Vec<String> {
        let Workload::Observed(seen) = self else { return Vec::new() };
        let mut warnings = Vec::new();
        if seen.is_full() {
            warnings.push(format!(
                "the table is full ({} of {}): the real demand cannot be measured, so twice the limit was assumed; run this again with a larger table",
                Count(seen.connections),
                Count(seen.max.unwrap_or(seen.connections)),
            ));
        }
        if seen.chain_too_long.is_some_and(|count| count > 0) {
            warnings.push("inserts fail because chains are too long (chaintoolong): raise the buckets first".into());
        }
        if seen.rate.is_none() {
            warnings.push("this kernel does not count new connections: only the count and its growth are known".into());
        }
        if machine.max.is_none() {
            warnings.push("cannot read nf_conntrack_max: nf_conntrack may not be loaded here".into());
        }
        warnings
    }
}

impl ObservedLoad {
    /// Is the table full, so that the demand is larger than what is observed?
    pub fn is_full(&self) -> bool {
        self.max.is_some_and(|max| max > 0 && self.connections >= max.saturating_sub(max / 20))
            || self.dropped.is_some_and(|dropped| dropped > 0)
    }
}

/// Rounds up.
pub(crate) fn ceil_u64(number: f64) -> u64 {
    // `as` saturates: too large becomes the largest, NaN becomes 0.
    number.ceil() as u64
}

/// Seconds above 1.5 × keepalive, for retransmissions.
const KEEPALIVE_MARGIN: u64 = 60;
