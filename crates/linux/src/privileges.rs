//! What a process may do beyond its user's rights, given up for good: capabilities, and gaining new ones by exec.
//!
//! Linux keeps both for each thread, and a thread begins with those of the one that started it: drop them before the first thread, or in the thread itself.
use crate::file_access::FileAccess;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{
    CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use rustix::thread::CapabilitySet;

/// Keeps these capabilities, of those that the calling thread has; a program that it starts gets none of them, and none by a setuid bit or a file's capabilities either.
///
/// # Errors
/// The kernel refuses it. Dropping never needs a right.
pub fn keep_capabilities(wanted: CapabilitySet) -> io::Result<()> {
    let present = capabilities(None)?;
    let kept = present.permitted & wanted;
    // For root an exec brings back what is in the bounding set. Only who has CAP_SETPCAP may shrink it; no_new_privs has the same effect for programs started from here.
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(one) {
            // No such capability in this kernel: there are no further ones.
            Err(Errno::INVAL) => break,
            Err(Errno::PERM) => break,
            other => other?,
        }
    }
    match clear_ambient_capability_set() {
        Ok(()) | Err(Errno::INVAL) => (),
        Err(error) => return Err(error.into()),
    }
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() })?;
    Ok(set_no_new_privs(true)?)
}

/// What the calling thread may do beyond its user's rights.
///
/// # Errors
/// The kernel does not say.
pub fn effective_capabilities() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// Drops all capabilities of the calling thread, and of the programs that it starts.
///
/// # Errors
/// As [`keep_capabilities`].
pub fn drop_thread_capabilities() -> io::Result<()> {
    keep_capabilities(CapabilitySet::empty())
}

/// Drops all capabilities of the calling thread and its access to files that are not open yet, as far as the kernel can: for a thread that only computes, waits, or uses what it has.
///
/// # Errors
/// As [`keep_capabilities`] and [`FileAccess::limit_thread`].
pub fn drop_thread_privileges() -> io::Result<()> {
    drop_thread_capabilities()?;
    FileAccess::default().limit_thread().map(drop)
}

/// Runs `work` with another file mode creation mask. The mask is the whole process's: only for a time in which no other thread makes files.
pub fn with_umask<T>(mask: u32, work: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_raw_mode(mask));
    let result = work();
    umask(before);
    result
}

/// Does a file, or the directory that it is to be created in, belong to another user? Then root needs CAP_DAC_OVERRIDE for it.
pub fn is_other_users(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [path, parent].into_iter().any(|path| fs::metadata(path).is_ok_and(|found| found.uid() != own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The masks and the flag that /proc says of a program started by a thread that has kept `wanted`.
    fn status_of_a_child(wanted: CapabilitySet) -> Vec<(String, u64)> {
        let child = move || {
            keep_capabilities(wanted).unwrap();
            Command::new("cat").arg("/proc/self/status").output().unwrap()
        };
        let out = std::thread::spawn(child).join().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        fields
            .filter(|(name, _)| name.starts_with("Cap") || *name == "NoNewPrivs")
            .map(|(name, value)| (name.to_owned(), u64::from_str_radix(value, 16).unwrap()))
            .collect()
    }

    #[test]
    fn a_program_started_afterwards_has_no_capability() {
        for wanted in [CapabilitySet::empty(), CapabilitySet::NET_ADMIN] {
            let status = status_of_a_child(wanted);
            let value = |name: &str| status.iter().find(|(found, _)| found == name).unwrap().1;
            assert_eq!((value("CapEff"), value("CapPrm"), value("CapInh"), value("CapAmb")), (0, 0, 0, 0));
            assert_eq!(value("NoNewPrivs"), 1);
        }
    }

    #[test]
    fn the_thread_keeps_what_is_wanted_and_other_threads_keep_all() {
        let before = capabilities(None).unwrap().permitted;
        let kept = std::thread::spawn(|| {
            keep_capabilities(CapabilitySet::NET_RAW).unwrap();
            capabilities(None).unwrap().permitted
        });
        assert_eq!(kept.join().unwrap(), before & CapabilitySet::NET_RAW);
        assert_eq!(capabilities(None).unwrap().permitted, before);
    }
}
