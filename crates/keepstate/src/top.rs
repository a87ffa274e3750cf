//! `keepstate top`: the connection table live on a terminal, of Linux or of a running gateway.
use crate::fleet::watcher::FleetWatcher;
use crate::fleet::{FleetArgs, FleetFile};
use crate::live_table::LiveTableArgs;
use crate::serve::facts::{FactReader, note_stats};
use crate::unit_args;
use anyhow::{Context, Result, anyhow};
use clap::Args;
use keepstate_conntrack::FlowSelection;
use keepstate_live::{FeedOptions, FleetBoard, LiveFeed};
use keepstate_serve::FactBoard;
use keepstate_top::{FindingLine, FleetState, TopError, TopState};
use signal_hook::consts::{SIGHUP, SIGTERM};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Show a connection table live: who fills it, how fast, until when there is room.
///
/// The table is read once and then followed by events. Keys: / filters in the words of conntrack -L, s sorts, g groups by source, service, state, zone, NAT
/// address, network namespace and container (or pod, by the cgroup of the socket), r shows why packets were dropped, d what doctor finds, Enter one connection, x deletes it after a question, space freezes, ? has them all.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    #[command(flatten)]
    table: LiveTableArgs,
    #[command(flatten)]
    fleet: FleetArgs,
    /// Begin with this filter, in the words of conntrack -L
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true, default_value = "")]
    filter: String,
    /// Run doctor this often; 0 never. With --once it is waited for, some seconds, unless it is 0
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = unit_args::parse_interval)]
    doctor: Duration,
    /// Follow at most this many connections; further ones are counted only
    #[arg(long, value_name = "NUMBER", default_value_t = FeedOptions::default().most)]
    connections: usize,
    /// Print one screen as text and end; needs no terminal
    #[arg(long)]
    once: bool,
    /// With --once: columns and rows of the screen
    #[arg(long, value_name = "COLUMNSxROWS", default_value = "100x24", value_parser = parse_size, requires = "once")]
    size: (u16, u16),
}

/// `100x24`.
fn parse_size(text: &str) -> Result<(u16, u16), String> {
    let size = text.split_once('x').and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
    size.filter(|(columns, rows)| (40..=400).contains(columns) && (10..=400).contains(rows))
        .ok_or_else(|| "give columns and rows, for instance 100x24; at least 40x10, at most 400x400".into())
}

const EXAMPLES: &str = "\
Examples:
  # Linux's table
  sudo keepstate top
  # of a running gateway, only what goes to port 443
  keepstate top --gateway --filter '-p tcp --dport 443'
  # of a container
  sudo keepstate top --netns $(pidof nginx)
  # all nodes of a fleet, the worst first, and who decides which shard
  keepstate top --fleet
  # one screen, for a report
  sudo keepstate top --once

Bytes and packets are shown where they are counted: sysctl -w net.netfilter.nf_conntrack_acct=1
(for connections that begin afterwards). NO_COLOR=1 turns colours off.
Exit codes: 0 ended by the user, 1 the table cannot be opened or there is no terminal,
2 usage error, 3 no such network namespace";

impl Top {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.fleet.fleet.is_some() {
            let others = [
                (self.table.netns.is_some(), "--netns"),
                (self.table.gateway.is_some(), "--gateway"),
                (!self.filter.is_empty(), "--filter"),
            ];
            if let Some((_, other)) = others.iter().find(|(is_given, _)| *is_given) {
                return Err(format!("--fleet shows other machines: it cannot be used with {other}"));
            }
        }
        FlowSelection::parse(&self.filter).map(drop).map_err(|error| format!("--filter: {error}"))
    }

    /// Shows the table until the user ends it.
    ///
    /// # Errors
    /// The table cannot be opened; there is no terminal.
    pub fn run(&self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot handle signals")?;
        }
        if let Some(file) = &self.fleet.fleet {
            return self.show_fleet(file, &stop);
        }
        let board = Arc::new(FactBoard::default());
        let for_stats = Arc::clone(&board);
        let source = self.table.source(move |document| note_stats(&for_stats, document))?;
        let name = source.name().to_owned();
        let options = FeedOptions { most: self.connections, ..FeedOptions::default() };
        let feed = LiveFeed::open(source, options).with_context(|| format!("cannot follow the table of {name}"))?;
        let reader = FactReader::start(&self.table, self.doctor, Arc::clone(&board), Arc::clone(&stop))?;
        let mut state = TopState::new(has_colour());
        state.set_filter(&self.filter).map_err(|error| anyhow!("--filter: {error}"))?;
        if self.once {
            let findings =
                (&(|| findings(&board)) as &keepstate_top::FindingSource<'_>, &(|| reader.has_diagnosed()) as _);
            let text = keepstate_top::screen_text(&feed, state, findings, self.size, &stop)
                .map_err(|error| anyhow!("cannot read the table of {name}: {error}"))?;
            print(&text.unwrap_or_default())?;
            stop.store(true, Ordering::Relaxed);
            reader.join();
            // The process ends, and its threads and memory with it: to free a million connections one by one would take longer.
            std::mem::forget(feed);
            return Ok(());
        }
        let shown = keepstate_top::run(&feed, state, &|| findings(&board), &stop);
        stop.store(true, Ordering::Relaxed);
        reader.join();
        shown.map_err(explain)
    }

    fn show_fleet(&self, file: &Path, stop: &AtomicBool) -> Result<()> {
        let board = Arc::new(FleetBoard::default());
        let _watcher = FleetWatcher::start(FleetFile::read(file)?, Arc::clone(&board))?;
        let state = FleetState::new(has_colour());
        if !self.once {
            return keepstate_top::run_fleet(&board, state, stop).map_err(explain);
        }
        let text = keepstate_top::fleet_screen_text(&board, state, self.size, stop).unwrap_or_default();
        let fleet = board.lock().clone();
        match fleet.error {
            // Nobody was ever asked: a page without a node would look as if there were none.
            Some(error) if fleet.nodes.is_empty() => Err(anyhow!(error)),
            _ => print(&text),
        }
    }
}

fn has_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Into::into)
}

fn explain(error: TopError) -> anyhow::Error {
    match error {
        TopError::NoTerminal(error) => {
            anyhow!("top needs a terminal ({error}). For scripts: top --once, keepstate conntrack -L, keepstate serve")
        }
        TopError::Terminal(error) => anyhow!(error).context("the terminal failed"),
    }
}

fn findings(board: &FactBoard) -> Option<Vec<FindingLine>> {
    let facts = board.lock();
    facts.diagnosed_at?;
    let lines = facts.findings.iter().map(|finding| FindingLine {
        name: finding.name.to_owned(),
        is_critical: finding.severity == "critical",
        title: finding.title.clone(),
    });
    Some(lines.collect())
}
