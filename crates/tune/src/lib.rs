//! Changing conntrack sysctls on a machine, now and at boot, so that everything can be rolled back.
//!
//! [`plan`] says what to change and which files make it persistent; [`apply`] writes a [`Journal`] of everything that was there,
//! then the files, then the sysctls, and reads each back; [`verify`] compares the machine with the journal; [`restore`] puts
//! everything back byte for byte. Every file is old or new at any moment, never half. Nothing here flushes the table, and only
//! files of our own are written.
mod apply;
mod current_state;
mod journal;
mod journal_check;
mod paths;
mod persistent_files;
mod plan;
mod rollback;
mod sysctl_file;
mod sysctl_write;
mod verify;

pub use apply::apply;
pub use current_state::read_current_state;
pub use journal::{
    ChangedSysctl, FileContent, Journal, JournalStage, WrittenFile, read_last_outcome, unix_now, write_state,
};
pub use paths::{journal_path, last_outcome_path};
pub use persistent_files::{PersistentFile, PersistentFiles};
pub use plan::{PlanWithFiles, plan};
pub use rollback::{restore, rollback_blockers};
pub use verify::{VerifyCheck, verify};
