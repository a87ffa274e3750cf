//! One `[[flow-log]]`: a NAT and flow log.
use crate::cluster::ClusterServers;
use crate::flow_log::{FlowLogConfig, FlowLogTarget, LogAccess, LogFormat, LoggedSessions};
use keepstate_flowlog::LogPrivacy;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// One `[[flow-log]]`; from text, its target alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "FlowLogTable")]
pub struct FlowLogEntry(pub FlowLogConfig);

/// A NAT and flow log.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct FlowLogTable {
    /// Where it goes: a file; with format = "parquet" a directory; a collector: udp://192.0.2.10:4739, tcp://192.0.2.10:4739, tls://192.0.2.10:4740; subjects of NATS: nats:flows.gw1
    to: String,
    /// How it is written. Default: json to a file and to NATS, ipfix to a collector
    format: Option<FlowLogFormat>,
    /// Which sessions are in it. Default: nat
    sessions: Option<FlowLogSessions>,
    /// Whether port blocks are in it. Default: true
    #[serde(alias = "port_blocks")]
    port_blocks: Option<bool>,
    /// Whether it has the peers of the addresses inside: whom they talked to. Default: false
    peers: Option<bool>,
    /// Whether it has the addresses inside. Default: true
    inside: Option<bool>,
    /// tls: the name that the collector's certificate must have. Default: its address
    #[serde(alias = "server_name", skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
    /// nats: the servers. Default: those of [cluster]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    servers: Vec<String>,
    /// nats: a credentials file (JWT and seed), as nsc writes it
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials: Option<PathBuf>,
    /// nats: a file with the user on its first line and the password on its second
    #[serde(alias = "user_file", skip_serializing_if = "Option::is_none")]
    user_file: Option<PathBuf>,
    /// tls, nats: certificates of the authority that signs the other end's (PEM). Default: the system's
    #[serde(alias = "ca_file", skip_serializing_if = "Option::is_none")]
    ca_file: Option<PathBuf>,
    /// tls, nats: our own certificate (PEM), if the other end asks for one
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<PathBuf>,
    /// tls, nats: its key (PEM)
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

/// How a flow log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FlowLogFormat {
    /// One JSON object a line.
    Json,
    /// RFC 7011 with the elements of RFC 8158.
    Ipfix,
    /// RFC 5424 with structured data.
    Syslog,
    /// One file an hour, in a directory; needs a keepstate built with its feature parquet.
    Parquet,
}

/// Which sessions are in a flow log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FlowLogSessions {
    /// Those that are translated.
    Nat,
    /// All.
    All,
    /// None: port blocks tell enough.
    None,
}

impl FlowLogEntry {
    /// A relative path is below `folder`.
    pub(super) fn resolve_path(&mut self, folder: &Path) {
        let servers = &mut self.0.access.servers;
        let files = [
            &mut servers.credentials,
            &mut servers.user_file,
            &mut servers.ca_file,
            &mut servers.certificate,
            &mut servers.key,
        ];
        let own = match &mut self.0.target {
            FlowLogTarget::File(path) | FlowLogTarget::Hourly(path) => Some(path),
            _ => None,
        };
        files.into_iter().flatten().chain(own).for_each(|path| *path = folder.join(&*path));
    }
}

impl FromStr for FlowLogEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<FlowLogEntry, String> {
        text.parse().map(FlowLogConfig::to).map(FlowLogEntry)
    }
}

impl TryFrom<FlowLogTable> for FlowLogEntry {
    type Error = String;

    fn try_from(table: FlowLogTable) -> Result<FlowLogEntry, String> {
        let mut log = table.config()?;
        if let Some(sessions) = table.sessions {
            log.sessions = match sessions {
                FlowLogSessions::Nat => LoggedSessions::Nat,
                FlowLogSessions::All => LoggedSessions::All,
                FlowLogSessions::None => LoggedSessions::None,
            };
        }
        log.port_blocks = table.port_blocks.unwrap_or(log.port_blocks);
        let LogPrivacy { peers, inside } = log.privacy;
        log.privacy = LogPrivacy { peers: table.peers.unwrap_or(peers), inside: table.inside.unwrap_or(inside) };
        let FlowLogTable { server_name, servers, credentials, user_file, ca_file, certificate, key, .. } = table;
        let servers = ClusterServers { addresses: servers, credentials, user_file, ca_file, certificate, key };
        log.access = LogAccess { servers, server_name };
        Ok(FlowLogEntry(log))
    }
}

impl FlowLogTable {
    /// Target and format, if they and the keys beside them fit together.
    fn config(&self) -> Result<FlowLogConfig, String> {
        let to = &self.to;
        if self.format == Some(FlowLogFormat::Parquet) {
            return match to.trim_end_matches('/').parse()? {
                FlowLogTarget::File(directory) => {
                    self.check_access("")?;
                    Ok(FlowLogConfig::to(FlowLogTarget::Hourly(directory)))
                }
                _ => Err(format!("{to}: parquet is written to a directory: to = \"/var/log/keepstate/flows\"")),
            };
        }
        let FlowLogEntry(mut log) = to.parse()?;
        if let Some(format) = self.format {
            log.format = match format {
                FlowLogFormat::Json => LogFormat::Json,
                FlowLogFormat::Ipfix => LogFormat::Ipfix,
                FlowLogFormat::Syslog => LogFormat::Syslog,
                FlowLogFormat::Parquet => LogFormat::Parquet,
            };
        }
        let scheme = match &log.target {
            FlowLogTarget::Tls(_) => "tls",
            FlowLogTarget::Subjects(_) => "nats",
            _ => "",
        };
        self.check_access(scheme)?;
        match log.target {
            FlowLogTarget::File(_) if log.format != LogFormat::Json => Err(format!(
                "{to}: a file is written as json; ipfix and syslog go to a collector: to = \"udp://192.0.2.10:4739\""
            )),
            FlowLogTarget::Subjects(_) if log.format != LogFormat::Json => {
                Err(format!("{to}: messages of NATS are written as json"))
            }
            _ => Ok(log),
        }
    }

    /// Keys that mean nothing for this target would be misread.
    fn check_access(&self, scheme: &str) -> Result<(), String> {
        let keys = [
            ("server-name", self.server_name.is_some(), &["tls"][..]),
            ("servers", !self.servers.is_empty(), &["nats"]),
            ("credentials", self.credentials.is_some(), &["nats"]),
            ("user-file", self.user_file.is_some(), &["nats"]),
            ("ca-file", self.ca_file.is_some(), &["tls", "nats"]),
            ("certificate", self.certificate.is_some(), &["tls", "nats"]),
            ("key", self.key.is_some(), &["tls", "nats"]),
        ];
        let wrong = keys.into_iter().find(|(_, is_given, schemes)| *is_given && !schemes.contains(&scheme));
        match wrong {
            None => Ok(()),
            Some((key, _, schemes)) => Err(format!(
                "{}: {key} is for {}; leave it out, or write another target",
                self.to,
                schemes
                    .iter()
                    .map(|scheme| if *scheme == "tls" { "tls://" } else { "nats:" })
                    .collect::<Vec<_>>()
                    .join(" and ")
            )),
        }
    }
}

impl From<FlowLogEntry> for FlowLogTable {
    fn from(FlowLogEntry(log): FlowLogEntry) -> FlowLogTable {
        FlowLogTable {
            to: log.target.to_string(),
            format: Some(match log.format {
                LogFormat::Json => FlowLogFormat::Json,
                LogFormat::Ipfix => FlowLogFormat::Ipfix,
                LogFormat::Syslog => FlowLogFormat::Syslog,
                LogFormat::Parquet => FlowLogFormat::Parquet,
            }),
            sessions: Some(match log.sessions {
                LoggedSessions::Nat => FlowLogSessions::Nat,
                LoggedSessions::All => FlowLogSessions::All,
                LoggedSessions::None => FlowLogSessions::None,
            }),
            port_blocks: Some(log.port_blocks),
            peers: Some(log.privacy.peers),
            inside: Some(log.privacy.inside),
            server_name: log.access.server_name,
            servers: log.access.servers.addresses,
            credentials: log.access.servers.credentials,
            user_file: log.access.servers.user_file,
            ca_file: log.access.servers.ca_file,
            certificate: log.access.servers.certificate,
            key: log.access.servers.key,
        }
    }
}
