//! Applying a plan: journal first, then the files, then the sysctls.
use crate::journal::{FileContent, Journal, JournalStage, unix_now};
use crate::plan::PlanWithFiles;
use crate::sysctl_file;
use crate::sysctl_write::write_and_verify;
use anyhow::{Context, Result};
use keepstate_advisor::tune::TunePlan;
use keepstate_linux::{SysRoot, atomic_file};
use std::path::PathBuf;

/// Applies a plan; `None` if nothing was to be changed. `before` is the journal of an earlier apply, which this one extends.
/// With `confirm_within` (seconds) `start_timer` is called with the journal's id before the first change.
///
/// # Errors
/// What could not be written; the journal then tells how far it came.
pub fn apply(
    root: &SysRoot,
    planned: &PlanWithFiles,
    before: Option<Journal>,
    confirm_within: Option<u64>,
    start_timer: impl FnOnce(&str, u64) -> Result<()>,
) -> Result<Option<Journal>> {
    let files = pending_files(root, planned)?;
    if planned.plan.changes.is_empty() && files.is_empty() {
        return Ok(None);
    }
    let mut journal = Journal::begin(before, unix_now());
    for file in &files {
        journal.record_missing_directories(root, &file.path);
        journal.record_file(&file.path, file.before.clone(), file.after.clone());
    }
    for change in &planned.plan.changes {
        let value = sysctl_file::read(root, &change.key)?;
        journal.record_sysctl(&change.key, &value, &change.after.to_string());
    }
    journal.confirm_until = confirm_within.map(|seconds| unix_now().saturating_add(seconds));
    journal.write(root)?;
    // Before the first change: whatever happens to this process or its session, the timer runs.
    if let Some(seconds) = confirm_within {
        start_timer(&journal.id, seconds)?;
    }
    apply_changes(root, &planned.plan, &files)
        .context("apply was interrupted: keepstate tune rollback restores what was changed")?;
    journal.stage = JournalStage::Applied;
    journal.write(root)?;
    Ok(Some(journal))
}

/// A file whose content is not there yet.
struct PendingFile {
    path: PathBuf,
    before: Option<FileContent>,
    after: FileContent,
}

fn pending_files(root: &SysRoot, planned: &PlanWithFiles) -> Result<Vec<PendingFile>> {
    let mut pending = Vec::new();
    for file in &planned.files.files {
        let before = FileContent::read(root, &file.path)?;
        let after = FileContent { bytes: file.text.clone().into_bytes(), mode: 0o644 };
        if before.as_ref() != Some(&after) {
            pending.push(PendingFile { path: file.path.clone(), before, after });
        }
    }
    Ok(pending)
}

/// Writes the files, then the sysctls.
fn apply_changes(root: &SysRoot, plan: &TunePlan, files: &[PendingFile]) -> Result<()> {
    for PendingFile { path, after, .. } in files {
        if let Some(directory) = path.parent() {
            atomic_file::kill_point();
            atomic_file::create_dir_all(root, directory)?;
        }
        atomic_file::write(root, path, &after.bytes, after.mode)?;
    }
    for change in &plan.changes {
        write_and_verify(root, &change.key, &change.after.to_string())?;
    }
    Ok(())
}
