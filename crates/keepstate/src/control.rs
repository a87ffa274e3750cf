//! `keepstate control`: sends a request to a running gateway and prints the answer.
//!
//! The command line is parsed here; the gateway gets a structured request ([`ControlRequest`], docs/control.md).
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use keepstate_conntrack::{FilterArgs, OutputArgs};
use keepstate_gateway::control_client;
use keepstate_gateway::control_protocol::{
    BackendSelector, CaptureRequest, ControlRequest, DEFAULT_SOCKET, ShowOptions, TraceRequest,
};
use keepstate_gateway::services_file::parse_backend_address;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Control a running gateway: connections, counters, rules, sysctls, services
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Control {
    /// The gateway's control socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: ControlCommand,
}

/// The requests, as subcommands.
#[derive(Clone, Debug, Subcommand)]
enum ControlCommand {
    /// List connections, as conntrack -L
    List(Box<OutputArgs>),
    /// Print the number of connections
    Count,
    /// Print counters: packets received, forwarded, dropped; those of conntrack -S; the table; each drop reason
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print events (new, update, destroy) until Ctrl-C, as conntrack -E
    Events(Box<OutputArgs>),
    /// List connections in the format of /proc/net/nf_conntrack
    Proc,
    /// Print the ruleset with its counters
    Rules,
    /// Change or list the ruleset in use with nft's commands: all of a script, or nothing
    Nft(crate::control_nft::NftArgs),
    /// Refuse new connections; existing ones are kept
    DrainAll {
        /// Accept new connections again
        #[arg(long)]
        off: bool,
        /// Return only when no connection is left
        #[arg(long, conflicts_with = "off")]
        wait: bool,
    },
    /// Print NAT port exhaustion: translated address, peer, failures
    Shortages,
    /// Print dropped packets: by reason, and by each rule and policy that drops
    Drops {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List interfaces: addresses, packets received, sent and dropped
    Interfaces {
        /// Print one JSON array
        #[arg(long)]
        json: bool,
    },
    /// List the routes that packets are forwarded by
    Routes,
    /// List the kernel's neighbours on the gateway's interfaces
    Neighbours,
    /// Capture packets as they come and as they leave, before and after translation, until Ctrl-C
    Capture(Box<CaptureArgs>),
    /// Show what happens to packets, rule by rule, until Ctrl-C
    Trace(Box<TraceArgs>),
    /// Print a sysctl: nf_conntrack_max
    Get {
        /// Its name
        #[arg(value_name = "SYSCTL")]
        sysctl: String,
    },
    /// Set a sysctl: nf_conntrack_max=100000
    Set {
        /// Its name and value
        #[arg(value_name = "SYSCTL=VALUE", value_parser = parse_assignment)]
        setting: (String, String),
    },
    /// Remove all connections
    Flush,
    /// Reload ruleset and services; connections are kept. If either has an error, nothing changes
    Reload,
    /// List services and backends: state, weight, current and total connections
    Services,
    /// Send no new connections to a backend, until undrain or the end of the gateway; existing ones are kept
    Drain(BackendArgs),
    /// Send new connections to a drained backend again
    Undrain(BackendArgs),
    /// Print what this gateway is in its cluster: role, epoch, how far behind; of several shards, for each
    Cluster {
        /// Only this shard
        #[arg(value_name = "SHARD")]
        shard: Option<String>,
        /// Exit with 1 if this gateway should not get the shard's packets: for keepalived's track_script
        #[arg(long)]
        check: bool,
        /// Take shards over from gateways that decide two more than this one, as planned changes; returns when none does
        #[arg(long, conflicts_with_all = ["shard", "check", "json"])]
        rebalance: bool,
        /// Print one JSON object a shard
        #[arg(long)]
        json: bool,
    },
    /// Make this gateway of a cluster active; returns when it is
    Promote {
        /// The shard; of several it must be given
        #[arg(value_name = "SHARD")]
        shard: Option<String>,
    },
    /// Hand this gateway's connections over and become a standby; returns when all is with the cluster
    Demote {
        /// The shard; of several it must be given
        #[arg(value_name = "SHARD")]
        shard: Option<String>,
    },
}

/// Which packets are captured, and where to.
#[derive(Args, Clone, Debug)]
struct CaptureArgs {
    /// The file to write, as pcapng: each packet as it came, with its interface, and as it left; dropped ones with the reason as comment. - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Keep so many bytes of each packet: 96 keeps the headers
    #[arg(long, value_name = "BYTES", default_value_t = 0, hide_default_value = true)]
    snaplen: u32,
    /// End after so many packets; one that is forwarded counts twice
    #[arg(short = 'c', long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Which packets are traced.
#[derive(Args, Clone, Debug)]
struct TraceArgs {
    /// Without a filter: every packet, not only those that a rule asks for with meta nftrace set 1
    #[arg(long)]
    all: bool,
    /// End after so many packets
    #[arg(short = 'c', long, value_name = "NUMBER")]
    count: Option<u64>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Which backends.
#[derive(Args, Clone, Debug)]
struct BackendArgs {
    /// ADDRESS:PORT as in the services file; without a port, all backends of that address
    #[arg(value_name = "BACKEND", value_parser = parse_backend_address)]
    backend: (IpAddr, Option<u16>),
    /// Only in this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  # the gateway's connections, as conntrack shows the kernel's
  keepstate control list -p tcp --state ESTABLISHED
  # is the table full? enlarge it at run time
  keepstate control count
  keepstate control set nf_conntrack_max=1000000
  # which rules matched, and where NAT ran out of ports
  keepstate control rules
  keepstate control shortages
  # what was dropped, and by which rule; then follow the packets of a client through the rules
  keepstate control drops
  keepstate control trace -p tcp -s 10.0.0.7 --dport 443
  # both sides of the translation, for Wireshark
  keepstate control capture broker.pcapng -p tcp --dport 8883
  keepstate control capture - -p udp --dport 53 | tcpdump -n -r -
  # ban an address, and list who is banned; a whole file of changes at once
  keepstate control nft 'add element inet filter banned { 203.0.113.9 timeout 1h }'
  keepstate control nft list set inet filter banned
  keepstate control nft -f changes.nft
  # before a stop: refuse new connections, and wait until the last one has ended
  keepstate control drain-all --wait
  # one of a cluster: who is active; hand over before maintenance
  keepstate control cluster
  keepstate control demote
  # the whole of conntrack on the gateway's table: change, delete, watch
  keepstate conntrack --gateway -E -p tcp

keepstate gateway --control creates the socket.
Exit codes: 0 success, 1 request refused or no gateway, 2 usage error";

impl Control {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.command {
            ControlCommand::List(show) if show.events || show.stats => {
                Err("list takes neither --events nor --stats: use control events, control stats".into())
            }
            ControlCommand::Events(show) if show.stats => Err("events does not take --stats: use control stats".into()),
            ControlCommand::List(show) | ControlCommand::Events(show) => show.check(),
            ControlCommand::Capture(capture) => capture.filter.check(),
            ControlCommand::Trace(trace) => trace.filter.check(),
            _ => Ok(()),
        }
    }

    /// Sends the request and prints the answer.
    ///
    /// # Errors
    /// No gateway listens, or the request is refused.
    pub fn run(&self) -> Result<ExitCode> {
        if let ControlCommand::Cluster { check: true, json, shard, .. } = &self.command {
            return self.check_cluster(*json, shard.as_ref());
        }
        if let ControlCommand::Capture(capture) = &self.command {
            let answer = control_client::send_request(&self.socket, self.command.to_request())?;
            crate::control_capture::write_capture(answer, &capture.file)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut answer = match &self.command {
            ControlCommand::Nft(nft) => nft.send(&self.socket)?,
            other => control_client::send_request(&self.socket, other.to_request())?,
        };
        if matches!(self.command, ControlCommand::Trace(_)) {
            tracing::info!("tracing; Ctrl-C ends");
        }
        copy_to_stdout(&mut answer)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Prints what the gateway is in its cluster; the exit code says whether it should get packets.
    fn check_cluster(&self, json: bool, shard: Option<&String>) -> Result<ExitCode> {
        let fetch = |json| control_client::fetch(&self.socket, ControlRequest::Cluster { json, shard: shard.cloned() });
        let document = fetch(true)?;
        if document.lines().count() > 1 {
            bail!("which shard? Each has its own gateway: write keepstate control cluster --check SHARD");
        }
        let report: serde_json::Value = serde_json::from_str(&document).context("the gateway's answer is no JSON")?;
        let text = if json { document } else { fetch(false)? };
        std::io::stdout().lock().write_all(text.as_bytes())?;
        let is_fit = report.get("fit").and_then(serde_json::Value::as_bool) == Some(true);
        Ok(if is_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl ControlCommand {
    fn to_request(&self) -> ControlRequest {
        match self {
            ControlCommand::List(show) => ControlRequest::List(to_show_options(show)),
            ControlCommand::Count => ControlRequest::Count,
            ControlCommand::Stats { json } => ControlRequest::Stats { json: *json },
            ControlCommand::Events(show) => ControlRequest::Events(to_show_options(show)),
            ControlCommand::Proc => ControlRequest::Proc,
            ControlCommand::Rules => ControlRequest::Rules,
            ControlCommand::Nft(nft) => ControlRequest::Nft(nft.options()),
            ControlCommand::DrainAll { off, wait } => ControlRequest::DrainAll { off: *off, wait: *wait },
            ControlCommand::Shortages => ControlRequest::Shortages,
            ControlCommand::Drops { json } => ControlRequest::Drops { json: *json },
            ControlCommand::Interfaces { json } => ControlRequest::Interfaces { json: *json },
            ControlCommand::Routes => ControlRequest::Routes,
            ControlCommand::Neighbours => ControlRequest::Neighbours,
            ControlCommand::Capture(capture) => {
                let CaptureArgs { snaplen, count, filter, .. } = &**capture;
                let snaplen = (*snaplen > 0).then_some(*snaplen);
                ControlRequest::Capture(CaptureRequest { filter: filter.clone(), snaplen, count: *count })
            }
            ControlCommand::Trace(trace) => {
                let TraceArgs { all, count, filter } = &**trace;
                ControlRequest::Trace(TraceRequest { filter: filter.clone(), all: *all, count: *count })
            }
            ControlCommand::Get { sysctl } => ControlRequest::Get { sysctl: sysctl.clone() },
            ControlCommand::Set { setting: (sysctl, value) } => {
                ControlRequest::Set { sysctl: sysctl.clone(), value: value.clone() }
            }
            ControlCommand::Flush => ControlRequest::Flush,
            ControlCommand::Reload => ControlRequest::Reload,
            ControlCommand::Services => ControlRequest::Services,
            ControlCommand::Drain(backend) => ControlRequest::Drain(backend.to_selector()),
            ControlCommand::Undrain(backend) => ControlRequest::Undrain(backend.to_selector()),
            ControlCommand::Cluster { rebalance: true, .. } => ControlRequest::Rebalance,
            ControlCommand::Cluster { json, shard, .. } => {
                ControlRequest::Cluster { json: *json, shard: shard.clone() }
            }
            ControlCommand::Promote { shard } => ControlRequest::Promote { shard: shard.clone() },
            ControlCommand::Demote { shard } => ControlRequest::Demote { shard: shard.clone() },
        }
    }
}

impl BackendArgs {
    fn to_selector(&self) -> BackendSelector {
        let (address, port) = self.backend;
        BackendSelector { address, port, service: self.service.clone() }
    }
}

fn to_show_options(show: &OutputArgs) -> ShowOptions {
    ShowOptions { output: show.output(), filter: show.filter.clone() }
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write SYSCTL=VALUE, like nf_conntrack_max=65536")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Prints the answer as it comes. (`std::io::copy` would let the kernel splice from socket to pipe, which keeps the pipe locked while it waits
/// for more: a reader of our output would not see the last line before the next one has come.)
fn copy_to_stdout(answer: &mut impl Read) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match answer.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.context("the gateway ended in the middle of its answer")?,
        };
        out.write_all(buffer.get(..length).unwrap_or_default())?;
        out.flush()?;
    }
}
