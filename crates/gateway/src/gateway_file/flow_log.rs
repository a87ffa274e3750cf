//! One `[[flow-log]]`: a NAT and flow log.
use crate::flow_log::{FlowLogConfig, FlowLogTarget, LogFormat, LoggedSessions};
use keepstate_flowlog::LogPrivacy;
use serde::{Deserialize, Serialize};
use std::path::Path;
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
    /// Where it goes: a file, or a collector: udp://192.0.2.10:4739, tcp://192.0.2.10:4739
    to: String,
    /// How it is written. Default: json to a file, ipfix to a collector
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
        if let FlowLogTarget::File(path) = &mut self.0.target {
            *path = folder.join(&*path);
        }
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
        let FlowLogEntry(mut log) = table.to.parse()?;
        if let Some(format) = table.format {
            log.format = match format {
                FlowLogFormat::Json => LogFormat::Json,
                FlowLogFormat::Ipfix => LogFormat::Ipfix,
                FlowLogFormat::Syslog => LogFormat::Syslog,
            };
        }
        if matches!(log.target, FlowLogTarget::File(_)) && log.format != LogFormat::Json {
            return Err(format!(
                "{}: a file is written as json; ipfix and syslog go to a collector: to = \"udp://192.0.2.10:4739\"",
                table.to
            ));
        }
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
        Ok(FlowLogEntry(log))
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
            }),
            sessions: Some(match log.sessions {
                LoggedSessions::Nat => FlowLogSessions::Nat,
                LoggedSessions::All => FlowLogSessions::All,
                LoggedSessions::None => FlowLogSessions::None,
            }),
            port_blocks: Some(log.port_blocks),
            peers: Some(log.privacy.peers),
            inside: Some(log.privacy.inside),
        }
    }
}
