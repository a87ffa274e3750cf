//! The keys of the services file, and their defaults.
use crate::duration;
use keepstate_router::service::{
    BackendConfig, HashInput, HealthCheckConfig, Masquerade, Probe, Scheduler, ServiceConfig, Transport, WhenDown,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServicesFile {
    /// One `[[service]]` each.
    #[serde(default)]
    pub(super) service: Vec<Spanned<ServiceEntry>>,
}

/// One `[[service]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServiceEntry {
    pub(super) name: Spanned<String>,
    listen: ListenAddress,
    #[serde(default)]
    protocol: ProtocolSetting,
    #[serde(default)]
    scheduler: SchedulerSetting,
    #[serde(default)]
    hash: HashSetting,
    #[serde(default)]
    seed: u64,
    affinity: Option<AffinityTimeout>,
    #[serde(default)]
    masquerade: MasqueradeSetting,
    #[serde(default)]
    when_down: WhenDownSetting,
    /// How long connections of a removed backend go on.
    drain: Option<DurationSetting>,
    check: Option<CheckSetting>,
    pub(super) backends: Vec<Spanned<BackendEntry>>,
}

impl ServiceEntry {
    pub(super) fn to_config(&self) -> ServiceConfig {
        let at = (self.listen.address, self.listen.ports.clone());
        let transport = match self.protocol {
            ProtocolSetting::Tcp => Transport::Tcp,
            ProtocolSetting::Udp => Transport::Udp,
            ProtocolSetting::Sctp => Transport::Sctp,
        };
        ServiceConfig {
            scheduler: match self.scheduler {
                SchedulerSetting::RoundRobin => Scheduler::RoundRobin,
                SchedulerSetting::Random => Scheduler::Random,
                SchedulerSetting::SourceHash => Scheduler::SourceHash,
                SchedulerSetting::Maglev => Scheduler::Maglev,
                SchedulerSetting::LeastConnections => Scheduler::LeastConnections,
            },
            hash_input: match self.hash {
                HashSetting::Address => HashInput::Address,
                HashSetting::AddressAndPort => HashInput::AddressAndPort,
            },
            seed: self.seed,
            affinity: self.affinity.as_ref().map(|seconds| seconds.0),
            masquerade: match self.masquerade {
                MasqueradeSetting::Never => Masquerade::Never,
                MasqueradeSetting::Hairpin => Masquerade::Hairpin,
                MasqueradeSetting::Always => Masquerade::Always,
            },
            when_down: match self.when_down {
                WhenDownSetting::Keep => WhenDown::Keep,
                WhenDownSetting::Reset => WhenDown::Reset,
            },
            drain: self.drain.as_ref().map_or(Duration::ZERO, |time| time.0),
            check: self.check.as_ref().map(|check| check.0.clone()),
            backends: self.backends.iter().map(|backend| backend.get_ref().0.clone()).collect(),
            ..ServiceConfig::new(self.name.get_ref(), at, transport)
        }
    }
}

/// `tcp`, `udp`, `sctp`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProtocolSetting {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SchedulerSetting {
    #[default]
    RoundRobin,
    Random,
    SourceHash,
    Maglev,
    LeastConnections,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum HashSetting {
    #[default]
    Address,
    AddressAndPort,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum MasqueradeSetting {
    Never,
    #[default]
    Hairpin,
    Always,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WhenDownSetting {
    #[default]
    Keep,
    Reset,
}

/// `192.0.2.80:80`, `[2001:db8::80]:8000-8010`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ListenAddress {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<ListenAddress, String> {
        let usage = || {
            format!(
                "{text:?}: write ADDRESS:PORT or ADDRESS:FIRST-LAST, like 192.0.2.80:80 or [2001:db8::80]:8000-8010"
            )
        };
        let (address, ports) = text.rsplit_once(':').ok_or_else(usage)?;
        let address = address_in_brackets(address).ok_or_else(usage)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return Err(usage()) };
        Ok(ListenAddress { address, ports: first..=last })
    }
}

/// An address that a port may follow: IPv6 is in brackets.
fn address_in_brackets(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(text) => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// A backend's address, with a port or without: `10.0.0.11:8080`, `10.0.0.11`, `[fd00::11]:8080`, `[fd00::11]`. IPv6 needs brackets: the port of `fd00::11:8080` would be read
/// as a part of the address.
///
/// # Errors
/// A sentence for the user.
pub fn parse_backend_address(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let usage =
        || format!("{text:?}: write ADDRESS:PORT or ADDRESS, like 10.0.0.11:8080, 10.0.0.11 or [fd00::11]:8080");
    if let Some(address) = address_in_brackets(text) {
        return Ok((address, None));
    }
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let address = address_in_brackets(address).ok_or_else(usage)?;
    let port = port.parse().map_err(|_| usage())?;
    Ok((address, Some(port)))
}

/// A time in whole seconds, as `3h` or 10800; at most a day, as for kube-proxy.
#[derive(Deserialize)]
#[serde(try_from = "DurationSetting")]
struct AffinityTimeout(u32);

impl TryFrom<DurationSetting> for AffinityTimeout {
    type Error = String;

    fn try_from(DurationSetting(time): DurationSetting) -> Result<AffinityTimeout, String> {
        let is_valid = time.subsec_nanos() == 0 && (1..=MAX_AFFINITY).contains(&time.as_secs());
        let seconds = u32::try_from(time.as_secs()).ok().filter(|_| is_valid);
        seconds
            .map(AffinityTimeout)
            .ok_or_else(|| "affinity is 1s to 24h in whole seconds (kube-proxy's default is 3h)".into())
    }
}

/// A day.
const MAX_AFFINITY: u64 = 86_400;

/// A time: a text like `5s` or `1h30m`, or a number of seconds.
struct DurationSetting(Duration);

impl<'de> Deserialize<'de> for DurationSetting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DurationSetting, D::Error> {
        struct DurationVisitor;
        impl Visitor<'_> for DurationVisitor {
            type Value = DurationSetting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time like \"5s\" or \"1h30m\", or a number of seconds")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<DurationSetting, E> {
                duration::parse_millis(text).map(|time| DurationSetting(Duration::from_millis(time))).map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, seconds: i64) -> Result<DurationSetting, E> {
                self.visit_str(&seconds.to_string())
            }
        }
        from.deserialize_any(DurationVisitor)
    }
}

/// `"10.0.0.11:8080"`, or a table with a weight.
pub(super) struct BackendEntry(BackendConfig);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendTable {
    address: BackendAddress,
    weight: Option<u16>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct BackendAddress(IpAddr, Option<u16>);

impl TryFrom<String> for BackendAddress {
    type Error = String;

    fn try_from(text: String) -> Result<BackendAddress, String> {
        parse_backend_address(&text).map(|(address, port)| BackendAddress(address, port))
    }
}

impl<'de> Deserialize<'de> for BackendEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<BackendEntry, D::Error> {
        struct BackendVisitor;
        impl<'de> Visitor<'de> for BackendVisitor {
            type Value = BackendEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a backend like \"10.0.0.11:8080\" or { address = \"10.0.0.11:8080\", weight = 2 }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<BackendEntry, E> {
                let (address, port) = parse_backend_address(text).map_err(E::custom)?;
                Ok(BackendEntry(BackendConfig { address, port, weight: 1 }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackendEntry, A::Error> {
                let BackendTable { address: BackendAddress(address, port), weight } =
                    BackendTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(BackendEntry(BackendConfig { address, port, weight: weight.unwrap_or(1) }))
            }
        }
        from.deserialize_any(BackendVisitor)
    }
}

/// `check`: `"tcp"`, or a table.
struct CheckSetting(HealthCheckConfig);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckTable {
    command: Option<Vec<String>>,
    port: Option<u16>,
    source: Option<IpAddr>,
    interval: Option<DurationSetting>,
    timeout: Option<DurationSetting>,
    rise: Option<u32>,
    fall: Option<u32>,
}

impl CheckTable {
    fn into_health_check(self) -> Result<HealthCheckConfig, String> {
        let probe = match self.command {
            Some(_) if self.port.is_some() || self.source.is_some() => {
                return Err("port and source belong to a TCP check; give a command its own arguments".into());
            }
            Some(words) => Probe::Command(words),
            None => Probe::Connect { port: self.port, source: self.source },
        };
        let or = |setting: Option<DurationSetting>, default| setting.map_or(default, |time| time.0);
        Ok(HealthCheckConfig {
            probe,
            interval: or(self.interval, Duration::from_secs(5)),
            timeout: or(self.timeout, Duration::from_secs(2)),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
        })
    }
}

impl<'de> Deserialize<'de> for CheckSetting {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<CheckSetting, D::Error> {
        struct CheckVisitor;
        impl<'de> Visitor<'de> for CheckVisitor {
            type Value = CheckSetting;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"tcp\", or a table like { command = [\"/usr/local/bin/check\"], interval = \"5s\" }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<CheckSetting, E> {
                match text {
                    "tcp" => CheckTable::default().into_health_check().map(CheckSetting).map_err(E::custom),
                    _ => Err(E::custom(format!("unknown check {text:?}: write \"tcp\", or a table with a command"))),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CheckSetting, A::Error> {
                CheckTable::deserialize(MapAccessDeserializer::new(map))?
                    .into_health_check()
                    .map(CheckSetting)
                    .map_err(A::Error::custom)
            }
        }
        from.deserialize_any(CheckVisitor)
    }
}
