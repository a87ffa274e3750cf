//! The subcommands of `keepstate tune`: plan, apply, verify, rollback, status.
use super::args::{PlanArgs, RootArgs};
use super::{confirm_timer, desired_state, text_report};
use crate::size::gather;
use anyhow::{Result, bail};
use keepstate_advisor::kernel_constants::OBJECT_BYTES;
use keepstate_linux::SysRoot;
use keepstate_tune::{Journal, JournalStage, PlanWithFiles, journal_path, read_last_outcome};
use std::process::ExitCode;

fn make_plan(wanted: &PlanArgs, root: &SysRoot) -> Result<PlanWithFiles> {
    let object_size = gather::read_machine(root).map_or(OBJECT_BYTES, |machine| machine.object_size.0);
    let current = keepstate_tune::read_current_state(root, object_size)?;
    if current.sysctls.is_empty() {
        bail!(
            "{} has no conntrack sysctls: load the module (modprobe nf_conntrack), or run this in the network namespace that uses it",
            root.path("/proc/sys/net/netfilter").display()
        );
    }
    let desired = desired_state::build(wanted, root, &current)?;
    keepstate_tune::plan(root, &desired, &current, wanted.persist)
}

/// Shows the plan.
pub fn plan(wanted: &PlanArgs) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = make_plan(wanted, &root)?;
    text_report::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    Ok(if planned.plan.refusals.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the plan and applies it.
pub fn apply(wanted: &PlanArgs, confirm_within: Option<u64>) -> Result<ExitCode> {
    let root = wanted.here.root()?;
    let planned = make_plan(wanted, &root)?;
    let before = Journal::read(&root)?;
    if before.as_ref().is_some_and(|journal| journal.stage == JournalStage::RollingBack) {
        bail!("a rollback was interrupted: run keepstate tune rollback first");
    }
    text_report::plan(&root, &planned, wanted.persist, wanted.here.json)?;
    if !planned.plan.refusals.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let applied = keepstate_tune::apply(&root, &planned, before, confirm_within, confirm_timer::spawn)?;
    if let Some(journal) = applied.filter(|_| !wanted.here.json) {
        text_report::applied(&journal, confirm_within)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Compares the machine with what was applied.
pub fn verify(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing was applied: {} does not exist", root.path(journal_path()).display());
    };
    let checks = keepstate_tune::verify(&root, &journal)?;
    text_report::checks(&checks, here.json)?;
    Ok(if checks.iter().all(|check| check.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Restores everything.
pub fn rollback(here: &RootArgs, force: bool) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        bail!("nothing to roll back: {} does not exist", root.path(journal_path()).display());
    };
    let blockers = keepstate_tune::rollback_blockers(&root, &journal)?;
    if !force && !blockers.is_empty() {
        bail!("rollback refused, nothing was changed:\n  {}\nuse --force to roll back anyway", blockers.join("\n  "));
    }
    keepstate_tune::restore(&root, &journal)?;
    text_report::rolled_back(&journal, here.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Shows what was applied.
pub fn status(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let last = read_last_outcome(&root);
    text_report::status(&root, Journal::read(&root)?.as_ref(), last.as_deref(), here.json)?;
    Ok(ExitCode::SUCCESS)
}
