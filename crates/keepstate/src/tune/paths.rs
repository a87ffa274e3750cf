//! Where things stand below a root.
use keepstate_linux::SysRoot;
use std::path::PathBuf;

/// Everything of ours.
pub(super) const STATE_DIRECTORY: &str = "/var/lib/keepstate/tune";

/// What was there before, and what was done.
pub(super) fn journal_path(root: &SysRoot) -> PathBuf {
    root.path(STATE_DIRECTORY).join("journal.json")
}

/// What became of an apply that waited to be confirmed.
pub(super) fn last_outcome_path(root: &SysRoot) -> PathBuf {
    root.path(STATE_DIRECTORY).join("last")
}
