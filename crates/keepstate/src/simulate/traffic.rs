//! The traffic model as it is described on the command line: a profile's typical figures, and what differs from them.
use crate::size::ProfileArg;
use clap::Args;
use keepstate_advisor::simulate::{ReconnectStorm, StormCause, TrafficModel};
use keepstate_advisor::size::Profile;
use keepstate_gateway::unit_args;

/// Who comes, how often they speak, how they go.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traffic")]
pub struct TrafficArgs {
    /// Begin from the typical traffic of such a machine; what is given beside it replaces its own [default: mqtt-broker]
    #[arg(long, value_name = "PROFILE")]
    profile: Option<ProfileArg>,
    /// So many clients, each of whom comes again when its connection is over
    #[arg(short, long, value_name = "NUMBER", value_parser = unit_args::parse_count)]
    clients: Option<u64>,
    /// Connections begun each second: until all clients have come, or for ever
    #[arg(long, visible_alias = "rate", value_name = "RATE", value_parser = unit_args::parse_rate)]
    arrival: Option<f64>,
    /// How long a connection lives on average; 0: to the end
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    lifetime: Option<u64>,
    /// The longest a client is silent before it pings; 0: it never pings
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    keepalive: Option<u64>,
    /// What else a client sends: so often, so many octets, like 30s or 30s:200
    #[arg(long, value_name = "TIME[:SIZE]", value_parser = parse_message)]
    message: Option<(u64, u32)>,
    /// The share of connections that end without a word
    #[arg(long, value_name = "PERCENT", value_parser = unit_args::parse_percent)]
    silent: Option<f64>,
    /// How long after its last word the server closes such a connection; 0: never [default: 1.5 × keepalive]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    notice: Option<u64>,
    /// That share of the clients loses its connection at that time: the server restarts, or the network is away (may be given several times)
    #[arg(long = "storm", value_name = "TIME:PERCENT[:restart|outage]", value_parser = parse_storm)]
    storms: Vec<ReconnectStorm>,
    /// Who lost its connection comes again within this [default: 1min]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    spread: Option<u64>,
    /// Who was refused comes again after 1, 2, 4 … s, at most this [default: 10min]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    retry: Option<u64>,
    /// UDP questions each second, each from a port of its own
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    udp_rate: Option<f64>,
    /// Handshakes each second that are begun and never finished
    #[arg(long, value_name = "RATE", value_parser = unit_args::parse_rate)]
    half_open_rate: Option<f64>,
    /// How long all this lasts [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = unit_args::parse_millis)]
    duration: Option<u64>,
    /// Send every packet, also those that cannot change the table: slow
    #[arg(long)]
    every_packet: bool,
}

impl TrafficArgs {
    /// Was any of it asked for?
    pub fn is_given(&self) -> bool {
        self.profile.is_some()
            || self.clients.is_some()
            || self.message.is_some()
            || !self.storms.is_empty()
            || self.every_packet
            || [self.arrival, self.silent, self.udp_rate, self.half_open_rate].iter().any(Option::is_some)
            || [self.lifetime, self.keepalive, self.notice, self.spread, self.retry, self.duration]
                .iter()
                .any(Option::is_some)
    }

    /// The model; it is still to be checked.
    ///
    /// # Errors
    /// A number no model can have: a sentence for the user.
    pub fn model(&self) -> Result<TrafficModel, String> {
        let mut model = TrafficModel::for_profile(self.profile.map_or(Profile::MqttBroker, ProfileArg::profile));
        if let Some(clients) = self.clients {
            let clients = u32::try_from(clients);
            model.clients = Some(clients.map_err(|_| "the simulated network has addresses for 10,000,000 clients")?);
        }
        if let Some(keepalive) = self.keepalive {
            model.keepalive = keepalive;
            model.notice = (keepalive > 0).then(|| keepalive.saturating_mul(3).div_ceil(2));
        }
        if let Some(notice) = self.notice {
            model.notice = (notice > 0).then_some(notice);
        }
        if let (Some(notice), Some((beat, _))) = (model.notice, model.message.or(Some((model.keepalive, 0))))
            && self.notice.is_some()
            && beat > 0
            && notice <= beat
        {
            return Err("the server would close connections that live: --notice is longer than --keepalive".into());
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
        model.duration = self.duration.unwrap_or(model.duration);
        model.every_packet = self.every_packet;
        Ok(model)
    }
}

/// `30s`, or `30s:200` with a size in octets.
fn parse_message(text: &str) -> Result<(u64, u32), String> {
    let (every, size) = text.split_once(':').unwrap_or((text, "100"));
    let size = size.parse().map_err(|_| String::from("write it as TIME:OCTETS, like 30s:200"))?;
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
        _ => return Err("a storm is a restart or an outage, like 6h:50%:outage".into()),
    };
    Ok(ReconnectStorm { at: unit_args::parse_millis(at)?, share: unit_args::parse_percent(share)?, cause })
}
