//! Files that are old or new at every moment: written beside the target, synced, renamed into place, and the directory synced.
//!
//! The directory is opened inside its [`SysRoot`] once, and everything is done in that directory: no link leads elsewhere.
//!
//! In builds with debug assertions `KEEPSTATE_TUNE_KILL=n` kills the process with SIGKILL before its n-th step, so that tests can
//! look at what each moment leaves behind.
use crate::sysroot::{FileError, SysRoot};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Writes `content` to `path` with these permission bits, replacing what is there. The directory must exist. Bits that would make a
/// program set its user or group are never set.
///
/// # Errors
/// Which file could not be written, and why.
pub fn write(root: &SysRoot, path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = temporary_name(path);
    let failed = |operation, source| root.failed(path, operation, source);
    let (directory, name) = open_parent(root, path).map_err(|source| failed("written", source))?;
    remove_name(&directory, &temporary);
    kill_point();
    let written = (|| {
        // Never through a link or into a file that somebody else has put there.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & PERMISSION_BITS);
        let mut file = File::from(openat(&directory, temporary.as_os_str(), flags, mode)?);
        rustix::fs::fchmod(&file, mode)?;
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        kill_point();
        file.write_all(second)?;
        file.sync_all()
    })();
    if let Err(source) = written {
        remove_name(&directory, &temporary);
        return Err(failed("written", source));
    }
    kill_point();
    if let Err(source) = renameat(&directory, temporary.as_os_str(), &directory, name) {
        remove_name(&directory, &temporary);
        return Err(failed("replaced", source.into()));
    }
    kill_point();
    fsync(&directory).map_err(|source| failed("synced", source.into()))
}

/// Removes a file, if it exists.
///
/// # Errors
/// Why it could not be removed.
pub fn remove(root: &SysRoot, path: &Path) -> Result<(), FileError> {
    let failed = |source: io::Error| root.failed(path, "removed", source);
    kill_point();
    let (directory, name) = match open_parent(root, path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
    };
    match unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) => (),
        Err(Errno::NOENT) => return Ok(()),
        Err(source) => return Err(failed(source.into())),
    }
    kill_point();
    fsync(&directory).map_err(|source| failed(source.into()))
}

/// Removes the temporary file that a killed write has left beside `path`.
pub fn remove_leftover(root: &SysRoot, path: &Path) {
    // Usually there is none.
    if let Ok((directory, _)) = open_parent(root, path) {
        remove_name(&directory, &temporary_name(path));
    }
}

/// Creates a directory and those above it, as far as they are missing.
///
/// # Errors
/// Which one could not be created.
pub fn create_dir_all(root: &SysRoot, path: &Path) -> Result<(), FileError> {
    let mut missing: Vec<&Path> = path.ancestors().take_while(|directory| !root.is_dir(directory)).collect();
    while let Some(directory) = missing.pop() {
        let made = open_parent(root, directory)
            .and_then(|(parent, name)| Ok(mkdirat(&parent, name, Mode::from_raw_mode(0o755))?));
        match made {
            // Made by somebody else meanwhile.
            Err(_) if root.is_dir(directory) => (),
            made => made.map_err(|source| root.failed(directory, "created", source))?,
        }
    }
    Ok(())
}

/// Removes a directory, if it is empty.
///
/// # Errors
/// It is not empty, or cannot be removed.
pub fn remove_dir(root: &SysRoot, path: &Path) -> Result<(), FileError> {
    let removed = open_parent(root, path).and_then(|(parent, name)| Ok(unlinkat(&parent, name, AtFlags::REMOVEDIR)?));
    removed.map_err(|source| root.failed(path, "removed", source))
}

/// The directory of a path, opened inside the root, and the path's last name.
fn open_parent<'a>(root: &SysRoot, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
    Ok((root.open(parent, OFlags::RDONLY | OFlags::DIRECTORY)?, name))
}

fn remove_name(directory: &OwnedFd, name: &OsStr) {
    let _ = unlinkat(directory, name, AtFlags::empty());
}

/// The name a file is written under before it is renamed: one that readers of sysctl.d and the like ignore.
fn temporary_name(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".keepstate-new");
    name
}

/// The bits of a mode that are set: who may read, write and execute.
const PERMISSION_BITS: u32 = 0o777;

/// The environment variable by which a test kills this process; see the module.
pub const KILL_STEP_VARIABLE: &str = "KEEPSTATE_TUNE_KILL";

/// One step of the process; see the module.
#[cfg(debug_assertions)]
pub fn kill_point() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static STEPS: AtomicU64 = AtomicU64::new(0);
    let Some(fatal) = std::env::var(KILL_STEP_VARIABLE).ok().and_then(|number| number.parse::<u64>().ok()) else {
        return;
    };
    if STEPS.fetch_add(1, Ordering::Relaxed) + 1 == fatal {
        // SIGKILL by the shell's kill, which leaves this process no time for anything.
        let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// One step of the process; only builds with debug assertions can be killed here.
#[cfg(not(debug_assertions))]
pub fn kill_point() {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn replaces_a_file_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let (root, path) = (SysRoot::at(directory.path()), Path::new("/99.conf"));
        let real = directory.path().join("99.conf");
        fs::write(&real, "old").unwrap();
        // A killed write before this one.
        fs::write(directory.path().join(temporary_name(path)), "half").unwrap();
        write(&root, path, b"new", 0o6640).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o640, "never setuid");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        remove(&root, path).unwrap();
        remove(&root, path).unwrap();
        assert!(!real.exists());
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let there = tempfile::tempdir().unwrap();
        let (image, outside) = (there.path().join("image"), there.path().join("outside"));
        fs::create_dir(&image).unwrap();
        fs::create_dir(&outside).unwrap();
        let victim = outside.join("victim");
        fs::write(&victim, "precious").unwrap();
        let (root, path) = (SysRoot::at(&image), Path::new("/99.conf"));
        symlink(&victim, image.join(temporary_name(path))).unwrap();
        write(&root, path, b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(image.join("99.conf")).unwrap(), "new");
        symlink(&outside, image.join("etc")).unwrap();
        assert!(write(&root, Path::new("/etc/new"), b"new", 0o644).is_err());
        assert!(create_dir_all(&root, Path::new("/etc/sysctl.d")).is_err());
        remove(&root, Path::new("/etc/victim")).unwrap();
        remove(&root, Path::new("/../outside/victim")).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn directories_are_made_and_removed() {
        let there = tempfile::tempdir().unwrap();
        let root = SysRoot::at(there.path());
        create_dir_all(&root, Path::new("/var/lib/keepstate")).unwrap();
        create_dir_all(&root, Path::new("/var/lib/keepstate")).unwrap();
        assert!(there.path().join("var/lib/keepstate").is_dir());
        assert!(remove_dir(&root, Path::new("/var/lib")).is_err());
        remove_dir(&root, Path::new("/var/lib/keepstate")).unwrap();
        assert!(!there.path().join("var/lib/keepstate").exists());
    }

    #[test]
    fn errors_name_the_file_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let root = SysRoot::at(directory.path());
        let error = write(&root, Path::new("/no/99.conf"), b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("no/99.conf cannot be written"), "{error}");
        fs::create_dir(directory.path().join("occupied")).unwrap();
        let error = write(&root, Path::new("/occupied"), b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("occupied cannot be replaced"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
