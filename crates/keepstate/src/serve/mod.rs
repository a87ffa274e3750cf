//! `keepstate serve`: metrics, health and a page over HTTP, of Linux's table or of a running gateway. It reads only.
pub(crate) mod facts;
mod gateway_facts;

use crate::fleet::answers::TableAnswers;
use crate::fleet::watcher::FleetWatcher;
use crate::fleet::{FleetArgs, FleetFile};
use crate::live_table::LiveTableArgs;
use crate::unit_args;
use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use facts::FactReader;
use keepstate_live::{FeedOptions, FleetBoard, LiveFeed};
use keepstate_nats::fleet::{FleetNode, NodeKind, NodeRecord};
use keepstate_serve::{Exporter, ExporterOptions, FactBoard, MetricNames};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Serve metrics, health and a live page of a connection table over HTTP, read only.
///
/// /metrics has OpenMetrics for Prometheus: entries and limit, entries by protocol and state, the kernel's counters, NAT ports, a gateway's reasons and services, doctor's
/// findings. A scrape reads what is known already and never dumps the table. / is a page that shows the table live, /fleet (with --fleet) all nodes of the fleet. /healthz answers
/// while this process runs, /readyz once the table is known.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    table: LiveTableArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Listen on this address and port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9464", value_parser = unit_args::parse_address_port)]
    listen: SocketAddr,
    /// Answer requests for this host name too; addresses and localhost are always answered. May be given several times
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Names of the metrics: ours, or also those of node_exporter, for alerts that exist
    #[arg(long, value_name = "NAMES", value_enum, default_value_t)]
    names: NamesArg,
    /// Run doctor this often; 0 never
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = unit_args::parse_interval)]
    doctor: Duration,
    /// Follow at most this many connections; further ones are counted only
    #[arg(long, value_name = "NUMBER", default_value_t = FeedOptions::default().most)]
    connections: usize,
}

/// `--names`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NamesArg {
    /// keepstate_conntrack_...
    #[default]
    Keepstate,
    /// Also node_nf_conntrack_...
    NodeExporter,
}

const EXAMPLES: &str = "\
Examples:
  # Linux's table, for a Prometheus on this machine: http://127.0.0.1:9464/metrics
  sudo keepstate serve
  # of a running gateway, reachable from the network
  keepstate serve --gateway --listen 0.0.0.0:9464 --host gateway.example.net
  # as a node of a fleet, which keepstate doctor --fleet asks; the fleet's page is at /fleet
  sudo keepstate serve --fleet
  # the table of a container, with the metric names of node_exporter
  sudo keepstate serve --netns $(pidof nginx) --names node-exporter

Linux's table needs CAP_NET_ADMIN; a gateway needs access to its control socket.
Alert rules and a Grafana dashboard: packaging/prometheus, packaging/grafana.
Exit codes: 0 ended by a signal, 1 the table or the address cannot be opened, 2 usage error,
3 no such network namespace";

/// Dumps take at most one part in so many of the time: nobody looks at single connections here.
const REFRESH_SHARE: u32 = 500;
/// How often signals are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Serve {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match self.hosts.iter().find(|host| host.is_empty() || host.contains(['/', ':', ' '])) {
            Some(host) => Err(format!("--host {host}: give a name alone, without scheme and port")),
            None => Ok(()),
        }
    }

    /// Serves until a signal comes.
    ///
    /// # Errors
    /// The table cannot be opened; the address is in use.
    pub fn run(&self) -> Result<ExitCode> {
        let fleet = self.fleet.fleet.as_deref().map(FleetFile::read).transpose()?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
        }
        let board = Arc::new(FactBoard::default());
        let for_stats = Arc::clone(&board);
        let source = self.table.source(move |document| facts::note_stats(&for_stats, document))?;
        let name = source.name().to_owned();
        let options = FeedOptions { most: self.connections, refresh_share: REFRESH_SHARE };
        let feed =
            Arc::new(LiveFeed::open(source, options).with_context(|| format!("cannot follow the table of {name}"))?);
        let options = ExporterOptions {
            listen: self.listen,
            hosts: self.hosts.clone(),
            names: match self.names {
                NamesArg::Keepstate => MetricNames::Keepstate,
                NamesArg::NodeExporter => MetricNames::NodeExporter,
            },
        };
        let fleet_board = fleet.as_ref().map(|_| Arc::new(FleetBoard::default()));
        let exporter = Exporter::start(&options, Arc::clone(&feed), Arc::clone(&board), fleet_board.clone())
            .map_err(|error| cannot_listen(self.listen, error))?;
        let watcher = match (&fleet, fleet_board) {
            (Some(fleet), Some(board)) => Some(FleetWatcher::start(fleet.clone(), board)?),
            _ => None,
        };
        let node = fleet.filter(|fleet| fleet.register);
        let node = node.map(|fleet| self.join_fleet(fleet, &feed, &board)).transpose()?;
        let reader = FactReader::start(&self.table, self.doctor, board, Arc::clone(&stop))?;
        crate::stderr::note(format!("serving {name} at http://{}/ and /metrics", exporter.address()));
        if let Some(notifier) = keepstate_linux::sd_notify::SdNotifier::from_env() {
            notifier.ready();
        }
        let mut told = None;
        while !stop.load(Ordering::Relaxed) {
            let error = feed.table().state().error.clone();
            if error != told {
                error.iter().for_each(|error| crate::stderr::note(format!("no new data: {error}")));
                told = error;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        drop(node);
        drop(watcher);
        drop(exporter);
        reader.join();
        Ok(ExitCode::SUCCESS)
    }

    /// Registers this machine in its fleet, and answers what is asked there.
    fn join_fleet(&self, fleet: FleetFile, feed: &Arc<LiveFeed>, board: &Arc<FactBoard>) -> Result<FleetNode> {
        let record = NodeRecord {
            name: fleet.node.to_string(),
            kind: if self.table.gateway.is_some() { NodeKind::Gateway } else { NodeKind::Serve },
            version: env!("CARGO_PKG_VERSION").into(),
            heard: None,
            started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        let answers = TableAnswers { table: self.table.clone(), feed: Arc::clone(feed), facts: Arc::clone(board) };
        FleetNode::start(fleet.nats, fleet.fleet, record, Arc::new(answers)).context("cannot join the fleet")
    }
}

/// What to do about an address that cannot be listened on.
fn cannot_listen(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program is there; --listen ADDRESS:PORT gives another",
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has this address; 0.0.0.0 or [::] listens on all of them"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "--listen ADDRESS:PORT gives another address",
    };
    anyhow!(error).context(format!("cannot listen on {address}: {advice}"))
}
