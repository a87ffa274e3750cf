//! Files that are old or new at every moment: written beside the target, synced, renamed into place, and the directory synced.
//!
//! In builds with debug assertions `KEEPSTATE_TUNE_KILL=n` kills the process with SIGKILL before its n-th step, so that tests can
//! look at what each moment leaves behind.
use crate::sysroot::FileError;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `content` to `path` with this mode, replacing what is there. The directory must exist.
///
/// # Errors
/// Which file could not be written, and why.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = temporary_path(path);
    remove_leftover(path);
    kill_point();
    let written = (|| {
        // Never through a link or into a file that somebody else has put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        kill_point();
        file.write_all(second)?;
        file.sync_all()
    })();
    if let Err(source) = written {
        remove_leftover(path);
        return Err(FileError { path: temporary, operation: "written", source });
    }
    kill_point();
    if let Err(source) = fs::rename(&temporary, path) {
        remove_leftover(path);
        return Err(FileError { path: path.to_owned(), operation: "replaced", source });
    }
    kill_point();
    sync_directory(path)
}

/// Removes a file, if it exists.
///
/// # Errors
/// Why it could not be removed.
pub fn remove(path: &Path) -> Result<(), FileError> {
    kill_point();
    match fs::remove_file(path) {
        Ok(()) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FileError { path: path.to_owned(), operation: "removed", source }),
    }
    kill_point();
    sync_directory(path)
}

/// Removes the temporary file that a killed write has left beside `path`.
pub fn remove_leftover(path: &Path) {
    // Usually there is none.
    let _ = fs::remove_file(temporary_path(path));
}

/// The name a file is written under before it is renamed: one that readers of sysctl.d and the like ignore.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.keepstate-new"))
}

fn sync_directory(path: &Path) -> Result<(), FileError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| FileError { path: directory.to_owned(), operation: "synced", source })
}

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

    #[test]
    fn replaces_a_file_and_leaves_nothing_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("99.conf");
        fs::write(&path, "old").unwrap();
        // A killed write before this one.
        fs::write(temporary_path(&path), "half").unwrap();
        write(&path, b"new", 0o640).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let path = directory.path().join("99.conf");
        std::os::unix::fs::symlink(&victim, temporary_path(&path)).unwrap();
        write(&path, b"new", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn errors_name_the_file_and_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("no/99.conf"), b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("no/.99.conf.keepstate-new cannot be written"), "{error}");
        let occupied = directory.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        let error = write(&occupied, b"x", 0o644).unwrap_err();
        assert!(error.to_string().contains("occupied cannot be replaced"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
