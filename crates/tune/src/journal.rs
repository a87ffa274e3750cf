//! The journal: what was there before the first change, and what was written: all that `rollback` needs.
//!
//! It is written and synced before the first change, and again after the last. A second apply extends it and keeps the values from
//! before the first; rollback removes it last of all.
use crate::paths;
use anyhow::{Context, Result};
use keepstate_linux::{SysRoot, atomic_file};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Schema name and version.
pub(crate) const SCHEMA: &str = "keepstate.tune-journal/1";

/// What stood where our own files are written, at most.
const MAX_CONTENT_BYTES: u64 = 1 << 20;

/// How far an apply or rollback came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalStage {
    /// Begun, and not known to be complete.
    Applying,
    /// Complete, and read back.
    Applied,
    /// Rollback has begun.
    RollingBack,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Schema name and version.
    pub schema: String,
    /// Identifies this apply.
    pub id: String,
    /// How far it came.
    pub stage: JournalStage,
    /// Time of the apply, in seconds since 1970.
    pub at: u64,
    /// The changed sysctls, in the order they were set.
    pub knobs: Vec<ChangedSysctl>,
    /// The written files.
    pub files: Vec<WrittenFile>,
    /// Directories that were created, innermost first.
    pub directories: Vec<PathBuf>,
    /// When it is rolled back unless confirmed, in seconds since 1970.
    pub confirm_until: Option<u64>,
}

/// A changed sysctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedSysctl {
    /// Its key.
    pub key: String,
    /// Its value before the first apply.
    pub before: String,
    /// The value that was set.
    pub after: String,
}

/// A written file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Its path on a running machine.
    pub path: PathBuf,
    /// Its content before the first apply; `None` if it did not exist.
    pub before: Option<FileContent>,
    /// What was written.
    pub after: FileContent,
}

/// A file's bytes and mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The permission bits.
    pub mode: u32,
}

impl JournalStage {
    /// Its name, as in the journal.
    pub fn name(self) -> &'static str {
        match self {
            JournalStage::Applying => "applying",
            JournalStage::Applied => "applied",
            JournalStage::RollingBack => "rolling-back",
        }
    }
}

impl FileContent {
    /// Reads a file below a root; `None` if it does not exist.
    ///
    /// # Errors
    /// If it exists and cannot be read.
    pub fn read(root: &SysRoot, path: &Path) -> Result<Option<FileContent>> {
        match root.read_bytes(path, MAX_CONTENT_BYTES) {
            Ok(bytes) => Ok(Some(FileContent { bytes, mode: root.mode(path).unwrap_or(0o644) & 0o777 })),
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Journal {
    /// A journal that begins now, or continues an earlier one.
    pub fn begin(before: Option<Journal>, at: u64) -> Journal {
        let id = format!("{at}-{}", std::process::id());
        let fresh = Journal {
            schema: SCHEMA.into(),
            id: id.clone(),
            stage: JournalStage::Applying,
            at,
            knobs: Vec::new(),
            files: Vec::new(),
            directories: Vec::new(),
            confirm_until: None,
        };
        before.map_or(fresh, |before| Journal { id, stage: JournalStage::Applying, at, confirm_until: None, ..before })
    }

    /// Writes it, completely or not at all.
    ///
    /// # Errors
    /// What could not be written.
    pub fn write(&self, root: &SysRoot) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_state(root, paths::journal_path(), &text, 0o600).context("cannot write the journal")
    }

    /// Records a sysctl that is about to change; its value before the first apply is kept.
    pub fn record_sysctl(&mut self, key: &str, before: &str, after: &str) {
        match self.knobs.iter_mut().find(|changed| changed.key == key) {
            Some(known) => known.after = after.to_owned(),
            None => self.knobs.push(ChangedSysctl {
                key: key.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
            }),
        }
    }

    /// Records a file that is about to be written; its content before the first apply is kept.
    pub fn record_file(&mut self, path: &Path, before: Option<FileContent>, after: FileContent) {
        match self.files.iter_mut().find(|file| file.path == path) {
            Some(known) => known.after = after,
            None => self.files.push(WrittenFile { path: path.to_owned(), before, after }),
        }
    }

    /// Records the parent directories of `path` that do not exist yet.
    pub fn record_missing_directories(&mut self, root: &SysRoot, path: &Path) {
        let missing = path.ancestors().skip(1).take_while(|directory| !root.exists(directory));
        for directory in missing.map(Path::to_owned).collect::<Vec<_>>() {
            if !self.directories.contains(&directory) {
                self.directories.push(directory);
            }
        }
        self.directories.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
    }
}

/// Writes a file of our state directory, which is created if needed.
///
/// # Errors
/// What could not be written.
pub fn write_state(root: &SysRoot, path: &Path, content: &[u8], mode: u32) -> Result<()> {
    if let Some(directory) = path.parent() {
        atomic_file::kill_point();
        atomic_file::create_dir_all(root, directory)?;
    }
    Ok(atomic_file::write(root, path, content, mode)?)
}

/// The last outcome of a timer, without control characters: an image's may be somebody else's.
pub fn read_last_outcome(root: &SysRoot) -> Option<String> {
    let text = root.read_up_to(paths::last_outcome_path(), 1 << 16).ok()?;
    Some(text.trim_end().chars().filter(|letter| !letter.is_control()).collect())
}

/// Seconds since 1970.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
