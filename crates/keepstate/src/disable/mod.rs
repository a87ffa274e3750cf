//! `keepstate disable`: may connection tracking be turned off here, and if not all of it, for which services?
//!
//! By default it only looks. `--ports` writes a file of rules, `--apply` loads it, `--remove` takes it away; `--unload` says what to
//! type. It never flushes a table, never deletes an entry, never unloads a module by itself.
mod mgmt_port;
mod notrack_plan;
mod notrack_ruleset;
mod output;
mod report;
mod rule_conflict;
mod rule_walk;
mod service;
mod unload;
mod verdict;

use crate::stderr::note;
use anyhow::{Context, Result};
use clap::Args;
use keepstate_linux::ct_users::CtUserAudit;
use keepstate_linux::netns;
use mgmt_port::MgmtPort;
use serde_json::json;
use service::ServicePort;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing::debug;
use unload::{UnloadPlan, plan_unload};
use verdict::DisableVerdict;

/// May connection tracking be turned off here? Finds who depends on it; keeps single services out of it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Disable {
    /// Print nftables rules that keep these services from being tracked: tcp/1883,tcp/8883
    #[arg(long, value_name = "PROTOCOL/PORT", value_delimiter = ',')]
    ports: Vec<ServicePort>,
    /// Only their connections to this machine: what it forwards, and its own to such ports elsewhere, stay tracked
    #[arg(long, requires = "ports")]
    server_only: bool,
    /// Keep this service reachable when the table is full: PROTOCOL/PORT, or none [default: the SSH session's]
    #[arg(long, value_name = "SERVICE", requires = "ports", value_parser = mgmt_port::parse)]
    lifeline: Option<MgmtPort>,
    /// Write the rules to this file instead of standard output
    #[arg(short = 'o', long = "output", value_name = "FILE.nft", requires = "ports")]
    file: Option<PathBuf>,
    /// Load the rules now, all or none, as table inet keepstate_notrack; again replaces them
    #[arg(long, requires = "ports")]
    apply: bool,
    /// Take table inet keepstate_notrack away again
    #[arg(long, conflicts_with_all = ["ports", "unload", "json"])]
    remove: bool,
    /// Say how to unload the module and keep it away; refused unless nothing at all depends on it
    #[arg(long, conflicts_with_all = ["ports", "netns"])]
    unload: bool,
    /// Only this network namespace: its name, or the number of a process in it
    #[arg(long, value_name = "NAME")]
    netns: Option<String>,
    /// Go on although rules may be in the way; one that translates a port by name is never passed over
    #[arg(long, requires = "ports")]
    force: bool,
    /// Look into so many network namespaces at most
    #[arg(long, value_name = "NUMBER", default_value_t = 1024)]
    namespaces: usize,
    /// One document for programs, of schema keepstate.disable/1
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  # who depends on connection tracking, in every network namespace
  sudo keepstate disable
  # rules that keep an MQTT broker out of it, to read first
  sudo keepstate disable --ports tcp/1883,tcp/8883 -o notrack.nft
  # load them now, with SSH kept reachable; and take them away
  sudo keepstate disable --ports tcp/1883,tcp/8883 --lifeline tcp/22 --apply
  sudo keepstate disable --remove
  # in another namespace
  sudo keepstate disable --netns broker --ports tcp/1883 --server-only
  # how to get rid of the module
  sudo keepstate disable --unload

Without --apply and --remove nothing is changed. What could not be looked at is
part of the answer: without root, that is most of it.
Exit codes: 0 it may be turned off, or was done; 1 something is in the way;
2 wrongly asked; 3 not enough could be seen";

impl Disable {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user: what does not fit, and what to do.
    pub fn check(&self) -> Result<(), String> {
        if self.namespaces == 0 {
            return Err("--namespaces 0 would look at nothing: give at least 1".into());
        }
        if self.json && self.file.is_some() {
            return Err("the document of --json holds the rules: leave out -o, or --json".into());
        }
        Ok(())
    }

    /// Looks, and does what was asked.
    ///
    /// # Errors
    /// What could not be read, written or loaded.
    pub fn run(&self) -> Result<ExitCode> {
        if self.remove {
            return notrack_plan::run_remove(self);
        }
        if !self.ports.is_empty() {
            return notrack_plan::run_ports(self);
        }
        let only = match &self.netns {
            Some(name) => {
                let hint = || {
                    format!(
                        "no network namespace {name:?}: `ip netns` lists the names, and a process number does as well"
                    )
                };
                Some(netns::find(name).with_context(hint)?)
            }
            None => None,
        };
        debug!("looking for who depends on connection tracking");
        let audit = CtUserAudit::run(only.as_ref(), self.namespaces)?;
        let verdict = DisableVerdict::from_audit(&audit);
        debug!("{} namespaces, {} things found", audit.namespaces.len(), audit.ct_users().count());
        if self.unload {
            return self.unload(&audit, verdict);
        }
        match self.json {
            true => output::print_json(&report::json(&audit, verdict))?,
            false => output::print_text(&report::text(&audit, verdict))?,
        }
        Ok(ExitCode::from(verdict.exit_code()))
    }

    fn unload(&self, audit: &CtUserAudit, verdict: DisableVerdict) -> Result<ExitCode> {
        let unload = plan_unload(audit, verdict);
        let code = match &unload {
            UnloadPlan::Absent | UnloadPlan::Commands(_) => 0,
            UnloadPlan::Refused { unknown: true, .. } => 3,
            UnloadPlan::Refused { .. } => 1,
        };
        if self.json {
            let mut document = report::json(audit, verdict);
            document["unload"] = match &unload {
                UnloadPlan::Absent => json!({ "refused": null, "commands": [] }),
                UnloadPlan::Refused { why, .. } => json!({ "refused": why, "commands": [] }),
                UnloadPlan::Commands(commands) => json!({ "refused": null, "commands": commands }),
            };
            output::print_json(&document)?;
            return Ok(ExitCode::from(code));
        }
        match unload {
            UnloadPlan::Absent => output::print_text("nf_conntrack is not loaded: there is nothing to unload.\n")?,
            UnloadPlan::Commands(commands) => {
                let head = "# Nothing depends on connection tracking. The first line unloads it, what follows keeps it away.\n";
                output::print_text(&format!("{head}{}\n", commands.join("\n")))?;
            }
            UnloadPlan::Refused { why, .. } => {
                output::print_text(&report::text(audit, verdict))?;
                note(format!("unloading is refused: {why}"));
            }
        }
        Ok(ExitCode::from(code))
    }
}
