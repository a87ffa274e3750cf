//! `keepstate tune`: changes the knobs of a connection table, now and for good, so that it can be taken back.
//!
//! What is to be done is first a plan that a person can read; nothing else is ever done. Before the first change everything that was there
//! stands in a journal; each file is old or new at any moment, never half; what was changed is read back; and `rollback` restores it byte for byte.
//! It never flushes, and writes no file of anybody else.
mod atomic_file;
mod commands;
mod confirm_timer;
mod current_state;
mod desired_state;
mod journal;
mod paths;
mod persistent_files;
mod report;
mod sysctl_file;

use crate::shared_args;
use crate::size::demand::DemandArgs;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use keepstate_engine::sysctl_conf as sysctl;
use keepstate_gateway::unit_args;
use keepstate_linux::SysRoot;
use std::path::PathBuf;
use std::process::ExitCode;

/// Change the table's knobs, now and for good: plan, apply, verify, roll back.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Tune {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// What to do; without a word, `plan`.
#[derive(Subcommand, Debug)]
enum Action {
    /// Show what would be changed, with reason, cost and risk; nothing is written
    Plan(PlanArgs),
    /// Carry the plan out: knobs at once; with --persist also files that make it last
    Apply {
        #[command(flatten)]
        wanted: PlanArgs,
        /// Roll back by itself after this time unless `keepstate tune confirm` comes
        #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds)]
        confirm_within: Option<u64>,
    },
    /// Is everything as it was applied: knobs, files, and what the next boot would make of them?
    Verify(RootArgs),
    /// Put everything back as it was before the first apply
    Rollback {
        #[command(flatten)]
        here: RootArgs,
        /// Also what somebody else has changed since, and a limit under the present count
        #[arg(long)]
        force: bool,
    },
    /// What was applied, when, and whether it waits to be confirmed
    Status(RootArgs),
    /// Keep what was applied with --confirm-within
    Confirm(RootArgs),
    /// Waits until the time to confirm is over
    #[command(hide = true)]
    Watch {
        #[command(flatten)]
        here: RootArgs,
        /// Which apply it waits for
        #[arg(long)]
        id: String,
        /// Seconds to wait
        #[arg(long)]
        seconds: u64,
    },
}

/// Where: this machine, or the files of another.
#[derive(Args, Clone, Debug, Default)]
struct RootArgs {
    /// Work on the files below this directory instead (an image)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What is wanted, and where.
#[derive(Args, Clone, Debug)]
struct PlanArgs {
    #[command(flatten)]
    demand: DemandArgs,
    /// The limit, nf_conntrack_max
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Sysctls")]
    max: Option<u64>,
    /// The buckets [default: as many as the limit, where that is changed]
    #[arg(long, value_name = "NUMBER", value_parser = unit_args::parse_count, help_heading = "Sysctls")]
    buckets: Option<u64>,
    /// Any other knob: nf_conntrack_tcp_timeout_established=21600 (may be given several times)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = sysctl::parse_setting, help_heading = "Sysctls")]
    settings: Vec<String>,
    /// Make it last over a reboot: write files of our own below /etc
    #[arg(long)]
    persist: bool,
    /// Also lower the limit under the present count
    #[arg(long)]
    force: bool,
    /// Size for this much memory instead of this machine's
    #[arg(long, value_name = "SIZE", value_parser = shared_args::parse_size, hide = true)]
    memory: Option<u64>,
    #[command(flatten)]
    here: RootArgs,
}

const EXAMPLES: &str = "\
Examples:
  # what a broker with 300,000 clients needs here; nothing is written
  keepstate tune --profile mqtt-broker --connections 300k --keepalive 60s
  # a limit, and buckets to it, until the next boot
  sudo keepstate tune apply --max 1M
  # the same for good; it rolls back by itself unless confirmed
  sudo keepstate tune apply --max 1M --persist --confirm-within 60s
  sudo keepstate tune confirm
  # afterwards, and after a reboot
  keepstate tune verify
  sudo keepstate tune rollback
  # the files of an image
  keepstate tune apply --root ./image --persist --max 1M

What was there before stands in /var/lib/keepstate/tune until rollback.
Exit codes: 0 done, 1 refused, failed, or not as it was applied, 2 wrongly asked";

impl Tune {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.action {
            None => self.plan.check(),
            Some(Action::Plan(wanted)) => wanted.check(),
            Some(Action::Apply { wanted, confirm_within }) => {
                if confirm_within.is_some() && wanted.here.root.is_some() {
                    return Err("--confirm-within is for a running machine; the files of --root can wait".into());
                }
                wanted.check()
            }
            Some(_) => Ok(()),
        }
    }

    /// Does what was asked.
    ///
    /// # Errors
    /// What could not be read or written.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.action {
            None => commands::plan(&self.plan),
            Some(Action::Plan(wanted)) => commands::plan(wanted),
            Some(Action::Apply { wanted, confirm_within }) => commands::apply(wanted, *confirm_within),
            Some(Action::Verify(here)) => commands::verify(here),
            Some(Action::Rollback { here, force }) => commands::rollback(here, *force),
            Some(Action::Status(here)) => commands::status(here),
            Some(Action::Confirm(here)) => confirm_timer::confirm(here),
            Some(Action::Watch { here, id, seconds }) => confirm_timer::wait_and_roll_back(here, id, *seconds),
        }
    }
}

impl PlanArgs {
    fn check(&self) -> Result<(), String> {
        if self.demand.is_given() { self.demand.check() } else { Ok(()) }
    }
}

impl RootArgs {
    fn root(&self) -> Result<SysRoot> {
        match &self.root {
            None => Ok(SysRoot::live()),
            Some(directory) if directory.is_dir() => Ok(SysRoot::at(directory)),
            Some(directory) => bail!("--root {}: there is no such directory", directory.display()),
        }
    }
}
