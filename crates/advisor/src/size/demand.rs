//! What a table has to carry: said by a person, or seen on a machine.
use crate::kernel_constants::MIN_ESTABLISHED_TIMEOUT;
use crate::size::machine::SizingMachine;
use crate::units::{Count, Seconds};
use keepstate_engine::{Sysctl, Sysctls};
use serde::Serialize;

/// Where the demand comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// It was described.
    Demand(Demand),
    /// It is what a table carries now.
    Observed(ObservedLoad),
}

/// A kind of machine that has tracking to do, with typical figures to begin from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Many clients that stay for days and say little.
    MqttBroker,
    /// Other people's connections pass through and are translated.
    NatGateway,
    /// Short calls between services, and their names looked up.
    KubernetesNode,
    /// Visitors who come, fetch and go.
    WebServer,
}

/// A demand, described. Shares are from 0 to 1, rates are per second, times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// Whose figures it began from.
    pub profile: Option<Profile>,
    /// TCP connections that live at one time; `rate` × `lifetime`.
    pub connections: u64,
    /// TCP connections begun each second.
    pub rate: f64,
    /// How long one lives.
    pub lifetime: f64,
    /// Longest silence of a living connection; `None` where nobody keeps it to one.
    pub keepalive: Option<u64>,
    /// The share of connections that end without a word: a phone out of reach, a power cut.
    pub silent: f64,
    /// How long after its last word the other end closes such a connection; `None`: never, or not through here.
    pub notice: Option<u64>,
    /// UDP questions (DNS above all) each second, each from a port of its own.
    pub udp_rate: f64,
    /// Handshakes each second that are begun and never finished: scans, floods.
    pub half_open_rate: f64,
    /// The share of clients that come again, from new ports, while their old entries still stand: a restart, a network that was away.
    pub storm: f64,
    /// Are connections translated (NAT) here?
    pub nat: bool,
}

/// What was read from a table that works now.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ObservedLoad {
    /// Connections, by the count of the namespace looked at or by the slab of all, whichever is more.
    pub connections: u64,
    /// The limit they stand against.
    pub max: Option<u64>,
    /// How long was looked, in seconds; 0 if only once.
    pub interval: f64,
    /// How much the count grew each second (or shrank).
    pub growth: Option<f64>,
    /// Connections begun each second, if this kernel counts them or the machine's own sockets tell.
    pub rate: Option<f64>,
    /// Packets dropped meanwhile because there was no room (`drop` rises together with `early_drop`, or alone).
    pub dropped: Option<u64>,
    /// Inserts refused meanwhile because a list was too long.
    pub chain_too_long: Option<u64>,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 4] =
        [Profile::MqttBroker, Profile::NatGateway, Profile::KubernetesNode, Profile::WebServer];

    /// As it is written on the command line.
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
            // A client a core can serve by the ten thousand, with MQTT's usual keepalive; MQTT 3.1.2.10: the broker waits 1.5 × keepalive.
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
            // Two hours and nine probes 75 s apart: TCP's own keepalive, where a service asks for it.
            Profile::KubernetesNode => Demand {
                rate: 500.0,
                lifetime: 30.0,
                silent: 0.001,
                notice: Some(7875),
                udp_rate: 1000.0,
                nat: true,
                ..plain
            },
            // Servers close an idle visitor after about a minute (nginx: 75 s).
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
    /// Fills in which of connections, rate and lifetime is zero by Little's law: those that live are those that come each second times how
    /// long they stay.
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

    /// What the established timeout must not be below, and why.
    pub fn min_established_timeout(&self) -> (u64, String) {
        let silence = self.keepalive.unwrap_or(0);
        let needed = silence.saturating_mul(3).div_ceil(2).saturating_add(KEEPALIVE_MARGIN);
        if needed > MIN_ESTABLISHED_TIMEOUT {
            let why = format!("1.5 × the keepalive of {} and {KEEPALIVE_MARGIN} s more", Seconds(silence));
            (needed, why)
        } else {
            (
                MIN_ESTABLISHED_TIMEOUT,
                "RFC 5382 (REQ-5): at least 2 hours 4 minutes for an established connection".into(),
            )
        }
    }
}

impl Workload {
    /// Will connections have the 128-octet extension: for NAT, accounting, events or timestamps?
    pub fn has_extension(&self, knobs: &Sysctls) -> bool {
        let nat = match self {
            Workload::Demand(demand) => demand.nat,
            // It cannot be seen from here, and most tables of today have it.
            Workload::Observed(_) => true,
        };
        nat || knobs.is_enabled(Sysctl::Acct) || knobs.is_enabled(Sysctl::Timestamp) || knobs[Sysctl::Events] == 1
    }

    /// What a reader of the numbers should know of where they come from.
    pub(crate) fn warnings(&self, machine: &SizingMachine) -> Vec<String> {
        let Workload::Observed(seen) = self else { return Vec::new() };
        let mut warnings = Vec::new();
        if seen.is_full() {
            warnings.push(format!(
                "the table is full ({} of {}): how much is really wanted cannot be seen from a full table, so twice the limit was taken; look again when it is larger",
                Count(seen.connections),
                Count(seen.max.unwrap_or(seen.connections)),
            ));
        }
        if seen.chain_too_long.is_some_and(|count| count > 0) {
            warnings.push("inserts fail because lists are too long (chaintoolong): raise the buckets first".into());
        }
        if seen.rate.is_none() {
            warnings.push(
                "this kernel does not count the connections that packets begin; what was seen is the count, and how it grows".into(),
            );
        }
        if machine.max.is_none() {
            warnings.push("nf_conntrack_max could not be read: tracking may not be loaded here".into());
        }
        warnings
    }
}

impl ObservedLoad {
    /// Nothing more goes in: what is wanted is more than what is seen.
    pub fn is_full(&self) -> bool {
        self.max.is_some_and(|max| max > 0 && self.connections >= max.saturating_sub(max / 20))
            || self.dropped.is_some_and(|dropped| dropped > 0)
    }
}

/// The next whole number.
pub(crate) fn ceil_u64(number: f64) -> u64 {
    // What is too large becomes the largest, what is no number nothing: that is what `as` does here.
    number.ceil() as u64
}

/// Seconds above 1.5 × keepalive: a retransmission or two may be on its way.
const KEEPALIVE_MARGIN: u64 = 60;
