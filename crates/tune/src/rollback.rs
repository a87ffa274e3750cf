//! Rolling back: what stands against it, and putting everything back.
use crate::journal::{FileContent, Journal, JournalStage};
use crate::sysctl_write::write_and_verify;
use crate::{paths, sysctl_file};
use anyhow::Result;
use keepstate_advisor::tune::{COUNT, MAX};
use keepstate_advisor::units::Count;
use keepstate_linux::{SysRoot, atomic_file, sysctl};
use std::path::Path;

/// Reasons not to roll back unless forced, one sentence each.
///
/// # Errors
/// If a file or sysctl of the journal cannot be read.
pub fn rollback_blockers(root: &SysRoot, journal: &Journal) -> Result<Vec<String>> {
    let mut blockers = Vec::new();
    for file in &journal.files {
        let found = FileContent::read(root, &file.path)?;
        if found != file.before && found.as_ref() != Some(&file.after) {
            blockers.push(format!("{} was changed by another program after apply", file.path.display()));
        }
    }
    for changed in &journal.knobs {
        let found = sysctl_file::read(root, &changed.key)?;
        if found != changed.before && found != changed.after {
            blockers.push(format!(
                "{} is {found}: another program changed it after apply (before apply {}, applied {})",
                changed.key, changed.before, changed.after
            ));
        }
    }
    let before = journal.knobs.iter().find(|changed| changed.key == MAX);
    let before = before.and_then(|changed| changed.before.parse::<u64>().ok());
    let count = sysctl::read_u64(root, COUNT).ok().flatten();
    if let (Some(before), Some(count)) = (before, count)
        && before != 0
        && count > before
    {
        blockers.push(format!(
            "the table holds {} connections and {MAX} was {} before apply: new connections would be dropped",
            Count(count),
            Count(before)
        ));
    }
    Ok(blockers)
}

/// Restores files, sysctls and directories, then removes the journal.
///
/// # Errors
/// What could not be restored; the journal stays, and calling this again goes on.
pub fn restore(root: &SysRoot, journal: &Journal) -> Result<()> {
    let journal = Journal { stage: JournalStage::RollingBack, ..journal.clone() };
    journal.write(root)?;
    for file in journal.files.iter().rev() {
        let path = &file.path;
        atomic_file::remove_leftover(root, path);
        match &file.before {
            _ if FileContent::read(root, path)? == file.before => (),
            Some(before) => atomic_file::write(root, path, &before.bytes, before.mode)?,
            None => atomic_file::remove(root, path)?,
        }
    }
    // In reverse order: the limit shrinks before its buckets do.
    for changed in journal.knobs.iter().rev() {
        if sysctl_file::read(root, &changed.key)? != changed.before {
            write_and_verify(root, &changed.key, &changed.before)?;
        }
    }
    for directory in &journal.directories {
        atomic_file::kill_point();
        // Another program may have put something there since.
        let _ = atomic_file::remove_dir(root, directory);
    }
    atomic_file::remove(root, paths::journal_path())?;
    atomic_file::remove_leftover(root, paths::journal_path());
    for directory in [paths::STATE_DIRECTORY, "/var/lib/keepstate"] {
        let _ = atomic_file::remove_dir(root, Path::new(directory));
    }
    Ok(())
}
