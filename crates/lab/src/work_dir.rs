//! The laboratory's work directory: control socket, ruleset, configuration files of the servers. It is removed with this value.
//!
//! A laboratory that was killed leaves its work directory and nothing else; the next run removes it.
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Prefix of the directory name; the process id follows.
const PREFIX: &str = "keepstate-lab-";

/// The work directory.
#[derive(Debug)]
pub(super) struct WorkDir(PathBuf);

impl WorkDir {
    /// Creates it, readable by this user only.
    pub(super) fn create() -> Result<WorkDir> {
        remove_stale(&std::env::temp_dir());
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        // It must not exist yet, so no other user can have put anything into it.
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(WorkDir(path))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes an executable shell script.
    pub(super) fn write_script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write(name, &format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot make {} executable", path.display()))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // The user may have removed it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the directories of laboratories whose process is gone.
fn remove_stale(below: &Path) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Fails for another user's directory, which stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    #[test]
    fn removes_only_dirs_of_dead_processes() {
        let below = tempfile::tempdir().unwrap();
        let living = std::process::id();
        let names =
            ["keepstate-lab-4294967295".to_owned(), format!("{PREFIX}{living}"), format!("{PREFIX}x"), "other".into()];
        for name in &names {
            fs::create_dir(below.path().join(name)).unwrap();
        }
        fs::write(below.path().join("keepstate-lab-4294967294"), "").unwrap();
        remove_stale(below.path());
        let left: Vec<bool> = names.iter().map(|name| below.path().join(name).exists()).collect();
        assert_eq!(left, [false, true, true, true]);
        assert!(below.path().join("keepstate-lab-4294967294").exists(), "files are not touched");
    }
}
