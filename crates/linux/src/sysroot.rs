//! The root of the files that are read: this machine's, or a directory with another machine's files.
//!
//! A directory with another machine's files may be somebody else's: its links lead where they lead inside it, only ordinary files
//! are opened, and no more than a limit is read of them.
use crate::open_in_root::{is_directory, open_in_root};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, readlinkat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A directory used as `/`. Files below it are named by their paths on a running machine.
#[derive(Clone, Debug)]
pub struct SysRoot {
    path: PathBuf,
    /// The directory, opened at its first use: its name may stand for another one later.
    directory: Arc<OnceLock<OwnedFd>>,
}

impl PartialEq for SysRoot {
    fn eq(&self, other: &SysRoot) -> bool {
        self.path == other.path
    }
}

impl Eq for SysRoot {}

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

/// No file of a machine's settings is longer.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// A directory with more names than this is refused. `/proc` has at most 4 million.
const MAX_DIRECTORY_NAMES: usize = 1 << 22;

impl SysRoot {
    /// This machine.
    pub fn live() -> SysRoot {
        SysRoot::at("/")
    }

    /// The files under `directory`.
    pub fn at(directory: impl Into<PathBuf>) -> SysRoot {
        SysRoot { path: directory.into(), directory: Arc::default() }
    }

    /// A directory below this root as a root of its own.
    ///
    /// # Errors
    /// There is no such directory inside the root.
    pub fn below(&self, path: impl AsRef<Path>) -> Result<SysRoot, FileError> {
        let path = path.as_ref();
        let opened =
            self.open(path, OFlags::PATH | OFlags::DIRECTORY).map_err(|source| self.failed(path, "entered", source))?;
        Ok(SysRoot { path: self.path(path), directory: Arc::new(opened.into()) })
    }

    /// Is it this machine?
    pub fn is_live(&self) -> bool {
        self.path == Path::new("/")
    }

    /// The path below this root of a path on a running machine, for messages: files are opened by the other functions, which do not
    /// follow a link out of the root.
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
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A whole file as text; invalid UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// The file cannot be read, is no ordinary file, or is longer than any such file is (32 MiB).
    pub fn read(&self, path: impl AsRef<Path>) -> Result<String, FileError> {
        self.read_up_to(path, MAX_FILE_BYTES)
    }

    /// As [`SysRoot::read`], with another limit on its bytes.
    ///
    /// # Errors
    /// As [`SysRoot::read`].
    pub fn read_up_to(&self, path: impl AsRef<Path>, limit: u64) -> Result<String, FileError> {
        let bytes = self.read_bytes(path, limit)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of a whole file, at most `limit`.
    ///
    /// # Errors
    /// As [`SysRoot::read`].
    pub fn read_bytes(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>, FileError> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let file = self.open_file(path)?;
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| self.failed(path, "read", source))?;
        if bytes.len() as u64 > limit {
            let source =
                io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {} KiB", limit.div_ceil(1024)));
            return Err(self.failed(path, "read", source));
        }
        Ok(bytes)
    }

    /// Opens an ordinary file for reading. A FIFO or a device is refused, unopened; only `/dev/null`, which hides a file of
    /// settings, can be read.
    ///
    /// # Errors
    /// There is no such file, or it is no ordinary one.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, FileError> {
        let path = path.as_ref();
        self.open_ordinary(path, OFlags::RDONLY).map_err(|source| self.failed(path, "read", source))
    }

    fn open_ordinary(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        check_ordinary(&self.open(path, OFlags::PATH)?, flags)?;
        // Its name may stand for something else by now: neither does opening it wait, nor is anything else read.
        let opened = self.open(path, flags | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        check_ordinary(&opened, flags)?;
        Ok(opened.into())
    }

    /// Opens what exists, inside the root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        if self.is_live() {
            return Ok(rustix::fs::open(self.path(path), flags | OFlags::CLOEXEC, Mode::empty())?);
        }
        let directory = match self.directory.get() {
            Some(directory) => directory,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = rustix::fs::open(&self.path, flags, Mode::empty())?;
                self.directory.get_or_init(|| opened)
            }
        };
        open_in_root(directory.as_fd(), path, flags)
    }

    /// Writes a value into an existing file, without replacing the file: the way of sysctls.
    ///
    /// # Errors
    /// It cannot be written, or is no ordinary file.
    pub fn write_value(&self, path: impl AsRef<Path>, value: &str) -> Result<(), FileError> {
        let path = path.as_ref();
        let write = || {
            let mut file = self.open_ordinary(path, OFlags::WRONLY)?;
            if !self.is_live() {
                if fstat(&file)?.st_nlink > 1 {
                    return Err(io::Error::other(
                        "it has another name too, perhaps outside: remove that, or copy the file",
                    ));
                }
                file.set_len(0)?;
            }
            io::Write::write_all(&mut file, format!("{value}\n").as_bytes())
        };
        write().map_err(|source| self.failed(path, "written", source))
    }

    /// The names in a directory, sorted; empty if there is no such directory.
    ///
    /// # Errors
    /// The directory exists but cannot be read.
    pub fn list_dir(&self, path: impl AsRef<Path>) -> Result<Vec<String>, FileError> {
        let path = path.as_ref();
        let directory = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.failed(path, "read", source)),
        };
        let mut names = Vec::new();
        for entry in Dir::new(directory).map_err(|source| self.failed(path, "read", source.into()))? {
            let entry = entry.map_err(|source| self.failed(path, "read", source.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(String::from_utf8_lossy(name).into_owned());
            }
            if names.len() > MAX_DIRECTORY_NAMES {
                return Err(self.failed(path, "read", io::Error::other("it has too many files")));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Is there such a file or directory?
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.open(path.as_ref(), OFlags::PATH).is_ok()
    }

    /// Is there such a directory?
    pub fn is_dir(&self, path: impl AsRef<Path>) -> bool {
        self.open(path.as_ref(), OFlags::PATH).is_ok_and(|found| is_directory(&found).unwrap_or(false))
    }

    /// The permission bits of a file or directory, if it exists.
    pub fn mode(&self, path: impl AsRef<Path>) -> Option<u32> {
        let found = self.open(path.as_ref(), OFlags::PATH).ok()?;
        Some(fstat(&found).ok()?.st_mode & 0o7777)
    }

    /// Where a link points to, if it is one.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let link = self.open(path.as_ref(), OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        let target = readlinkat(&link, "", Vec::new()).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
    }

    /// Is this the directory `/` of this machine under another name?
    pub fn is_live_by_another_name(&self) -> bool {
        let same = || {
            let here = fstat(self.open(Path::new("/"), OFlags::PATH)?)?;
            let live = rustix::fs::statat(rustix::fs::CWD, "/", AtFlags::empty())?;
            io::Result::Ok((here.st_dev, here.st_ino) == (live.st_dev, live.st_ino))
        };
        !self.is_live() && same().unwrap_or(false)
    }

    pub(crate) fn failed(&self, path: &Path, operation: &'static str, source: io::Error) -> FileError {
        FileError { path: self.path(path), operation, source }
    }
}

/// Only ordinary files, and for reading `/dev/null`.
fn check_ordinary(found: &OwnedFd, flags: OFlags) -> io::Result<()> {
    let status = fstat(found)?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        FileType::CharacterDevice if status.st_rdev == rustix::fs::makedev(1, 3) && flags == OFlags::RDONLY => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a FIFO, a socket or a device, not a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_and_odd_files_of_an_image_neither_lead_out_nor_hang() {
        let there = tempfile::tempdir().unwrap();
        let (image, outside) = (there.path().join("image"), there.path().join("outside"));
        fs::create_dir_all(image.join("etc")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        symlink(outside.join("secret"), image.join("etc/file")).unwrap();
        symlink(&outside, image.join("etc/dir")).unwrap();
        symlink("/dev/null", image.join("etc/null")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, image.join("etc/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(image.join("etc/huge")).unwrap().set_len(1 << 42).unwrap();
        let root = SysRoot::at(&image);
        assert!(root.read("/etc/file").unwrap_err().is_not_found());
        assert!(!root.exists("/etc/dir") && root.mode("/etc/file").is_none() && root.below("/etc/dir").is_err());
        assert!(root.list_dir("/etc/dir").unwrap().is_empty());
        assert!(root.read("/etc/fifo").unwrap_err().to_string().contains("not a file"));
        assert!(root.write_value("/etc/fifo", "1").unwrap_err().to_string().contains("not a file"));
        assert!(root.read("/etc/huge").unwrap_err().to_string().contains("longer than 32768 KiB"));
        assert!(root.write_value("/etc/file", "1").unwrap_err().is_not_found());
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
        assert_eq!(root.read_link("/etc/file").unwrap(), outside.join("secret"));
        // Another name of a file outside is not written either.
        fs::hard_link(outside.join("secret"), image.join("etc/second")).unwrap();
        assert!(root.write_value("/etc/second", "1").unwrap_err().to_string().contains("another name"));
        assert_eq!(SysRoot::live().read("/dev/null").unwrap(), "");
        // The directory stays the one that was opened, whatever its name stands for later.
        fs::write(image.join("etc/mine"), "image").unwrap();
        fs::rename(&image, there.path().join("moved")).unwrap();
        symlink("/", &image).unwrap();
        assert_eq!(root.read("/etc/mine").unwrap(), "image");
        assert!(SysRoot::at(&image).is_live_by_another_name() && !root.is_live_by_another_name());
    }

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
