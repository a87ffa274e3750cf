//! Paths of our state below a root.
use std::path::Path;

/// The directory of all state of `tune`.
pub const STATE_DIRECTORY: &str = "/var/lib/keepstate/tune";

/// The journal of what was there before, and what was applied.
pub fn journal_path() -> &'static Path {
    Path::new("/var/lib/keepstate/tune/journal.json")
}

/// The outcome of the last apply that was not confirmed in time.
pub fn last_outcome_path() -> &'static Path {
    Path::new("/var/lib/keepstate/tune/last")
}
