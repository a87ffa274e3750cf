//! Where things stand below a root.
use keepstate_linux::Root;
use std::path::PathBuf;

/// Everything of ours.
pub(super) const STATE: &str = "/var/lib/keepstate/tune";

/// What was there before, and what was done.
pub(super) fn journal(root: &Root) -> PathBuf {
    root.path(STATE).join("journal.json")
}

/// What became of an apply that waited to be confirmed.
pub(super) fn last(root: &Root) -> PathBuf {
    root.path(STATE).join("last")
}
