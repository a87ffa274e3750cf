//! `keepstate disable`: can connection tracking be turned off here, or at least for single services?
//!
//! By default it only checks. `--ports` writes a file of rules, `--apply` loads it, `--remove` removes it; `--unload` prints commands.
//! It never flushes a table, never deletes an entry, never unloads a module itself.
mod args;
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

pub use args::Disable;

use crate::netns_arg::find_netns;
use crate::stderr::note;
use anyhow::Result;
use keepstate_linux::ct_users::CtUserAudit;
use serde_json::json;
use std::process::ExitCode;
use tracing::debug;
use unload::{UnloadPlan, plan_unload};
use verdict::DisableVerdict;

impl Disable {
    /// Checks, and does what the options say.
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
        let only = self.netns.as_deref().map(find_netns).transpose()?;
        debug!("looking for users of connection tracking");
        let audit = CtUserAudit::run(only.as_ref(), self.namespaces)?;
        let verdict = DisableVerdict::from_audit(&audit);
        debug!("namespaces {}, users of connection tracking {}", audit.namespaces.len(), audit.ct_users().count());
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
            UnloadPlan::Absent => output::print_text("nf_conntrack is not loaded: nothing to unload.\n")?,
            UnloadPlan::Commands(commands) => {
                let head = "# Nothing depends on connection tracking. The first command unloads it, the others keep it unloaded.\n";
                output::print_text(&format!("{head}{}\n", commands.join("\n")))?;
            }
            UnloadPlan::Refused { why, .. } => {
                output::print_text(&report::text(audit, verdict))?;
                note(format!("unload refused: {why}"));
            }
        }
        Ok(ExitCode::from(code))
    }
}
