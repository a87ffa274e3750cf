//! The traffic: who comes, how often they speak, how they go.
use crate::size::Profile;
use serde::Serialize;

/// A traffic model. Times are milliseconds, shares from 0 to 1, rates per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrafficModel {
    /// Whose figures it began from.
    pub profile: Option<Profile>,
    /// So many clients, each of whom comes again whenever its connection is over; `None`: every connection is another's, and they keep coming.
    pub clients: Option<u32>,
    /// Connections begun each second: of the clients, until all have come; else for ever.
    pub arrival: f64,
    /// How long a connection lives, on average (the exponential distribution); `None`: to the end.
    pub lifetime: Option<u64>,
    /// The longest a client is silent before it pings; 0: it never pings.
    pub keepalive: u64,
    /// What a client says of itself: every so often, so many octets. Where that is more often than the keepalive, it need not ping.
    pub message: Option<(u64, u32)>,
    /// The share of connections that end without a word.
    pub silent: f64,
    /// How long after its last word the server closes such a connection; `None`: it never does.
    pub notice: Option<u64>,
    /// When many lose their connection at once.
    pub storms: Vec<ReconnectStorm>,
    /// Who lost a connection comes again within this, at random.
    pub spread: u64,
    /// Who was refused comes again after 1 s, 2 s, 4 s …, at most this.
    pub retry: u64,
    /// From a packet to its answer's answer.
    pub round_trip: u64,
    /// UDP questions begun each second, each from a port of its own, answered at once.
    pub udp_rate: f64,
    /// Handshakes begun each second that are answered and never finished.
    pub half_open_rate: f64,
    /// The server's port.
    pub port: u16,
    /// How long all this lasts.
    pub duration: u64,
    /// Send every packet, also those that change nothing but a deadline that is far away: slow.
    pub every_packet: bool,
}

/// Many clients lose their connection at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReconnectStorm {
    /// When.
    pub at: u64,
    /// How many of those that are connected.
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
    /// The network is away: nobody says anything.
    Outage,
}

/// More clients than this have no address of their own in the simulated network.
pub const MAX_CLIENTS: u32 = 10_000_000;
/// The engine's clock of 32 bits wraps after half a year; no simulation comes near.
pub const MAX_DURATION: u64 = 60 * DAY;
/// More octets than this would overrun the window that nobody opens here.
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

    /// What does not fit together, in a sentence for the user.
    ///
    /// # Errors
    /// That sentence.
    pub fn check(&self) -> Result<(), String> {
        let no = |wrong: bool, what: &str| if wrong { Err(what.to_owned()) } else { Ok(()) };
        let rates = [self.arrival, self.udp_rate, self.half_open_rate];
        no(
            rates.iter().any(|rate| !rate.is_finite() || !(0.0..=MAX_RATE).contains(rate)),
            "a rate is from 0 to 10,000,000 a second",
        )?;
        no(
            ![self.silent]
                .iter()
                .chain(self.storms.iter().map(|storm| &storm.share))
                .all(|share| (0.0..=1.0).contains(share)),
            "a share is from 0 to 100 %",
        )?;
        no(self.duration == 0, "there is nothing to simulate in no time: give a duration")?;
        no(self.duration > MAX_DURATION, "the longest that is simulated is 60 days")?;
        no(self.clients == Some(0), "no clients need no table: give at least one")?;
        no(
            self.clients.is_some_and(|clients| clients > MAX_CLIENTS),
            "the simulated network has addresses for 10,000,000 clients",
        )?;
        no(
            self.clients.is_some() && self.arrival <= 0.0,
            "clients that arrive at a rate of 0 never come: give an arrival rate",
        )?;
        no(rates.iter().all(|rate| *rate == 0.0), "nobody comes: give an arrival rate")?;
        no(self.lifetime == Some(0), "a connection lives longer than no time")?;
        no(
            self.clients.is_none() && self.arrival > 0.0 && self.lifetime.is_none(),
            "connections that keep coming and never end need a lifetime",
        )?;
        no(self.spread > MAX_DURATION || self.round_trip > HOUR, "nobody waits that long")?;
        no(self.retry < SECOND, "who was refused waits at least a second")?;
        no(
            self.message.is_some_and(|(every, _)| every == 0),
            "messages without a pause between them are no messages: give an interval",
        )?;
        no(
            self.message.is_some_and(|(_, size)| size == 0 || size > MAX_MESSAGE_BYTES),
            "a message has 1 to 60,000 octets",
        )?;
        let late = self.storms.iter().any(|storm| storm.at >= self.duration);
        no(late, "a storm comes after the end: give an earlier time, or a longer duration")
    }

    /// From one word of a client to its next, and how many octets it has; `None` if it says nothing.
    pub(crate) fn periodic_message(&self) -> Option<(u64, u32)> {
        let ping = (self.keepalive > 0).then_some((self.keepalive, MQTT_PINGREQ_BYTES));
        match (self.message, ping) {
            (Some(message), Some(ping)) if ping.0 < message.0 => Some(ping),
            (Some(message), _) => Some(message),
            (None, ping) => ping,
        }
    }
}

/// Octets of MQTT's PINGREQ, and of its answer.
pub(crate) const MQTT_PINGREQ_BYTES: u32 = 2;
const MAX_RATE: f64 = 1e7;
