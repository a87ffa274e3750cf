//! The control protocol: a line of JSON each way, then text or ctnetlink messages. docs/control.md describes it for programs.
//!
//! Plain types, for client and server alike; nothing here reads a command line.
pub use keepstate_conntrack::FilterArgs;
pub use keepstate_conntrack::format::OutputOptions;

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::net::IpAddr;

/// The version of the protocol.
pub const PROTOCOL_VERSION: u32 = 2;
/// The default path of the socket.
pub const DEFAULT_SOCKET: &str = "/run/keepstate/gateway.sock";
/// The value of [`RequestLine::speak`] for ctnetlink messages.
pub const CTNETLINK: &str = "ctnetlink";

/// The first line that a client sends: a request, or the protocol that follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLine {
    /// The protocol's version.
    pub v: u32,
    /// What is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<ControlRequest>,
    /// Instead of a request: the messages that follow, [`CTNETLINK`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speak: Option<String>,
}

/// The first line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyLine {
    /// The protocol's version.
    pub v: u32,
    /// Why the request failed; none if it was carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the client's user should know besides: a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlRequest {
    /// The connections, as `conntrack -L` prints them.
    List(ShowOptions),
    /// The number of connections.
    Count,
    /// The counters.
    Stats {
        /// As one JSON object.
        #[serde(default)]
        json: bool,
    },
    /// The connections as they begin, change and end, until the client hangs up.
    Events(ShowOptions),
    /// The connections in the format of `/proc/net/nf_conntrack`.
    Proc,
    /// The ruleset with its counters.
    Rules,
    /// nft's commands on the ruleset in use.
    Nft(NftRequest),
    /// Whether new connections are refused.
    DrainAll {
        /// Accept new connections again.
        #[serde(default)]
        off: bool,
        /// Answer only when no connection is left.
        #[serde(default)]
        wait: bool,
    },
    /// NAT port exhaustion, by translated address and peer.
    Shortages,
    /// Dropped packets: by reason, and by rule and policy.
    Drops {
        /// As one JSON object.
        #[serde(default)]
        json: bool,
    },
    /// Interfaces with addresses and packets.
    Interfaces {
        /// As one JSON array.
        #[serde(default)]
        json: bool,
    },
    /// The routes in use.
    Routes,
    /// The kernel's neighbours on the gateway's interfaces.
    Neighbours,
    /// Packets as they come and as they leave, as pcapng, until the client hangs up.
    Capture(CaptureRequest),
    /// What happens to packets, rule by rule, until the client hangs up.
    Trace(TraceRequest),
    /// The value of a sysctl.
    Get {
        /// Its name, such as `nf_conntrack_max`.
        sysctl: String,
    },
    /// Sets a sysctl.
    Set {
        /// Its name.
        sysctl: String,
        /// Its value, as sysctl(8) takes it.
        value: String,
    },
    /// Removes all connections.
    Flush,
    /// Loads ruleset and services again.
    Reload,
    /// The services and their backends.
    Services,
    /// A backend gets no new connections.
    Drain(BackendSelector),
    /// A drained backend gets new connections again.
    Undrain(BackendSelector),
    /// This gateway's shards of a cluster.
    Cluster {
        /// As a JSON object a shard.
        #[serde(default)]
        json: bool,
        /// Only this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard: Option<String>,
    },
    /// This gateway takes shards over until none has two more than it.
    Rebalance,
    /// This gateway becomes active.
    Promote {
        /// The shard, if it is to be checked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard: Option<String>,
    },
    /// This gateway hands its shard over and becomes a standby.
    Demote {
        /// The shard, if it is to be checked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shard: Option<String>,
    },
}

/// Which connections, in which format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShowOptions {
    /// The format.
    pub output: OutputOptions,
    /// Which connections.
    pub filter: FilterArgs,
}

/// Which packets are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureRequest {
    /// Those of which connections.
    pub filter: FilterArgs,
    /// So many bytes of each, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// So many records, at most: a packet that is forwarded makes two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Which packets are traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceRequest {
    /// Those of which connections. Without a filter those that a rule asks for (`meta nftrace set 1`).
    pub filter: FilterArgs,
    /// Without a filter: every packet.
    pub all: bool,
    /// So many packets, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A script of nft's commands, carried out completely or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NftRequest {
    /// The script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<NftScript>,
    /// Instead of `script`: it follows the line, as JSON of this many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
    /// Listings show handles.
    pub handles: bool,
    /// What was added is listed.
    pub echo: bool,
    /// Listings leave out the elements of sets.
    pub terse: bool,
    /// Listings leave out counters.
    pub stateless: bool,
    /// The script is checked, and changes nothing.
    pub check: bool,
    /// Listings are JSON; a script that begins with a brace is a document of commands.
    pub json: bool,
}

/// The text of a script, and the texts that it includes: the gateway opens no file for a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NftScript {
    /// Its name in messages.
    pub name: String,
    /// Its text.
    pub text: String,
    /// What `include` finds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<IncludedText>,
}

/// What one `include` finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncludedText {
    /// Name of the text that includes.
    pub from: String,
    /// What is written behind `include`.
    pub pattern: String,
    /// Names and texts.
    pub files: Vec<(String, String)>,
}

/// Which backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendSelector {
    /// Their address.
    pub address: IpAddr,
    /// Their port; none for every backend of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Only those of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// What a client's first line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there is one for each connection, for a moment")]
pub enum ClientHello {
    /// This.
    Request(ControlRequest),
    /// Frames of ctnetlink messages follow.
    Ctnetlink,
}

/// The part of a first line that every version has.
#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// Parses a client's first line.
///
/// # Errors
/// A sentence for the client: what is wrong, and what to do.
pub fn parse_request_line(line: &[u8]) -> Result<ClientHello, String> {
    let VersionOnly { v } = serde_json::from_slice(line).map_err(|error| {
        format!("invalid request: {error}. The first line is JSON, such as {{\"v\":{PROTOCOL_VERSION},\"request\":\"count\"}}")
    })?;
    if v != PROTOCOL_VERSION {
        return Err(format!(
            "unsupported protocol version {v}: this gateway speaks version {PROTOCOL_VERSION}; use the keepstate version that it was started with"
        ));
    }
    let line: RequestLine = serde_json::from_slice(line)
        .map_err(|error| format!("invalid request of version {PROTOCOL_VERSION}: {error}"))?;
    match (line.request, line.speak) {
        (Some(request), None) => request.check().map(|()| ClientHello::Request(request)),
        (None, Some(speak)) if speak == CTNETLINK => Ok(ClientHello::Ctnetlink),
        (None, Some(speak)) => Err(format!("unknown protocol {speak:?}: this gateway speaks {CTNETLINK:?}")),
        _ => Err("invalid request: send either \"request\" or \"speak\"".into()),
    }
}

impl ControlRequest {
    /// Do its options fit together?
    fn check(&self) -> Result<(), String> {
        match self {
            ControlRequest::List(show) | ControlRequest::Events(show) => show.filter.check(),
            ControlRequest::Capture(CaptureRequest { filter, .. }) => filter.check(),
            ControlRequest::Trace(TraceRequest { filter, .. }) => filter.check(),
            ControlRequest::Nft(nft) if nft.script.is_some() == nft.length.is_some() => {
                Err("nft: send either script or length".into())
            }
            ControlRequest::DrainAll { off: true, wait: true } => {
                Err("drain-all: off and wait exclude each other".into())
            }
            _ => Ok(()),
        }
    }
}

/// Writes the line that an answer begins with.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_reply_line(out: &mut impl Write, error: Option<String>) -> anyhow::Result<()> {
    write_reply_line_with(out, error, Vec::new())
}

/// As [`write_reply_line`], with notes.
///
/// # Errors
/// Those of the writer.
pub(crate) fn write_reply_line_with(
    out: &mut impl Write,
    error: Option<String>,
    notes: Vec<String>,
) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(&ReplyLine { v: PROTOCOL_VERSION, error, notes })?;
    line.push(b'\n');
    Ok(out.write_all(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<ClientHello, String> {
        parse_request_line(line.as_bytes())
    }

    #[test]
    fn every_request_survives_json() {
        let show =
            ShowOptions { output: OutputOptions::parse("extended,id").unwrap(), filter: FilterArgs::of_protocol(6) };
        let backend = BackendSelector { address: [10, 0, 0, 1].into(), port: Some(80), service: Some("web".into()) };
        let requests = [
            ControlRequest::List(show.clone()),
            ControlRequest::Count,
            ControlRequest::Stats { json: true },
            ControlRequest::Events(show),
            ControlRequest::Proc,
            ControlRequest::Rules,
            ControlRequest::Nft(NftRequest { script: Some(NftScript::default()), echo: true, ..NftRequest::default() }),
            ControlRequest::DrainAll { off: false, wait: true },
            ControlRequest::Shortages,
            ControlRequest::Drops { json: true },
            ControlRequest::Interfaces { json: false },
            ControlRequest::Routes,
            ControlRequest::Neighbours,
            ControlRequest::Capture(CaptureRequest {
                filter: FilterArgs::of_protocol(17),
                snaplen: Some(96),
                count: Some(10),
            }),
            ControlRequest::Trace(TraceRequest { all: true, ..TraceRequest::default() }),
            ControlRequest::Get { sysctl: "nf_conntrack_max".into() },
            ControlRequest::Set { sysctl: "nf_conntrack_max".into(), value: "5".into() },
            ControlRequest::Flush,
            ControlRequest::Reload,
            ControlRequest::Services,
            ControlRequest::Drain(backend.clone()),
            ControlRequest::Undrain(backend),
            ControlRequest::Cluster { json: true, shard: None },
            ControlRequest::Cluster { json: false, shard: Some("north".into()) },
            ControlRequest::Rebalance,
            ControlRequest::Promote { shard: Some("main".into()) },
            ControlRequest::Demote { shard: None },
        ];
        for request in requests {
            let line = RequestLine { v: PROTOCOL_VERSION, request: Some(request.clone()), speak: None };
            let json = serde_json::to_string(&line).unwrap();
            assert_eq!(parse(&json), Ok(ClientHello::Request(request)), "{json}");
        }
    }

    /// The lines of docs/control.md.
    #[test]
    fn documented_lines_are_understood() {
        assert_eq!(parse(r#"{"v":2,"request":"count"}"#), Ok(ClientHello::Request(ControlRequest::Count)));
        assert_eq!(
            parse(r#"{"v":2,"request":{"list":{"filter":{"protocol":6}}},"later":1}"#),
            Ok(ClientHello::Request(ControlRequest::List(ShowOptions {
                filter: FilterArgs::of_protocol(6),
                ..ShowOptions::default()
            })))
        );
        assert_eq!(
            parse(r#"{"v":2,"request":{"stats":{}}}"#),
            Ok(ClientHello::Request(ControlRequest::Stats { json: false }))
        );
        assert_eq!(parse(r#"{"v":2,"speak":"ctnetlink"}"#), Ok(ClientHello::Ctnetlink));
    }

    #[test]
    fn invalid_lines_are_explained() {
        for (line, expected) in [
            ("GET / HTTP/1.1", "invalid request"),
            (r#"{"v":1,"words":["count"]}"#, "unsupported protocol version 1"),
            (r#"{"v":2}"#, "either \"request\" or \"speak\""),
            (r#"{"v":2,"request":"count","speak":"ctnetlink"}"#, "either \"request\" or \"speak\""),
            (r#"{"v":2,"speak":"grpc"}"#, "unknown protocol \"grpc\""),
            (r#"{"v":2,"request":"cuont"}"#, "`count`"),
            (r#"{"v":2,"request":{"list":{"filtre":{}}}}"#, "filtre"),
            (r#"{"v":2,"request":{"list":{"filter":{"source_port":5}}}}"#, "--sport"),
            (r#"{"v":2,"request":{"drain-all":{"off":true,"wait":true}}}"#, "exclude each other"),
        ] {
            assert!(parse(line).is_err_and(|error| error.contains(expected)), "{line}: {:?}", parse(line));
        }
    }
}
