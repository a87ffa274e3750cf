//! The timer of `--confirm-within`: a process of its own that waits, and rolls back unless the apply was confirmed.
//!
//! It outlives the shell it was started from. After a reboot the sysctls are back to their old values anyway, and the files wait
//! for `confirm` or `rollback`.
use super::args::RootArgs;
use crate::stderr::note;
use anyhow::{Context, Result, bail};
use keepstate_linux::atomic_file;
use keepstate_tune::{Journal, last_outcome_path, read_last_outcome, restore, rollback_blockers, write_state};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Starts the timer in the background.
pub fn spawn(id: &str, seconds: u64) -> Result<()> {
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let mut command = Command::new(program);
    command.args(["tune", "watch", "--id", id, "--seconds", &seconds.to_string()]);
    command
        .env_remove(atomic_file::KILL_STEP_VARIABLE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    command.spawn().context("cannot start the timer of --confirm-within; no sysctl was changed")?;
    Ok(())
}

/// Waits, then rolls back unless the apply was confirmed.
pub fn wait_and_roll_back(here: &RootArgs, id: &str, seconds: u64) -> Result<ExitCode> {
    let root = here.root()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let waiting = Journal::read(&root)?.filter(|journal| journal.id == id && journal.confirm_until.is_some());
    let Some(journal) = waiting else { return Ok(ExitCode::SUCCESS) };
    // Later changes of other programs stay, and so does the limit of a table that has outgrown the old one.
    let blockers = rollback_blockers(&root, &journal)?;
    let outcome = if blockers.is_empty() {
        restore(&root, &journal)?;
        format!("{} was not confirmed within {seconds} s and was rolled back\n", journal.id)
    } else {
        format!(
            "{} was not confirmed within {seconds} s and could not be rolled back: {}\n",
            journal.id,
            blockers.join("; ")
        )
    };
    write_state(&root, last_outcome_path(), outcome.as_bytes(), 0o644)?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps what was applied.
pub fn confirm(here: &RootArgs) -> Result<ExitCode> {
    let root = here.root()?;
    let Some(journal) = Journal::read(&root)? else {
        let last = read_last_outcome(&root).unwrap_or_default();
        bail!("nothing to confirm. {}", last.trim_end());
    };
    if journal.confirm_until.is_none() {
        note("no confirmation is pending: the change stays until keepstate tune rollback");
        return Ok(ExitCode::SUCCESS);
    }
    Journal { confirm_until: None, ..journal }.write(&root)?;
    note("confirmed: the change stays until keepstate tune rollback");
    Ok(ExitCode::SUCCESS)
}
