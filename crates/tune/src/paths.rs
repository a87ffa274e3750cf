//! Paths of our state below a root.
use keepstate_linux::SysRoot;
use std::path::PathBuf;

/// The directory of all state of `tune`.
pub const STATE_DIRECTORY: &str = "/var/lib/keepstate/tune";

/// The journal of what was there before, and what was applied.
pub fn journal_path(root: &SysRoot) -> PathBuf {
    root.path(STATE_DIRECTORY).join("journal.json")
}

/// The outcome of the last apply that was not confirmed in time.
pub fn last_outcome_path(root: &SysRoot) -> PathBuf {
    root.path(STATE_DIRECTORY).join("last")
}
