//! What was there before the first change, and what was put there: all that `rollback` needs.
//!
//! It is written and synced before anything is changed, and again when everything is. A second apply adds to it and keeps what it already has of
//! the beginning; rollback takes it away last of all.
use super::{atomic_file, paths};
use anyhow::{Context, Result, bail};
use keepstate_linux::SysRoot;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The version of what is written.
const SCHEMA: &str = "keepstate.tune-journal/1";

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum JournalStage {
    /// Begun, and not known to be done.
    Applying,
    /// Done, and read back.
    Applied,
    /// On the way back.
    RollingBack,
}

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    pub(super) schema: String,
    /// Names this apply.
    pub(super) id: String,
    pub(super) stage: JournalStage,
    /// When, in seconds since 1970.
    pub(super) at: u64,
    pub(super) knobs: Vec<ChangedSysctl>,
    pub(super) files: Vec<WrittenFile>,
    /// Directories that were made, innermost first.
    pub(super) directories: Vec<PathBuf>,
    /// Until when, in seconds since 1970, it must be confirmed.
    pub(super) confirm_until: Option<u64>,
}

/// A knob that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ChangedSysctl {
    pub(super) key: String,
    pub(super) before: String,
    pub(super) after: String,
}

/// A file that was put somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WrittenFile {
    /// Its path on a running machine.
    pub(super) path: PathBuf,
    /// What was there; nothing, if it was not.
    pub(super) before: Option<FileContent>,
    pub(super) after: FileContent,
}

/// A file's octets and mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileContent {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

impl FileContent {
    /// What is at a path now.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub(super) fn read(path: &Path) -> Result<Option<FileContent>> {
        let octets = match fs::read(path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let mode = fs::metadata(path)?.permissions().mode() & 0o7777;
        Ok(Some(FileContent { bytes: octets, mode }))
    }
}

impl Journal {
    /// The journal below a root, if there is one.
    ///
    /// # Errors
    /// It is there and cannot be understood.
    pub(super) fn read(root: &SysRoot) -> Result<Option<Journal>> {
        let path = paths::journal_path(root);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("{} cannot be read (try it as root)", path.display()));
            }
        };
        let journal: Journal = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no journal of keepstate tune", path.display()))?;
        if journal.schema != SCHEMA {
            bail!("{} is of another version ({}): this program knows {SCHEMA}", path.display(), journal.schema);
        }
        Ok(Some(journal))
    }

    /// One that begins now, or goes on from the one that is there.
    pub(super) fn begin(before: Option<Journal>, at: u64) -> Journal {
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

    /// Writes it, wholly or not at all.
    ///
    /// # Errors
    /// What could not be written.
    pub(super) fn write(&self, root: &SysRoot) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        atomic_file::write(&paths::journal_path(root), &text, 0o600).context("nothing was changed without its journal")
    }

    /// A knob that will be changed; what it was at the very beginning is kept.
    pub(super) fn record_sysctl(&mut self, key: &str, before: &str, after: &str) {
        match self.knobs.iter_mut().find(|knob| knob.key == key) {
            Some(known) => known.after = after.to_owned(),
            None => self.knobs.push(ChangedSysctl {
                key: key.to_owned(),
                before: before.to_owned(),
                after: after.to_owned(),
            }),
        }
    }

    /// A file that will be put somewhere; what was there at the very beginning is kept.
    pub(super) fn record_file(&mut self, path: &Path, before: Option<FileContent>, after: FileContent) {
        match self.files.iter_mut().find(|file| file.path == path) {
            Some(known) => known.after = after,
            None => self.files.push(WrittenFile { path: path.to_owned(), before, after }),
        }
    }

    /// Directories on the way to `path` that do not exist yet.
    pub(super) fn record_missing_directories(&mut self, root: &SysRoot, path: &Path) {
        let missing = path.ancestors().skip(1).take_while(|directory| !root.exists(directory));
        for directory in missing.map(Path::to_owned).collect::<Vec<_>>() {
            if !self.directories.contains(&directory) {
                self.directories.push(directory);
            }
        }
        self.directories.sort_by_key(|directory| std::cmp::Reverse(directory.components().count()));
    }
}
