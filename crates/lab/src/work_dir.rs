//! The laboratory's folder: control socket, rules, what its peers are told; gone with this value.
//!
//! A laboratory that was killed leaves its folder and nothing else; the next one takes that away.
use anyhow::{Context, Result};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What every such folder's name begins with; the process's number follows.
const PREFIX: &str = "keepstate-lab-";

/// See the module's words.
#[derive(Debug)]
pub(super) struct WorkDir(PathBuf);

impl WorkDir {
    /// Makes it, for this user alone.
    pub(super) fn create() -> Result<WorkDir> {
        remove_stale(&std::env::temp_dir());
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        // Nobody else can have put something there: it must not exist yet.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(WorkDir(path))
    }

    /// Itself.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it, by its name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    }

    /// Writes a script that can be run.
    pub(super) fn write_script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.write(name, &format!("#!/bin/sh\n{text}\n"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{} cannot be made a program", path.display()))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Whoever plays with it may have removed it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Takes away what laboratories have left whose process is gone.
fn remove_stale(below: &Path) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse::<u32>().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && number.is_some_and(|number| !Path::new(&format!("/proc/{number}")).exists()) {
            // Another user's stays: it is his.
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
        assert!(below.path().join("keepstate-lab-4294967294").exists(), "a file is none of ours");
    }
}
