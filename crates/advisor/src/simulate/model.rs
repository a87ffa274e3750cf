//! The traffic model: how clients connect, send and disconnect.
use crate::size::Profile;
use serde::Serialize;

/// A traffic model. Times are milliseconds, shares from 0 to 1, rates per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficModel {
    /// The profile it is based on.
    pub profile: Option<Profile>,
    /// Number of clients, each of which reconnects when its connection ends; `None`: every connection is from a new client.
    pub clients: Option<u32>,
    /// New connections per second: until all clients have connected, or to the end.
    pub arrival: f64,
    /// Average lifetime of a connection (exponentially distributed); `None`: to the end.
    pub lifetime: Option<u64>,
    /// Keepalive interval: the longest silence of a client before it pings; 0: it never pings.
    pub keepalive: u64,
    /// Messages of a client: interval and bytes. If they are more frequent than the keepalive, no ping is needed.
    pub message: Option<(u64, u32)>,
    /// The share of connections that end without FIN or RST.
    pub silent: f64,
    /// How long after the last packet the server closes such a connection; `None`: never.
    pub notice: Option<u64>,
    /// Times at which many clients lose their connections.
    pub storms: Vec<ReconnectStorm>,
    /// Clients that lost a connection reconnect within this time, at random.
    pub spread: u64,
    /// Clients that could not connect retry after 1 s, 2 s, 4 s …, at most this.
    pub retry: u64,
    /// Round-trip time.
    pub round_trip: u64,
    /// UDP queries per second, each from its own port, answered at once.
    pub udp_rate: f64,
    /// Handshakes per second that are answered and never finished.
    pub half_open_rate: f64,
    /// SYNs per second that one more host sends to other hosts, which do not answer: a scan from inside a NAT gateway.
    pub scan_rate: f64,
    /// How often an operator logs in on port 22; `None`: never.
    pub operator_every: Option<u64>,
    /// The server's port.
    pub port: u16,
    /// Duration of the simulation.
    pub duration: u64,
    /// Send every packet, even if it only refreshes a long timeout (slow).
    pub every_packet: bool,
}

/// Many clients lose their connections at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReconnectStorm {
    /// When.
    pub at: u64,
    /// The share of the connected clients.
    pub share: f64,
    /// Why.
    pub cause: StormCause,
}

/// Why many connections end at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StormCause {
    /// The server restarts: it resets them.
    Restart,
    /// A network outage: no packets.
    Outage,
}

/// The simulated network has addresses for this many clients.
pub const MAX_CLIENTS: u32 = 10_000_000;
/// The engine's 32-bit clock wraps after half a year; simulations stay far below.
pub const MAX_DURATION: u64 = 60 * DAY;
/// More bytes would overrun the receive window, which stays fixed here.
pub const MAX_MESSAGE_BYTES: u32 = 60_000;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

impl TrafficModel {
    /// The typical traffic of a profile.
    pub fn for_profile(profile: Profile) -> TrafficModel {
        let demand = profile.demand();
        let plain = TrafficModel {
            profile: Some(profile),
            clients: None,
            arrival: demand.rate,
            lifetime: Some((demand.lifetime * 1e3) as u64),
            keepalive: 0,
            message: None,
            silent: demand.silent,
            notice: demand.notice.map(|notice| notice * SECOND),
            storms: Vec::new(),
            spread: MINUTE,
            retry: 10 * MINUTE,
            round_trip: 50,
            udp_rate: demand.udp_rate,
            half_open_rate: demand.half_open_rate,
            scan_rate: 0.0,
            operator_every: None,
            port: 443,
            duration: HOUR,
            every_packet: false,
        };
        match profile {
            Profile::MqttBroker => {
                TrafficModel { clients: Some(100_000), arrival: 500.0, keepalive: MINUTE, port: 1883, ..plain }
            }
            Profile::WebServer => TrafficModel { message: Some((5 * SECOND, 500)), ..plain },
            Profile::NatGateway | Profile::KubernetesNode => {
                TrafficModel { message: Some((10 * SECOND, 500)), ..plain }
            }
        }
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    /// What does not fit.
    pub fn check(&self) -> Result<(), String> {
        let no = |wrong: bool, what: &str| if wrong { Err(what.to_owned()) } else { Ok(()) };
        let rates = [self.arrival, self.udp_rate, self.half_open_rate, self.scan_rate];
        no(
            rates.iter().any(|rate| !rate.is_finite() || !(0.0..=MAX_RATE).contains(rate)),
            "a rate must be from 0 to 10,000,000 per second",
        )?;
        no(
            ![self.silent]
                .iter()
                .chain(self.storms.iter().map(|storm| &storm.share))
                .all(|share| (0.0..=1.0).contains(share)),
            "a share must be from 0 to 100 %",
        )?;
        no(self.duration == 0, "the duration must be longer than 0")?;
        no(self.duration > MAX_DURATION, "the duration must be at most 60 days")?;
        no(self.clients == Some(0), "the number of clients must be at least one")?;
        no(
            self.clients.is_some_and(|clients| clients > MAX_CLIENTS),
            "the simulated network has addresses for at most 10,000,000 clients",
        )?;
        no(
            self.clients.is_some() && self.arrival <= 0.0,
            "with an arrival rate of 0 clients never come: give an arrival rate",
        )?;
        no(rates.iter().all(|rate| *rate == 0.0), "no traffic: give an arrival rate")?;
        no(self.operator_every == Some(0), "an operator's interval must be longer than 0")?;
        no(self.lifetime == Some(0), "the lifetime must be longer than 0")?;
        no(
            self.clients.is_none() && self.arrival > 0.0 && self.lifetime.is_none(),
            "without a number of clients, connections need a lifetime",
        )?;
        no(
            self.spread > MAX_DURATION || self.round_trip > HOUR,
            "the spread must be at most 60 days and the round-trip time at most 1 hour",
        )?;
        no(self.retry < SECOND, "the retry time must be at least 1 second")?;
        no(self.message.is_some_and(|(every, _)| every == 0), "the message interval must be longer than 0")?;
        no(
            self.message.is_some_and(|(_, size)| size == 0 || size > MAX_MESSAGE_BYTES),
            "a message must have 1 to 60,000 bytes",
        )?;
        let late = self.storms.iter().any(|storm| storm.at >= self.duration);
        no(late, "a storm is after the end: give an earlier time, or a longer duration")
    }

    /// Interval and bytes of a client's messages or pings; `None` if it sends none.
    pub(crate) fn periodic_message(&self) -> Option<(u64, u32)> {
        let ping = (self.keepalive > 0).then_some((self.keepalive, MQTT_PINGREQ_BYTES));
        match (self.message, ping) {
            (Some(message), Some(ping)) if ping.0 < message.0 => Some(ping),
            (Some(message), _) => Some(message),
            (None, ping) => ping,
        }
    }
}

/// Bytes of MQTT's PINGREQ, and of PINGRESP.
pub(crate) const MQTT_PINGREQ_BYTES: u32 = 2;
const MAX_RATE: f64 = 1e7;
