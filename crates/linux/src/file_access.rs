//! Which files a thread may use, limited for good by Landlock, a security module of the kernel (5.13 and newer). Files that are open already stay usable.
//!
//! As with capabilities, the limit is the thread's, and threads and programs that it starts begin with it. Without Landlock nothing is limited.
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};
use std::io;
use std::path::{Path, PathBuf};

/// The newest rights that are limited where the kernel knows them: those of Linux 6.10.
const RIGHTS: ABI = ABI::V5;

/// What stays possible. Paths that do not exist when the thread is limited are left out.
#[derive(Clone, Debug, Default)]
pub struct FileAccess {
    allowed: Vec<(PathBuf, BitFlags<AccessFs>)>,
}

/// How much of it the kernel enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAccessLimit {
    /// All that Linux 6.10 does.
    Full,
    /// An older kernel: some rights are not limited.
    Partial,
    /// The kernel has no Landlock, or it is off.
    None,
}

impl FileAccess {
    /// Files at and below this path may be read.
    #[must_use]
    pub fn read(self, path: impl Into<PathBuf>) -> FileAccess {
        self.allow(path.into(), make_bitflags!(AccessFs::{ReadFile | ReadDir}))
    }

    /// As [`FileAccess::read`], and programs there may be started.
    #[must_use]
    pub fn execute(self, path: impl Into<PathBuf>) -> FileAccess {
        self.allow(path.into(), AccessFs::from_read(RIGHTS))
    }

    /// Files at and below this path may be read, written, made, renamed and removed, but no devices made.
    #[must_use]
    pub fn write(self, path: impl Into<PathBuf>) -> FileAccess {
        let rights = make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | MakeSock | MakeFifo | MakeSym | RemoveFile | RemoveDir | Refer
        });
        self.allow(path.into(), rights)
    }

    /// Device files at and below this path may be read, written and given commands.
    #[must_use]
    pub fn device(self, path: impl Into<PathBuf>) -> FileAccess {
        self.allow(path.into(), make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev | Truncate}))
    }

    /// Files and empty directories below this directory may be removed.
    #[must_use]
    pub fn remove(self, directory: impl Into<PathBuf>) -> FileAccess {
        self.allow(directory.into(), make_bitflags!(AccessFs::{RemoveFile | RemoveDir}))
    }

    fn allow(mut self, path: PathBuf, rights: BitFlags<AccessFs>) -> FileAccess {
        self.allowed.push((path, rights));
        self
    }

    /// Limits the calling thread to this, and to what it was limited to before. Programs that it starts gain nothing by a setuid bit any more.
    ///
    /// # Errors
    /// The kernel has Landlock, and refuses.
    pub fn limit_thread(&self) -> io::Result<FileAccessLimit> {
        let refused = |error: RulesetError| io::Error::other(format!("Landlock: {error}"));
        let rules = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
        let rules = rules.handle_access(AccessFs::from_all(RIGHTS)).and_then(Ruleset::create).map_err(refused)?;
        let rules = self.allowed.iter().try_fold(rules, |rules, (path, rights)| {
            // One that cannot even be looked up is of no use to this thread.
            let Ok(opened) = PathFd::new(path) as Result<PathFd, PathFdError> else { return Ok(rules) };
            let rights = if is_directory(path) { *rights } else { *rights & AccessFs::from_file(RIGHTS) };
            if rights.is_empty() { Ok(rules) } else { rules.add_rule(PathBeneath::new(opened, rights)) }
        });
        Ok(match rules.and_then(|rules| rules.restrict_self()).map_err(refused)?.ruleset {
            RulesetStatus::FullyEnforced => FileAccessLimit::Full,
            RulesetStatus::PartiallyEnforced => FileAccessLimit::Partial,
            RulesetStatus::NotEnforced => FileAccessLimit::None,
        })
    }
}

fn is_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use keepstate_test_support::report_skipped;
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;
    use std::process::Command;

    /// Runs `work` on a thread limited to `access`; `None` where the kernel has no Landlock.
    fn limited<T: Send + 'static>(access: FileAccess, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let thread = std::thread::spawn(move || (access.limit_thread().unwrap() != FileAccessLimit::None).then(work));
        let result = thread.join().unwrap();
        if result.is_none() {
            report_skipped("limits of file access: the kernel has no Landlock");
        }
        result
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_other_threads_are_not_limited() {
        let folder = tempfile::tempdir().unwrap();
        let (readable, writable, other) =
            (folder.path().join("read"), folder.path().join("write"), folder.path().join("other"));
        for directory in [&readable, &writable, &other] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("a"), "text").unwrap();
        }
        let access = FileAccess::default().read(&readable).write(&writable).remove(&other).read("/nonexistent");
        let there = other.clone();
        let ran = limited(access, move || {
            let error = |result: io::Result<()>| result.unwrap_err().kind();
            assert_eq!(fs::read_to_string(readable.join("a")).unwrap(), "text");
            assert_eq!(fs::read_dir(&readable).unwrap().count(), 1);
            assert_eq!(error(fs::write(readable.join("a"), "x")), PermissionDenied);
            assert_eq!(error(fs::remove_file(readable.join("a"))), PermissionDenied);
            assert_eq!(fs::read_to_string(other.join("a")).unwrap_err().kind(), PermissionDenied);
            assert_eq!(error(fs::write(other.join("b"), "x")), PermissionDenied);
            fs::remove_file(other.join("a")).unwrap();
            fs::write(writable.join("b"), "x").unwrap();
            fs::rename(writable.join("b"), writable.join("a")).unwrap();
            fs::File::open(&writable).unwrap().sync_all().unwrap();
            assert_eq!(Command::new("true").status().unwrap_err().kind(), PermissionDenied);
        });
        if ran.is_some() {
            fs::write(there.join("b"), "of another thread").unwrap();
        }
    }

    #[test]
    fn a_program_that_may_be_started_has_the_limits_of_its_thread() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let access = FileAccess::default().execute("/").device("/dev");
        let script = format!("cat /proc/self/status >/dev/null && ! echo x >{}", target.display());
        let ran = limited(access, move || Command::new("sh").args(["-c", &script]).status().unwrap());
        assert!(ran.is_none_or(|status| status.success() && !target.exists()));
    }
}
