//! The demand as described on the command line: the typical figures of a profile, and options that replace them.
use crate::unit_args;
use clap::{Args, ValueEnum};
use keepstate_advisor::size::{Demand, Profile};

/// The load to size for.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load (default: the live table)")]
pub struct DemandArgs {
    /// Start from the typical figures of such a machine; other options replace single figures
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileArg>,
    /// TCP connections open at one time
    #[arg(short, long, value_name = "NUMBER", value_parser = unit_args::parse_count)]
    connections: Option<u64>,
    /// New TCP connections per second, like 500 or 30/min
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    rate: Option<f64>,
    /// Average lifetime of a connection
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds)]
    lifetime: Option<u64>,
    /// Keepalive interval: the longest silence of an open connection; 0 means no keepalive
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds_or_zero)]
    keepalive: Option<u64>,
    /// Share of connections that end without FIN or RST (lost radio, power cut)
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    silent: Option<f64>,
    /// Time after which the other end closes such a silent connection; 0 means never [default: 1.5 × keepalive]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds_or_zero)]
    notice: Option<u64>,
    /// UDP queries per second, each from its own port (DNS)
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    udp_rate: Option<f64>,
    /// Handshakes per second that are never finished
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    half_open_rate: Option<f64>,
    /// Share of clients that reconnect while their old entries still exist
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    storm: Option<f64>,
    /// Connections are translated (NAT): each takes 128 bytes more
    #[arg(long)]
    nat: bool,
}

/// A profile's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileArg {
    /// Many clients that stay connected for days and send little
    MqttBroker,
    /// Forwards and translates connections
    NatGateway,
    /// Short requests between services, and DNS queries
    KubernetesNode,
    /// Many short client connections
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

/// How far the third number may be from what the other two give: people round.
const TOLERANCE: f64 = 0.1;

impl DemandArgs {
    /// The given keepalive interval.
    pub fn keepalive(&self) -> Option<u64> {
        self.keepalive.filter(|seconds| *seconds > 0)
    }

    /// Was any option of the load given?
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

    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if let (Some(connections), Some(rate), Some(lifetime)) = (self.connections, self.rate, self.lifetime) {
            let living = rate * lifetime as f64;
            let (least, most) = (connections as f64 * (1.0 - TOLERANCE), connections as f64 * (1.0 + TOLERANCE));
            if !(least..=most).contains(&living) {
                return Err(format!(
                    "--rate {rate} and --lifetime {lifetime} s give {living:.0} connections at one time, not {connections}: give two of --connections, --rate and --lifetime"
                ));
            }
        }
        if self.is_given() && self.profile.is_none() && self.connections.is_none() && !self.has_rates() {
            return Err("no load is given: use --connections, or --rate and --lifetime, or --profile".into());
        }
        if self.profile.is_none() && self.connections.is_none() && self.rate.is_some() && self.lifetime.is_none() {
            return Err("--rate needs --lifetime or --connections".into());
        }
        if let (Some(notice), Some(keepalive)) = (self.notice, self.keepalive)
            && notice > 0
            && notice <= keepalive
        {
            return Err(format!(
                "--notice {notice} s must be longer than --keepalive {keepalive} s: the other end would close open connections"
            ));
        }
        Ok(())
    }

    /// The complete demand.
    pub fn demand(&self) -> Demand {
        let mut demand = match self.profile {
            Some(named) => named.profile().demand(),
            None => Demand { profile: None, silent: 0.01, ..empty_demand() },
        };
        // Two of the three determine the third; with one alone the profile's lifetime stays.
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

/// No load, but the usual surge.
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
