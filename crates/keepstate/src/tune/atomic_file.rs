//! Files that are old or new at every moment: written beside, synced, put in place by a rename, and the directory synced.
//!
//! In builds with debug assertions `KEEPSTATE_TUNE_KILL=n` kills the process with SIGKILL before its n-th step, so that tests can look at what
//! every moment leaves behind.
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Puts `content` at `path`, with this mode; makes directories that are not there.
///
/// # Errors
/// What could not be done, and with which file.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    kill_point();
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    let beside = temporary_path(path);
    kill_point();
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        let (first, second) = content.split_at(content.len() / 2);
        file.write_all(first)?;
        kill_point();
        file.write_all(second)?;
        file.sync_all()
    })();
    written.with_context(|| format!("{} cannot be written", beside.display()))?;
    kill_point();
    fs::rename(&beside, path).with_context(|| format!("{} cannot be put in place", path.display()))?;
    kill_point();
    sync_directory(directory)
}

/// Takes a file away, if it is there.
///
/// # Errors
/// What could not be done, and with which file.
pub(super) fn remove(path: &Path) -> Result<()> {
    kill_point();
    match fs::remove_file(path) {
        Ok(()) => (),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be removed", path.display())),
    }
    kill_point();
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Takes away what a killed write has left beside a file.
pub(super) fn remove_leftover(path: &Path) {
    // Nothing being there is the usual case.
    let _ = fs::remove_file(temporary_path(path));
}

/// Where a file is written before it is put in place: no name that any reader of such directories looks at.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.keepstate-new"))
}

fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("{} cannot be synced", directory.display()))
}

/// In which moment a test ends this process; see the module.
pub(super) const KILL_STEP_VARIABLE: &str = "KEEPSTATE_TUNE_KILL";

/// One moment; see the module.
#[cfg(debug_assertions)]
pub(super) fn kill_point() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static STEPS: AtomicU64 = AtomicU64::new(0);
    let Some(fatal) = std::env::var(KILL_STEP_VARIABLE).ok().and_then(|number| number.parse::<u64>().ok()) else {
        return;
    };
    if STEPS.fetch_add(1, Ordering::Relaxed) + 1 == fatal {
        // The shell's kill: SIGKILL leaves this process no time for anything.
        let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

/// One moment; only builds with debug assertions can end in it.
#[cfg(not(debug_assertions))]
pub(super) fn step() {}
