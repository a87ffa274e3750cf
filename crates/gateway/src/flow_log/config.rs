//! What a log is: where it goes, how it is written, what is in it.
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
}

impl FlowLogConfig {
    /// What a log to this target has if nothing else is said: JSON lines in a file, IPFIX to a collector, the sessions that are translated, without their peers.
    pub fn to(target: FlowLogTarget) -> FlowLogConfig {
        let format = if matches!(target, FlowLogTarget::File(_)) { LogFormat::Json } else { LogFormat::Ipfix };
        let privacy = LogPrivacy { peers: false, inside: true };
        FlowLogConfig { target, format, sessions: LoggedSessions::Nat, port_blocks: true, privacy }
    }
}

impl FromStr for FlowLogTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<FlowLogTarget, String> {
        let collector = |address: &str| {
            address.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).ok_or_else(|| {
                format!("{text}: write the collector's address and port, like udp://192.0.2.10:4739 or tcp://[2001:db8::10]:4739")
            })
        };
        match text.split_once("://") {
            Some(("udp", address)) => collector(address).map(FlowLogTarget::Udp),
            Some(("tcp", address)) => collector(address).map(FlowLogTarget::Tcp),
            Some((scheme, _)) => Err(format!("{text}: a log goes to a file, udp:// or tcp://, not to {scheme}://")),
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
            FlowLogTarget::File(path) => path.display().fmt(f),
            FlowLogTarget::Udp(address) => write!(f, "udp://{address}"),
            FlowLogTarget::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}
