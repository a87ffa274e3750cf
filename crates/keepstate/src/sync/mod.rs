//! `keepstate sync`: Linux's own table on more than one machine, and what a person or keepalived says to the running one.
mod report;
mod request;
mod sync_file;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use keepstate_cluster::NodeInstance;
use keepstate_linux::SysRoot;
use keepstate_linux::addresses::local_addresses;
use keepstate_sync::{SyncNode, SyncOptions};
use report::SyncReport;
use request::{RequestServer, SyncAnswer, SyncRequest};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use sync_file::SyncFile;

/// Carry Linux's connection table to the machine that takes over (what conntrackd does), over NATS
///
/// Each machine of a pair runs it. The active one sends its kernel's entries as they come, change and go; the others hold them in memory. A machine that becomes active enters what it holds into its
/// kernel's table, so established connections go on there, and sends from then on. Who is active: the holder of a lease, or whom keepalived or a person promotes (lease = "manual").
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Sync {
    #[command(subcommand)]
    command: Option<SyncCommand>,
    /// The file that names the cluster and its NATS servers: its table [cluster] is that of a gateway's file
    #[arg(long, value_name = "FILE", default_value = "/etc/keepstate/sync.toml")]
    config: PathBuf,
    /// Where promote, demote and status are answered
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Read the whole table this often while active: Linux tells nothing of entries made while nobody listened
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::unit_args::parse_interval)]
    read_interval: Duration,
}

const DEFAULT_SOCKET: &str = "/run/keepstate/sync.sock";

/// What is said to the running one.
#[derive(Debug, Subcommand)]
enum SyncCommand {
    /// Make this machine active: what it holds is in the kernel's table when the command returns
    Promote(SocketArgs),
    /// Hand over: returns when the others have all that this machine had
    Demote(SocketArgs),
    /// Show role, lag and entries
    Status {
        #[command(flatten)]
        socket: SocketArgs,
        /// As one line of JSON
        #[arg(long)]
        json: bool,
        /// Print nothing if this machine is active, or a standby that misses nothing; otherwise exit code 1. For keepalived's track_script
        #[arg(long)]
        check: bool,
    },
}

#[derive(Args, Debug)]
struct SocketArgs {
    /// Where the running one answers
    #[arg(long, value_name = "SOCKET", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  # /etc/keepstate/sync.toml, on both machines:
  #   version = 1
  #   [cluster]
  #   node = \"fw1\"                         # fw2 on the other
  #   servers = [\"nats://10.9.0.5:4222\"]
  #   lease = \"manual\"                     # keepalived decides
  #   address = [\"192.0.2.1\"]              # what moves; other own addresses are not carried
  sudo keepstate sync
  # keepalived: notify_master, notify_backup and track_script
  keepstate sync promote
  keepstate sync demote
  keepstate sync status --check

The kernel checks no TCP windows of entries that were taken over.
Exit codes: 0 ended by a signal, or done; 1 not done, with the reason; 2 usage error";

/// How long it waits for something to happen: milliseconds. Leases and heartbeats are due every few.
const WAIT_MS: i32 = 5;
/// How long a promotion or a handover may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

impl Sync {
    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.read_interval < Duration::from_secs(1) {
            return Err("--read-interval is at least 1s: the whole table is read each time".into());
        }
        Ok(())
    }

    /// Runs the command.
    ///
    /// # Errors
    /// What cannot be opened, read or reached.
    pub fn run(self) -> Result<ExitCode> {
        match &self.command {
            None => self.serve(),
            Some(SyncCommand::Promote(args)) => request::ask(&args.socket, SyncRequest::Promote),
            Some(SyncCommand::Demote(args)) => request::ask(&args.socket, SyncRequest::Demote),
            Some(SyncCommand::Status { socket, json, check }) => {
                let wanted = match (check, json) {
                    (true, _) => SyncRequest::Check,
                    (false, true) => SyncRequest::Json,
                    (false, false) => SyncRequest::Status,
                };
                request::ask(&socket.socket, wanted)
            }
        }
    }

    fn serve(&self) -> Result<ExitCode> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
        }
        let file = SyncFile::read(&self.config)?;
        let shared = &file.cluster.first_shard.addresses;
        let own = local_addresses(&SysRoot::live()).context("the addresses of this machine")?;
        let options = SyncOptions {
            shard: file.cluster.first_shard.name.clone(),
            node: file.cluster.node.clone(),
            instance: NodeInstance(
                getrandom::u64().map_err(|error| anyhow::anyhow!("the kernel gives no random numbers: {error}"))?,
            ),
            decider: file.cluster.decider,
            // The machine's own connections are nobody else's.
            ignored: own.into_iter().filter(|address| !shared.iter().any(|range| range.contains(address))).collect(),
            stored_epoch: file.stored_epoch()?,
            read_interval: self.read_interval,
            event_buffer: EVENT_BUFFER,
        };
        let requests = RequestServer::bind(&self.socket)?;
        let begun = Instant::now();
        let mut node = SyncNode::new(options, file.transport()?, file.epoch_store(), begun.elapsed())?;
        tracing::info!(
            "{} is a standby of shard {} of {}",
            file.cluster.node,
            file.cluster.first_shard.name,
            file.cluster.cluster
        );
        let mut serving = Serving { file, requests, waiting: Vec::new() };
        while !stop.load(Ordering::Relaxed) {
            let is_busy = node.turn(begun.elapsed())?;
            serving.answer(&mut node, begun.elapsed());
            if !is_busy {
                node.wait([serving.requests.as_fd()], WAIT_MS)?;
            }
        }
        serving.hand_over(&mut node, begun)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Bytes of events that the kernel keeps.
const EVENT_BUFFER: usize = 8 << 20;

struct Serving {
    file: SyncFile,
    requests: RequestServer,
    /// Who waits for a change of the role, and until when.
    waiting: Vec<(SyncRequest, SyncAnswer, Duration)>,
}

impl Serving {
    fn answer(&mut self, node: &mut SyncNode, now: Duration) {
        while let Some((request, answer)) = self.requests.poll() {
            let done = match request {
                SyncRequest::Promote => node.promote(now),
                SyncRequest::Demote => node.demote(now),
                SyncRequest::Status | SyncRequest::Json | SyncRequest::Check => {
                    let report = SyncReport::new(&self.file.cluster, node);
                    match request {
                        SyncRequest::Json => answer.send(&Ok(report.json())),
                        SyncRequest::Check => answer.send(&report.check()),
                        _ => answer.send(&Ok(report.text())),
                    }
                    continue;
                }
            };
            match done {
                Ok(()) => self.waiting.push((request, answer, now.saturating_add(CHANGE_TIMEOUT))),
                Err(error) => answer.send(&Err(format!("shard {}: {error}", self.file.cluster.first_shard.name))),
            }
        }
        let report = SyncReport::new(&self.file.cluster, node);
        self.waiting.retain_mut(|(request, answer, deadline)| {
            let outcome = match request {
                SyncRequest::Promote => report.promoted(node.is_ready(), now >= *deadline),
                _ => report.demoted(now >= *deadline),
            };
            outcome.inspect(|outcome| answer.send(outcome)).is_none()
        });
    }

    /// Whoever ends while it is active gives the others what it has.
    fn hand_over(&mut self, node: &mut SyncNode, begun: Instant) -> Result<()> {
        if node.demote(begun.elapsed()).is_err() {
            return Ok(());
        }
        let deadline = begun.elapsed() + HANDOVER_TIMEOUT;
        while SyncReport::new(&self.file.cluster, node).is_handing_over() && begun.elapsed() < deadline {
            if !node.turn(begun.elapsed())? {
                node.wait([], WAIT_MS)?;
            }
        }
        Ok(())
    }
}

/// How long one that ends waits until the others have all.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);
