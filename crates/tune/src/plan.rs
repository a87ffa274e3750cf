//! A plan together with the files that make it persistent.
use crate::persistent_files::{PersistentFiles, plan_files};
use anyhow::Result;
use keepstate_advisor::tune::{self, CurrentState, DesiredState, TunePlan};
use keepstate_linux::SysRoot;

/// What to change at run time, and which files to write for the next boot.
#[derive(Debug)]
pub struct PlanWithFiles {
    /// The sysctls to change.
    pub plan: TunePlan,
    /// The files to write; none unless the plan is to persist.
    pub files: PersistentFiles,
}

/// Plans the way from `current` to `desired`; with `persist` also over the next boot. Nothing is written.
///
/// # Errors
/// If the machine's files cannot be read, or no file of ours could make the plan persistent.
pub fn plan(root: &SysRoot, desired: &DesiredState, current: &CurrentState, persist: bool) -> Result<PlanWithFiles> {
    let plan = tune::plan(desired, current);
    let mut targets = plan.unchanged.clone();
    targets.extend(plan.changes.iter().map(|change| (change.key.clone(), change.after)));
    let files = match persist && !targets.is_empty() && plan.refusals.is_empty() {
        true => plan_files(root, &targets)?,
        false => PersistentFiles::default(),
    };
    Ok(PlanWithFiles { plan, files })
}
