//! What a running gateway may still do with files once it has started, enforced by Landlock: read its ruleset, what that includes, and its services again; write its state file, which
//! has a thread of its own for it; remove its socket; and what its driver needs.
//!
//! Directories are allowed, not files: an editor replaces a file by another one of the same name. So a ruleset that is given a new place to include from needs a restart.
use keepstate_linux::file_access::{FileAccess, FileAccessLimit};
use keepstate_rules::{Sources, find_includes};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Users, groups, connection labels and the time zone; the kernel's version, for libraries that attach BPF programs.
const SYSTEM_FILES: [&str; 3] = ["/etc", "/usr/share/zoneinfo", "/proc/version_signature"];

/// Has this process limited itself?
static LIMITED: AtomicBool = AtomicBool::new(false);

/// The directories that a ruleset and services are read from, at the start and again.
#[derive(Debug, Default)]
pub(crate) struct ConfigDirs(BTreeSet<PathBuf>);

impl ConfigDirs {
    /// Where a ruleset, whose texts are `sources`, and the services file come from; `include_dirs` are searched by `include`.
    pub(crate) fn of(
        ruleset: &Path,
        services: Option<&Path>,
        include_dirs: &[PathBuf],
        sources: &Sources,
    ) -> ConfigDirs {
        let mut dirs = ConfigDirs::default();
        [Some(ruleset), services].into_iter().flatten().for_each(|file| dirs.add_file(file));
        dirs.0.extend(include_dirs.iter().cloned());
        for (name, text) in sources.texts() {
            dirs.add_file(Path::new(name));
            let beside = Path::new(name).parent().unwrap_or(Path::new(""));
            for pattern in find_includes(text) {
                let folders = std::iter::once(beside).chain(include_dirs.iter().map(PathBuf::as_path));
                folders.for_each(|folder| dirs.add_file(&folder.join(&pattern)));
            }
        }
        dirs
    }

    /// And where these come from.
    pub(crate) fn with_files(mut self, files: &[PathBuf]) -> ConfigDirs {
        files.iter().for_each(|file| self.add_file(file));
        self
    }

    /// The directory of a file, and the one that it really is in, if it is a link.
    fn add_file(&mut self, file: &Path) {
        if file == Path::new("-") {
            return;
        }
        for path in [Some(file.to_owned()), file.canonicalize().ok()].into_iter().flatten() {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            self.0.insert(parent.unwrap_or(Path::new(".")).to_owned());
        }
    }
}

/// Limits this thread, and those that it starts: to these directories, the control socket's removal, and what `driver` has added.
///
/// # Errors
/// The kernel has Landlock, and refuses.
pub(crate) fn limit(dirs: &ConfigDirs, control_socket: Option<&Path>, driver: FileAccess) -> io::Result<()> {
    let access = SYSTEM_FILES.iter().fold(driver, |access, path| access.read(*path));
    let access = dirs.0.iter().fold(access, |access, dir| access.read(dir));
    let socket_dir = control_socket.map(|path| path.parent().filter(|dir| !dir.as_os_str().is_empty()));
    let access = match socket_dir {
        None => access,
        Some(dir) => access.remove(dir.unwrap_or(Path::new("."))),
    };
    match access.limit_thread()? {
        FileAccessLimit::Full => tracing::debug!("access to files limited by Landlock"),
        FileAccessLimit::Partial => tracing::debug!("access to files limited by Landlock, as far as this kernel can"),
        FileAccessLimit::None => {
            tracing::debug!("access to files not limited: this kernel has no Landlock, or it is off");
            return Ok(());
        }
    }
    LIMITED.store(true, Ordering::Relaxed);
    Ok(())
}

/// What to add to the error of a file that cannot be read.
pub(crate) fn denied_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied && LIMITED.load(Ordering::Relaxed) {
        "; a running gateway reads only the directories of the ruleset, the includes and the services that it was started with: restart it to read others"
    } else {
        ""
    }
}
