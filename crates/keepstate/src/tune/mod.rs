//! `keepstate tune`: changes conntrack sysctls, now and at boot, so that everything can be rolled back.
//!
//! Everything is first a plan that a person can read; nothing else is ever done. What was there before is in a journal before the
//! first change; `rollback` restores it byte for byte. It never flushes the table, and writes only files of its own.
mod args;
mod commands;
mod confirm_timer;
mod desired_state;
mod text_report;

use crate::unit_args;
use anyhow::Result;
use args::{PlanArgs, RootArgs};
use clap::{Args, Subcommand};
use std::process::ExitCode;

/// Change conntrack sysctls, now and at boot: plan, apply, verify, roll back.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Tune {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    plan: PlanArgs,
}

/// The subcommands; `plan` is the default.
#[derive(Subcommand, Debug)]
enum Action {
    /// Show what would change, with reason, cost and risk; writes nothing
    Plan(PlanArgs),
    /// Apply the plan: sysctls now; with --persist also files for the next boot
    Apply {
        #[command(flatten)]
        wanted: PlanArgs,
        /// Roll back after this time unless `keepstate tune confirm` is run
        #[arg(long, value_name = "TIME", value_parser = unit_args::parse_seconds)]
        confirm_within: Option<u64>,
    },
    /// Check that sysctls, files and the next boot are as applied
    Verify(RootArgs),
    /// Restore everything as it was before the first apply
    Rollback {
        #[command(flatten)]
        here: RootArgs,
        /// Also overwrite later changes of other programs, and lower the limit below the current count
        #[arg(long)]
        force: bool,
    },
    /// Show what was applied, when, and whether it must still be confirmed
    Status(RootArgs),
    /// Keep what was applied with --confirm-within
    Confirm(RootArgs),
    /// Wait until the time to confirm is over
    #[command(hide = true)]
    Watch {
        #[command(flatten)]
        here: RootArgs,
        /// The apply to wait for
        #[arg(long)]
        id: String,
        /// Seconds to wait
        #[arg(long)]
        seconds: u64,
    },
}

const EXAMPLES: &str = "\
Examples:
  # what a broker with 300,000 clients needs here; writes nothing
  keepstate tune --profile mqtt-broker --connections 300k --keepalive 60s
  # set the limit and the buckets until the next boot
  sudo keepstate tune apply --max 1M
  # the same for good; rolls back after 60 s unless confirmed
  sudo keepstate tune apply --max 1M --persist --confirm-within 60s
  sudo keepstate tune confirm
  # afterwards, and after a reboot
  keepstate tune verify
  sudo keepstate tune rollback
  # the files of an image
  keepstate tune apply --root ./image --persist --max 1M

The previous values are kept in /var/lib/keepstate/tune until rollback.
Exit codes: 0 done, 1 refused, failed, or not as applied, 2 usage error";

impl Tune {
    /// Checks that the options fit together.
    ///
    /// # Errors
    /// What does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match &self.action {
            None => self.plan.check(),
            Some(Action::Plan(wanted)) => wanted.check(),
            Some(Action::Apply { wanted, confirm_within }) => {
                if confirm_within.is_some() && wanted.here.root.is_some() {
                    return Err("--confirm-within needs a running machine: it cannot be used with --root".into());
                }
                wanted.check()
            }
            Some(_) => Ok(()),
        }
    }

    /// Runs the subcommand.
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
