//! Who rolls back by itself: a process of its own that waits, and looks whether somebody has confirmed.
//!
//! It outlives the shell it was begun from. Where the machine is restarted meanwhile, knobs are gone anyway, and files wait for `confirm` or `rollback`.
use super::journal::Journal;
use super::{RootArgs, atomic_file, commands, paths};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Begins to wait, in the background.
pub(super) fn spawn(id: &str, seconds: u64) -> Result<()> {
    let program = std::env::current_exe().context("this program's own file")?;
    let mut command = Command::new(program);
    command.args(["tune", "watch", "--id", id, "--seconds", &seconds.to_string()]);
    command
        .env_remove(atomic_file::KILL_STEP_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    command.spawn().context("nobody could be set to wait for the confirmation: roll back by hand, or confirm")?;
    Ok(())
}

/// Waits, and rolls back unless it was confirmed.
pub(super) fn wait_and_roll_back(here: &RootArgs, id: &str, seconds: u64) -> Result<ExitCode> {
    let root = here.root()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let waiting = Journal::read(&root)?.filter(|journal| journal.id == id && journal.confirm_until.is_some());
    let Some(journal) = waiting else { return Ok(ExitCode::SUCCESS) };
    // What somebody else has changed meanwhile, and a table that has grown over its old limit, stay.
    let troubles = commands::rollback_blockers(&root, &journal)?;
    let what = if troubles.is_empty() {
        commands::restore(&root, &journal)?;
        format!("{} was not confirmed in {seconds} s and was rolled back\n", journal.id)
    } else {
        format!(
            "{} was not confirmed in {seconds} s, and could not be rolled back: {}\n",
            journal.id,
            troubles.join("; ")
        )
    };
    atomic_file::write(&paths::last_outcome_path(&root), what.as_bytes(), 0o644)?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps what was applied.
pub(super) fn confirm(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        let last = std::fs::read_to_string(paths::last_outcome_path(&root)).unwrap_or_default();
        bail!("nothing waits to be confirmed. {}", last.trim_end());
    };
    if journal.confirm_until.is_none() {
        crate::stderr::note("it did not have to be confirmed: it stays until keepstate tune rollback");
        return Ok(ExitCode::SUCCESS);
    }
    Journal { confirm_until: None, ..journal }.write(&root)?;
    crate::stderr::note("confirmed: it stays until keepstate tune rollback");
    Ok(ExitCode::SUCCESS)
}
