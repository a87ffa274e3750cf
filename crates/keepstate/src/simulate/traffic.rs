//! The traffic model as described on the command line: the typical figures of a profile, and options that replace them.
use crate::size::ProfileArg;
use crate::unit_args;
use clap::Args;
use keepstate_advisor::simulate::{ReconnectStorm, StormCause, TrafficModel};
use keepstate_advisor::size::Profile;

/// How clients connect, send and disconnect.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct TrafficArgs {
    /// Start from the typical traffic of such a machine; other options replace single figures [default: mqtt-broker]
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileArg>,
    /// Number of clients; each reconnects when its connection ends
    #[arg(short, long, value_name = "NUMBER", value_parser = unit_args::parse_count)]
    clients: Option<u64>,
    /// New connections per second: until all clients are connected, or to the end
    #[arg(long, visible_alias = "rate", value_name = "RATE", value_parser = unit_args::parse_rate)]
    arrival: Option<f64>,
    /// Average lifetime of a connection; 0 means to the end
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    lifetime: Option<u64>,
    /// Keepalive interval of the clients; 0 means no keepalive
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    keepalive: Option<u64>,
    /// Messages of each client: interval and bytes, like 30s or 30s:200
    #[arg(long, value_name = "TIME[:SIZE]", value_parser = parse_message)]
    message: Option<(u64, u32)>,
    /// Share of connections that end without FIN or RST
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    silent: Option<f64>,
    /// Time after which the server closes such a silent connection; 0 means never [default: 1.5 × keepalive]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    notice: Option<u64>,
    /// At this time this share of the clients loses its connections, by a server restart or a network outage (may be repeated)
    #[arg(long = "storm", value_name = "TIME:PERCENT[:restart|outage]", value_parser = parse_storm)]
    storms: Vec<ReconnectStorm>,
    /// Clients that lost their connection reconnect within this time [default: 1min]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    spread: Option<u64>,
    /// Clients that could not connect retry after 1, 2, 4 … s, at most this [default: 10min]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    retry: Option<u64>,
    /// UDP queries per second, each from its own port
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    udp_rate: Option<f64>,
    /// Handshakes per second that are never finished
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    half_open_rate: Option<f64>,
    /// SYNs per second that one host more sends to others, which do not answer: a scan
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    scan_rate: Option<f64>,
    /// An operator logs in on port 22 at this interval [default with --compare: 1min]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    operator: Option<u64>,
    /// Duration of the simulation [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    duration: Option<u64>,
    /// Send every packet, even if it cannot change the table (slow)
    #[arg(long)]
    every_packet: bool,
}

impl TrafficArgs {
    /// Was any of these options given?
    pub fn is_given(&self) -> bool {
        self.profile.is_some()
            || self.clients.is_some()
            || self.message.is_some()
            || !self.storms.is_empty()
            || self.every_packet
            || [self.arrival, self.silent, self.udp_rate, self.half_open_rate, self.scan_rate]
                .iter()
                .any(Option::is_some)
            || [self.lifetime, self.keepalive, self.notice, self.spread, self.retry, self.operator, self.duration]
                .iter()
                .any(Option::is_some)
    }

    /// The model, not yet checked.
    ///
    /// # Errors
    /// A number that no model can have.
    pub fn model(&self) -> Result<TrafficModel, String> {
        let mut model = TrafficModel::for_profile(self.profile.map_or(Profile::MqttBroker, ProfileArg::profile));
        if let Some(clients) = self.clients {
            let clients = u32::try_from(clients);
            model.clients =
                Some(clients.map_err(|_| "the simulated network has addresses for at most 10,000,000 clients")?);
        }
        if let Some(keepalive) = self.keepalive {
            model.keepalive = keepalive;
            model.notice = (keepalive > 0).then(|| keepalive.saturating_mul(3).div_ceil(2));
        }
        if let Some(notice) = self.notice {
            model.notice = (notice > 0).then_some(notice);
        }
        if let (Some(notice), Some((interval, _))) = (model.notice, model.message.or(Some((model.keepalive, 0))))
            && self.notice.is_some()
            && interval > 0
            && notice <= interval
        {
            return Err("--notice must be longer than --keepalive: the server would close open connections".into());
        }
        model.lifetime = self.lifetime.map_or(model.lifetime, |lifetime| (lifetime > 0).then_some(lifetime));
        model.message = self.message.or(model.message);
        model.storms.clone_from(&self.storms);
        model.arrival = self.arrival.unwrap_or(model.arrival);
        model.silent = self.silent.unwrap_or(model.silent);
        model.spread = self.spread.unwrap_or(model.spread);
        model.retry = self.retry.unwrap_or(model.retry);
        model.udp_rate = self.udp_rate.unwrap_or(model.udp_rate);
        model.half_open_rate = self.half_open_rate.unwrap_or(model.half_open_rate);
        model.scan_rate = self.scan_rate.unwrap_or(model.scan_rate);
        model.operator_every = self.operator.or(model.operator_every);
        model.duration = self.duration.unwrap_or(model.duration);
        model.every_packet = self.every_packet;
        Ok(model)
    }
}

/// `30s`, or `30s:200` with a size in bytes.
fn parse_message(text: &str) -> Result<(u64, u32), String> {
    let (every, size) = text.split_once(':').unwrap_or((text, "100"));
    let size = size.parse().map_err(|_| String::from("write it as TIME:BYTES, like 30s:200"))?;
    Ok((unit_args::parse_millis(every)?, size))
}

/// `6h:50%`, `6h:50%:outage`.
fn parse_storm(text: &str) -> Result<ReconnectStorm, String> {
    let mut parts = text.split(':');
    let (Some(at), Some(share)) = (parts.next(), parts.next()) else {
        return Err("write it as TIME:PERCENT, like 6h:50%, or 6h:50%:outage".into());
    };
    let cause = match (parts.next(), parts.next()) {
        (None | Some("restart"), None) => StormCause::Restart,
        (Some("outage"), None) => StormCause::Outage,
        _ => return Err("write the cause as restart or outage, like 6h:50%:outage".into()),
    };
    Ok(ReconnectStorm { at: unit_args::parse_millis(at)?, share: unit_args::parse_percent(share)?, cause })
}
