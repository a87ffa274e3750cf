//! What a log is: where it goes, how it is written, what is in it.
use super::hourly::ParquetConverter;
use super::subjects::CarrierStarter;
use crate::cluster::ClusterServers;
use keepstate_flowlog::LogPrivacy;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowLogTarget {
    /// A file, appended to.
    File(PathBuf),
    /// A collector, by UDP.
    Udp(SocketAddr),
    /// A collector, by TCP.
    Tcp(SocketAddr),
    /// A collector, by TLS over TCP.
    Tls(SocketAddr),
    /// Subjects of NATS: each record goes to `SUBJECT.EVENT`.
    Subjects(String),
    /// A directory, in which each hour has a file.
    Hourly(PathBuf),
}

/// How a log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON lines.
    Json,
    /// IPFIX.
    Ipfix,
    /// Syslog messages.
    Syslog,
    /// Parquet files.
    Parquet,
}

/// Which sessions are in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoggedSessions {
    /// Those that are translated.
    Nat,
    /// All.
    All,
    /// None: port blocks are enough.
    None,
}

/// One log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLogConfig {
    /// Where it goes.
    pub target: FlowLogTarget,
    /// How it is written.
    pub format: LogFormat,
    /// Its sessions.
    pub sessions: LoggedSessions,
    /// Are port blocks in it?
    pub port_blocks: bool,
    /// What of addresses is in it.
    pub privacy: LogPrivacy,
    /// Keys, certificates and servers.
    pub access: LogAccess,
}

/// How a collector is reached that asks for TLS, or NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogAccess {
    /// NATS' servers; for a collector its files alone.
    pub servers: ClusterServers,
    /// The name that a collector's certificate must have; `None`: its address.
    pub server_name: Option<String>,
}

/// What the program gives to logs, since the gateway knows neither NATS nor Parquet.
#[derive(Clone, Debug, Default)]
pub struct LogBackends {
    /// Carries records to subjects.
    pub carrier: Option<CarrierStarter>,
    /// Makes Parquet files.
    pub converter: Option<ParquetConverter>,
}

impl LogAccess {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.servers.files()
    }
}

impl FlowLogConfig {
    /// What a log to this target has if nothing else is said: JSON lines in files and subjects, IPFIX to a collector, the sessions that are translated, without their peers.
    pub fn to(target: FlowLogTarget) -> FlowLogConfig {
        let format = match target {
            FlowLogTarget::File(_) | FlowLogTarget::Subjects(_) => LogFormat::Json,
            FlowLogTarget::Udp(_) | FlowLogTarget::Tcp(_) | FlowLogTarget::Tls(_) => LogFormat::Ipfix,
            FlowLogTarget::Hourly(_) => LogFormat::Parquet,
        };
        let privacy = LogPrivacy { peers: false, inside: true };
        let access = LogAccess::default();
        FlowLogConfig { target, format, sessions: LoggedSessions::Nat, port_blocks: true, privacy, access }
    }
}

impl FromStr for FlowLogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<FlowLogTarget, String> {
        let collector = |address: &str| {
            address.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).ok_or_else(|| {
                format!("{text}: write the collector's address and port, like udp://192.0.2.10:4739 or tls://[2001:db8::10]:4740")
            })
        };
        match text.split_once("://") {
            Some(("udp", address)) => collector(address).map(FlowLogTarget::Udp),
            Some(("tcp", address)) => collector(address).map(FlowLogTarget::Tcp),
            Some(("tls", address)) => collector(address).map(FlowLogTarget::Tls),
            Some(("nats", _)) => {
                Err(format!("{text}: write nats:SUBJECT; the servers stand in servers = [\"{text}\"], or in [cluster]"))
            }
            Some((scheme, _)) => {
                Err(format!("{text}: a log goes to a file, udp://, tcp://, tls:// or nats:, not to {scheme}://"))
            }
            None if text.starts_with("nats:") => {
                let subject = text.trim_start_matches("nats:");
                is_subject(subject).then(|| FlowLogTarget::Subjects(subject.to_owned())).ok_or_else(|| {
                    format!("{text}: write nats:SUBJECT, like nats:flows.gw1: words of letters, digits, - and _, with dots between them")
                })
            }
            None if text.is_empty() || text.ends_with('/') => {
                Err(format!("{text:?} is no file: write its path, like /var/log/keepstate/flows.jsonl"))
            }
            None => Ok(FlowLogTarget::File(text.into())),
        }
    }
}

impl fmt::Display for FlowLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlowLogTarget::File(path) | FlowLogTarget::Hourly(path) => path.display().fmt(f),
            FlowLogTarget::Udp(address) => write!(f, "udp://{address}"),
            FlowLogTarget::Tcp(address) => write!(f, "tcp://{address}"),
            FlowLogTarget::Tls(address) => write!(f, "tls://{address}"),
            FlowLogTarget::Subjects(subject) => write!(f, "nats:{subject}"),
        }
    }
}

/// A subject that can be published to, short enough for an event behind it.
fn is_subject(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 200 && text.split('.').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_they_are_printed_and_others_are_explained() {
        for text in [
            "/var/log/flows.jsonl",
            "udp://192.0.2.1:4739",
            "tcp://[2001:db8::1]:514",
            "tls://192.0.2.1:6514",
            "nats:flows.gw-1",
        ] {
            assert_eq!(text.parse::<FlowLogTarget>().map(|target| target.to_string()), Ok(text.to_owned()));
        }
        for (text, part) in [
            ("nats:", "words of letters"),
            ("nats:a..b", "words of letters"),
            ("nats:a.>", "words of letters"),
            ("nats://h:4222", "write nats:SUBJECT"),
            ("tls://collector:6514", "address and port"),
            ("http://h", "tls://"),
            ("/var/log/", "is no file"),
        ] {
            let error = text.parse::<FlowLogTarget>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
