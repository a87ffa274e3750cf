//! The root of the files that are read: this machine's, or a directory with another machine's files.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory used as `/`. Files below it are named by their paths on a running machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysRoot(PathBuf);

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be {operation}: {source}", .path.display())]
pub struct FileError {
    /// The file, as it was opened.
    pub path: PathBuf,
    /// The operation: `read`, `written`, `entered`.
    pub operation: &'static str,
    /// The cause.
    pub source: io::Error,
}

impl FileError {
    /// Does the file not exist?
    pub fn is_not_found(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }

    /// Was permission denied?
    pub fn is_permission_denied(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }
}

impl SysRoot {
    /// This machine.
    pub fn live() -> SysRoot {
        SysRoot(PathBuf::from("/"))
    }

    /// The files under `directory`.
    pub fn at(directory: impl Into<PathBuf>) -> SysRoot {
        SysRoot(directory.into())
    }

    /// Is it this machine?
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// The path below this root of a path on a running machine.
    ///
    /// ```
    /// use keepstate_linux::SysRoot;
    /// assert_eq!(SysRoot::at("/bundle").path("/proc/meminfo"), std::path::Path::new("/bundle/proc/meminfo"));
    /// ```
    ///
    /// On this machine `/proc/net` is the calling thread's, not the process's: a thread may have entered another namespace.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if let (true, Ok(below)) = (self.is_live(), path.strip_prefix("/proc/net")) {
            return Path::new("/proc/thread-self/net").join(below);
        }
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A whole file as text; invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<String, FileError> {
        let path = self.path(path);
        match fs::read(&path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(source) => Err(FileError { path, operation: "read", source }),
        }
    }

    /// The names in a directory, sorted; empty if there is no such directory.
    ///
    /// # Errors
    /// The directory exists but cannot be read.
    pub fn list_dir(&self, path: impl AsRef<Path>) -> Result<Vec<String>, FileError> {
        let path = self.path(path);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FileError { path, operation: "read", source }),
        };
        let mut names = Vec::new();
        for entry in entries {
            match entry {
                Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
                Err(source) => return Err(FileError { path, operation: "read", source }),
            }
        }
        names.sort();
        Ok(names)
    }

    /// Is there such a file or directory?
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_below_a_directory() {
        let there = tempfile::tempdir().unwrap();
        fs::create_dir_all(there.path().join("etc/sysctl.d")).unwrap();
        fs::write(there.path().join("etc/sysctl.d/b.conf"), "x\u{e9}").unwrap();
        fs::write(there.path().join("etc/sysctl.d/a.conf"), [0xff]).unwrap();
        let root = SysRoot::at(there.path());
        assert_eq!(root.list_dir("/etc/sysctl.d").unwrap(), ["a.conf", "b.conf"]);
        assert_eq!(root.read("/etc/sysctl.d/a.conf").unwrap(), "\u{fffd}");
        assert!(root.list_dir("/nowhere").unwrap().is_empty());
        let error = root.read("/etc/nothing").unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("etc/nothing cannot be read"), "{error}");
        assert!(root.read("/etc/sysctl.d/a.conf/deeper").unwrap_err().is_not_found());
    }
}
