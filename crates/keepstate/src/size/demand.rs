//! A demand as it is described on the command line: a profile's typical figures, and what differs from them.
use clap::{Args, ValueEnum};
use keepstate_advisor::size::{Demand, Profile};
use keepstate_gateway::unit_args;

/// What is to be carried.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Demand (none: what the live table carries)")]
pub struct DemandArgs {
    /// Begin from the typical figures of such a machine; what is given beside it replaces its own
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileArg>,
    /// TCP connections that live at one time
    #[arg(short, long, value_name = "NUMBER", value_parser = unit_args::parse_count)]
    connections: Option<u64>,
    /// TCP connections begun each second, like 500 or 30/min
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    rate: Option<f64>,
    /// How long one lives
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds)]
    lifetime: Option<u64>,
    /// The longest silence of a living connection; 0: there is no keepalive
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds_or_zero)]
    keepalive: Option<u64>,
    /// The share that ends without a word (out of reach, power cut)
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    silent: Option<f64>,
    /// How long after its last word the other end closes such a connection; 0: never [default: 1.5 × keepalive]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds_or_zero)]
    notice: Option<u64>,
    /// UDP questions each second, each from a port of its own (DNS)
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    udp_rate: Option<f64>,
    /// Handshakes each second that are begun and never finished
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    half_open_rate: Option<f64>,
    /// The share of clients that come again while their old entries still stand
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    storm: Option<f64>,
    /// Connections are translated here: each takes 128 octets more
    #[arg(long)]
    nat: bool,
}

/// A profile's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// Many clients that stay for days and say little
    MqttBroker,
    /// Other people's connections pass through, translated
    NatGateway,
    /// Short calls between services, and their names looked up
    KubernetesNode,
    /// Visitors who come, fetch and go
    WebServer,
}

impl ProfileArg {
    /// The advisor's name for it.
    pub fn profile(self) -> Profile {
        match self {
            ProfileArg::MqttBroker => Profile::MqttBroker,
            ProfileArg::NatGateway => Profile::NatGateway,
            ProfileArg::KubernetesNode => Profile::KubernetesNode,
            ProfileArg::WebServer => Profile::WebServer,
        }
    }
}

/// How far a number may be from what two others make of it: they are rounded by hand.
const TOLERANCE: f64 = 0.1;

impl DemandArgs {
    /// The longest silence that was told.
    pub fn keepalive(&self) -> Option<u64> {
        self.keepalive.filter(|seconds| *seconds > 0)
    }

    /// Was any demand given?
    pub fn is_given(&self) -> bool {
        self.profile.is_some() || self.connections.is_some() || self.has_rates() || self.has_details()
    }

    fn has_rates(&self) -> bool {
        self.rate.is_some() || self.udp_rate.is_some() || self.half_open_rate.is_some()
    }

    fn has_details(&self) -> bool {
        self.lifetime.is_some()
            || self.keepalive.is_some()
            || self.silent.is_some()
            || self.notice.is_some()
            || self.storm.is_some()
            || self.nat
    }

    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if let (Some(connections), Some(rate), Some(lifetime)) = (self.connections, self.rate, self.lifetime) {
            let living = rate * lifetime as f64;
            let (least, most) = (connections as f64 * (1.0 - TOLERANCE), connections as f64 * (1.0 + TOLERANCE));
            if !(least..=most).contains(&living) {
                return Err(format!(
                    "{rate} a second that live {lifetime} s are {living:.0} at one time, not {connections}: give two of --connections, --rate and --lifetime"
                ));
            }
        }
        if self.is_given() && self.profile.is_none() && self.connections.is_none() && !self.has_rates() {
            return Err("how many? Give --connections, or --rate and --lifetime, or a --profile to begin from".into());
        }
        if self.profile.is_none() && self.connections.is_none() && self.rate.is_some() && self.lifetime.is_none() {
            return Err("how long do they live? Give --lifetime, or --connections beside --rate".into());
        }
        if let (Some(notice), Some(keepalive)) = (self.notice, self.keepalive)
            && notice > 0
            && notice <= keepalive
        {
            return Err(format!(
                "--notice {notice} s is not longer than --keepalive {keepalive} s: the other end would close connections that live"
            ));
        }
        Ok(())
    }

    /// The demand, completed.
    pub fn demand(&self) -> Demand {
        let mut demand = match self.profile {
            Some(named) => named.profile().demand(),
            None => Demand { profile: None, silent: 0.01, ..empty_demand() },
        };
        // What two of the three make of the third replaces the profile's own; of one alone, the profile's lifetime stays.
        match (self.connections, self.rate, self.lifetime) {
            (None, None, None) => (),
            (Some(connections), Some(rate), _) => {
                (demand.connections, demand.rate, demand.lifetime) = (connections, rate, 0.0);
            }
            (Some(connections), None, _) => (demand.connections, demand.rate) = (connections, 0.0),
            (None, rate, _) => {
                demand.connections = 0;
                demand.rate = rate.unwrap_or(demand.rate);
            }
        }
        if let Some(lifetime) = self.lifetime {
            demand.lifetime = lifetime as f64;
        }
        if let Some(keepalive) = self.keepalive {
            demand.keepalive = (keepalive > 0).then_some(keepalive);
            demand.notice = demand.keepalive.map(|keepalive| keepalive.saturating_mul(3).div_ceil(2));
        }
        if let Some(notice) = self.notice {
            demand.notice = (notice > 0).then_some(notice);
        }
        demand.silent = self.silent.unwrap_or(demand.silent);
        demand.udp_rate = self.udp_rate.unwrap_or(demand.udp_rate);
        demand.half_open_rate = self.half_open_rate.unwrap_or(demand.half_open_rate);
        demand.storm = self.storm.unwrap_or(demand.storm);
        demand.nat |= self.nat;
        demand.completed()
    }
}

/// Nothing at all, but the usual surge.
fn empty_demand() -> Demand {
    Demand {
        profile: None,
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
    }
}
