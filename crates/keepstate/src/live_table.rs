//! `--netns` and `--gateway` of the commands that follow a table live, and how a gateway is followed.
use crate::netns_arg::find_netns;
use anyhow::{Context, Result};
use clap::Args;
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{ControlRequest, DEFAULT_SOCKET};
use keepstate_linux::netlink::NetlinkSocket;
use keepstate_live::{SourceSettings, TableSource};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which table.
#[derive(Args, Clone, Debug, Default)]
pub struct LiveTableArgs {
    /// The table of this network namespace: a name from `ip netns`, or a process id
    #[arg(long, value_name = "NAME or PID", conflicts_with = "gateway")]
    pub netns: Option<String>,
    /// A running keepstate gateway, by its control socket
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = DEFAULT_SOCKET)]
    pub gateway: Option<PathBuf>,
}

/// How long a gateway may take to answer a request.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(10);

impl LiveTableArgs {
    /// The table, to be followed. `stats` gets a gateway's counters each time that they are read.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn source(&self, stats: impl Fn(&Value) + Send + Sync + 'static) -> Result<TableSource> {
        let Some(socket) = self.gateway.clone() else {
            let netns = self.netns.as_deref().map(find_netns).transpose()?;
            return Ok(TableSource::kernel(netns));
        };
        let (for_open, for_settings) = (socket.clone(), socket.clone());
        Ok(TableSource::other(
            format!("gateway {}", socket.display()),
            move || open_session(&for_open),
            move || SourceSettings { accounting: accounting(&for_settings), events: Some(true) },
            move || {
                let document = fetch_stats(&socket).map_err(io_error)?;
                stats(&document);
                Ok(reasons(&document))
            },
        ))
    }
}

/// A ctnetlink session that does not wait for ever for a gateway that hangs.
fn open_session(socket: &Path) -> io::Result<NetlinkSocket> {
    let stream = control_client::open_ctnetlink(socket).map_err(io_error)?;
    stream.set_read_timeout(Some(GATEWAY_TIMEOUT))?;
    Ok(NetlinkSocket::over_stream(stream))
}

/// A gateway's counters, as one JSON object.
fn fetch_stats(socket: &Path) -> Result<Value> {
    let text = control_client::fetch(socket, ControlRequest::Stats { json: true })?;
    serde_json::from_str(&text).context("the gateway's counters are not JSON")
}

fn reasons(document: &Value) -> Vec<(String, u64)> {
    let reasons = document.get("reasons").and_then(Value::as_object);
    reasons.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect()
}

fn accounting(socket: &Path) -> Option<bool> {
    let request = ControlRequest::Get { sysctl: "nf_conntrack_acct".into() };
    control_client::fetch(socket, request).ok()?.trim().parse::<u64>().ok().map(|value| value != 0)
}

fn io_error(error: anyhow::Error) -> io::Error {
    io::Error::other(format!("{error:#}"))
}
