//! The services' file as it is written: its words, and what they default to.
use crate::amount;
use keepstate_router::service::{Backend, Check, Hashed, Masquerade, Probe, Scheduler, Service, Transport, WhenDown};
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
pub(super) struct File {
    /// One `[[service]]` each.
    #[serde(default)]
    pub(super) service: Vec<Spanned<Told>>,
}

/// One `[[service]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Told {
    pub(super) name: Spanned<String>,
    listen: Listen,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    scheduler: Scheduling,
    #[serde(default)]
    hash: Hash,
    #[serde(default)]
    seed: u64,
    affinity: Option<Seconds>,
    #[serde(default)]
    masquerade: Masquerading,
    #[serde(default)]
    when_down: Down,
    check: Option<Checked>,
    pub(super) backends: Vec<Spanned<Member>>,
}

impl Told {
    pub(super) fn service(&self) -> Service {
        let at = (self.listen.address, self.listen.ports.clone());
        let transport = match self.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => Transport::Sctp,
        };
        Service {
            scheduler: match self.scheduler {
                Scheduling::RoundRobin => Scheduler::RoundRobin,
                Scheduling::Random => Scheduler::Random,
                Scheduling::SourceHash => Scheduler::SourceHash,
                Scheduling::Maglev => Scheduler::Maglev,
                Scheduling::LeastConnections => Scheduler::LeastConnections,
            },
            hashed: match self.hash {
                Hash::Address => Hashed::Address,
                Hash::AddressAndPort => Hashed::AddressAndPort,
            },
            seed: self.seed,
            affinity: self.affinity.as_ref().map(|seconds| seconds.0),
            masquerade: match self.masquerade {
                Masquerading::Never => Masquerade::Never,
                Masquerading::Hairpin => Masquerade::Hairpin,
                Masquerading::Always => Masquerade::Always,
            },
            when_down: match self.when_down {
                Down::Keep => WhenDown::Keep,
                Down::Reset => WhenDown::Reset,
            },
            check: self.check.as_ref().map(|check| check.0.clone()),
            backends: self.backends.iter().map(|backend| backend.get_ref().0.clone()).collect(),
            ..Service::new(self.name.get_ref(), at, transport)
        }
    }
}

/// `tcp`, `udp`, `sctp`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scheduling {
    #[default]
    RoundRobin,
    Random,
    SourceHash,
    Maglev,
    LeastConnections,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Hash {
    #[default]
    Address,
    AddressAndPort,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Masquerading {
    Never,
    #[default]
    Hairpin,
    Always,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Down {
    #[default]
    Keep,
    Reset,
}

/// `192.0.2.80:80`, `[2001:db8::80]:8000-8010`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Listen {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Listen, String> {
        let how = || {
            format!(
                "{text:?}: write ADDRESS:PORT or ADDRESS:FIRST-LAST, like 192.0.2.80:80 or [2001:db8::80]:8000-8010"
            )
        };
        let (address, ports) = text.rsplit_once(':').ok_or_else(how)?;
        let address = address_in_brackets(address).ok_or_else(how)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return Err(how()) };
        Ok(Listen { address, ports: first..=last })
    }
}

/// An address that a port may follow: IPv6 stands in brackets.
fn address_in_brackets(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(text) => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    }
}

/// A backend's address, with a port or without: `10.0.0.11:8080`, `10.0.0.11`, `[fd00::11]:8080`, `[fd00::11]`. IPv6 without brackets is refused: in `fd00::11:8080` the port would be read
/// as a part of the address.
pub(crate) fn address_and_port(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    let how = || format!("{text:?}: write ADDRESS:PORT or ADDRESS, like 10.0.0.11:8080, 10.0.0.11 or [fd00::11]:8080");
    if let Some(address) = address_in_brackets(text) {
        return Ok((address, None));
    }
    let (address, port) = text.rsplit_once(':').ok_or_else(how)?;
    let address = address_in_brackets(address).ok_or_else(how)?;
    let port = port.parse().map_err(|_| how())?;
    Ok((address, Some(port)))
}

/// A time in whole seconds, as `3h` or 10800; a day's length at most, as for kube-proxy.
#[derive(Deserialize)]
#[serde(try_from = "Time")]
struct Seconds(u32);

impl TryFrom<Time> for Seconds {
    type Error = String;

    fn try_from(Time(time): Time) -> Result<Seconds, String> {
        let whole = time.subsec_nanos() == 0 && (1..=LONGEST_AFFINITY).contains(&time.as_secs());
        let seconds = u32::try_from(time.as_secs()).ok().filter(|_| whole);
        seconds
            .map(Seconds)
            .ok_or_else(|| "sources stay for 1s to 24h, in whole seconds: kube-proxy's default is 3h".into())
    }
}

/// A day.
const LONGEST_AFFINITY: u64 = 86_400;

/// A time: a text like `5s` or `1h30m`, or a number of seconds.
struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        struct Times;
        impl Visitor<'_> for Times {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time like \"5s\" or \"1h30m\", or a number of seconds")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                amount::milliseconds(text).map(|time| Time(Duration::from_millis(time))).map_err(E::custom)
            }
            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Time, E> {
                self.visit_str(&seconds.to_string())
            }
        }
        from.deserialize_any(Times)
    }
}

/// `"10.0.0.11:8080"`, or a table with a weight.
pub(super) struct Member(Backend);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighed {
    address: At,
    weight: Option<u16>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct At(IpAddr, Option<u16>);

impl TryFrom<String> for At {
    type Error = String;

    fn try_from(text: String) -> Result<At, String> {
        address_and_port(&text).map(|(address, port)| At(address, port))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Member, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Member;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a backend like \"10.0.0.11:8080\" or { address = \"10.0.0.11:8080\", weight = 2 }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Member, E> {
                let (address, port) = address_and_port(text).map_err(E::custom)?;
                Ok(Member(Backend { address, port, weight: 1 }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                let Weighed { address: At(address, port), weight } =
                    Weighed::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Member(Backend { address, port, weight: weight.unwrap_or(1) }))
            }
        }
        from.deserialize_any(Members)
    }
}

/// `"tcp"`, or a table.
struct Checked(Check);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    command: Option<Vec<String>>,
    port: Option<u16>,
    source: Option<IpAddr>,
    interval: Option<Time>,
    timeout: Option<Time>,
    rise: Option<u32>,
    fall: Option<u32>,
}

impl Asking {
    fn check(self) -> Result<Check, String> {
        let probe = match self.command {
            Some(_) if self.port.is_some() || self.source.is_some() => {
                return Err("port and source are for a TCP connection; a command is told its own arguments".into());
            }
            Some(words) => Probe::Command(words),
            None => Probe::Connect { port: self.port, source: self.source },
        };
        let or = |told: Option<Time>, usual| told.map_or(usual, |time| time.0);
        Ok(Check {
            probe,
            interval: or(self.interval, Duration::from_secs(5)),
            timeout: or(self.timeout, Duration::from_secs(2)),
            rise: self.rise.unwrap_or(2),
            fall: self.fall.unwrap_or(3),
        })
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Checked, D::Error> {
        struct Checks;
        impl<'de> Visitor<'de> for Checks {
            type Value = Checked;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"tcp\", or a table like { command = [\"/usr/local/bin/is-well\"], interval = \"5s\" }")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Checked, E> {
                match text {
                    "tcp" => Asking::default().check().map(Checked).map_err(E::custom),
                    _ => {
                        Err(E::custom(format!("there is no check {text:?}: write \"tcp\", or a table with a command")))
                    }
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Checked, A::Error> {
                Asking::deserialize(MapAccessDeserializer::new(map))?.check().map(Checked).map_err(A::Error::custom)
            }
        }
        from.deserialize_any(Checks)
    }
}
