//! Network namespaces: which there are, and looking around inside one.
//!
//! A namespace is found by its name (a file below `/run/netns` or Docker's directory) or by a process that lives in it; one found
//! twice is one, by its inode. Whoever looks inside does so on a thread of its own, which enters, looks and ends: the thread that
//! asks never leaves its own namespace.
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]
use crate::root::{Root, Unreadable};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode, as the kernel's log and `lsns` print it.
    pub inode: u64,
    /// What it is called: its name below `/run/netns`, or the oldest process in it.
    pub name: String,
    /// A file to enter it by.
    pub handle: PathBuf,
    /// One process that lives in it, if any was seen.
    pub process: Option<u32>,
    /// Is it the one that this process is in?
    pub is_ours: bool,
}

/// The namespaces found, and what kept others from being found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Ours first, then by name.
    pub namespaces: Vec<Namespace>,
    /// Processes whose namespace may not be asked for.
    pub denied: Vec<u32>,
    /// Namespaces beyond the bound, which are not listed.
    pub beyond: usize,
}

impl Found {
    /// Which processes hide theirs, and how to see them; none where nobody does.
    pub fn hidden(&self) -> Option<Hidden> {
        let first = *self.denied.first()?;
        let root = Root::live();
        let name = root.read(format!("/proc/{first}/comm")).map(|name| name.trim().to_owned()).unwrap_or_default();
        let why = match self.denied.len() {
            1 => format!("process {first} ({name}) does not show its own"),
            many => format!("{many} processes do not show theirs, the first is {first} ({name})"),
        };
        // Root of a container, or beside a process of another user namespace, may not look either.
        let may_not_even_as_root = root.read("/proc/self/status").is_ok_and(|text| is_root(&text));
        let how = match may_not_even_as_root {
            true => "from outside this container or user namespace: root in here may not look at it",
            false => "as root (CAP_SYS_PTRACE)",
        };
        Some(Hidden { why, how })
    }
}

/// Why a namespace was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Who hides it.
    pub why: String,
    /// From where it can be seen.
    pub how: &'static str,
}

/// Does `/proc/PID/status` show the effective user 0?
fn is_root(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().nth(1) == Some("0"))
}

/// Directories that hold a file for each namespace with a name.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Every namespace of this machine that can be found, `bound` at most.
///
/// # Errors
/// If not even our own can be.
pub fn all(bound: usize) -> Result<Found, Unreadable> {
    let own = ours()?;
    let mut found: BTreeMap<u64, Namespace> = BTreeMap::new();
    let mut denied = Vec::new();
    let root = Root::live();
    for directory in NAMED {
        for name in root.names(directory).unwrap_or_default() {
            let handle = Path::new(directory).join(&name);
            // Without the right to enter, the file is that of an empty mount point, whose inode means nothing.
            let Ok(metadata) = handle.metadata() else { continue };
            let inode = metadata.ino();
            if metadata.len() == 0 && is_namespace(&handle) {
                found.entry(inode).or_insert(Namespace { inode, name, handle, process: None, is_ours: false });
            }
        }
    }
    let mut processes: Vec<u32> = root.names("/proc")?.iter().filter_map(|name| name.parse().ok()).collect();
    processes.sort_unstable();
    for process in processes {
        let handle = PathBuf::from(format!("/proc/{process}/ns/net"));
        match inode(&handle) {
            Ok(inode) => {
                let known = found.entry(inode).or_insert_with(|| Namespace {
                    inode,
                    name: named_after(&root, process),
                    handle,
                    process: None,
                    is_ours: false,
                });
                known.process.get_or_insert(process);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied.push(process),
            // It ended meanwhile.
            Err(_) => (),
        }
    }
    found.insert(own.inode, own);
    let mut namespaces: Vec<Namespace> = found.into_values().collect();
    namespaces.sort_by(|a, b| (!a.is_ours, &a.name).cmp(&(!b.is_ours, &b.name)));
    let beyond = namespaces.len().saturating_sub(bound);
    namespaces.truncate(bound);
    Ok(Found { namespaces, denied, beyond })
}

/// The namespace this thread is in.
///
/// # Errors
/// If `/proc` does not say.
pub fn ours() -> Result<Namespace, Unreadable> {
    let handle = PathBuf::from("/proc/thread-self/ns/net");
    let inode = inode(&handle).map_err(|source| Unreadable { path: handle.clone(), doing: "read", source })?;
    // Entered by a path that means the same for every thread of the process.
    let handle = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    Ok(Namespace { inode, name: "this namespace".into(), handle, process: Some(std::process::id()), is_ours: true })
}

/// The namespace with this name below `/run/netns`, or of the process with this number.
///
/// # Errors
/// If there is none.
pub fn named(name: &str) -> Result<Namespace, Unreadable> {
    let handle = match name.parse::<u32>() {
        Ok(process) => PathBuf::from(format!("/proc/{process}/ns/net")),
        Err(_) => NAMED
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| Path::new(NAMED[0]).join(name)),
    };
    let metadata = handle.metadata().map_err(|source| Unreadable { path: handle.clone(), doing: "read", source })?;
    let is_ours = ours().is_ok_and(|ours| ours.inode == metadata.ino());
    Ok(Namespace { inode: metadata.ino(), name: name.to_owned(), handle, process: name.parse().ok(), is_ours })
}

impl Namespace {
    /// Does `look` inside this namespace, on a thread of its own. Files are there to be read by [`Root::live`], and programs
    /// started there run there.
    ///
    /// # Errors
    /// If it may not be entered, or is gone.
    pub fn enter<T: Send>(&self, look: impl FnOnce() -> T + Send) -> Result<T, Unreadable> {
        let failed = |source| Unreadable { path: self.handle.clone(), doing: "entered", source };
        let door = File::open(&self.handle).map_err(failed)?;
        let seen = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                // SAFETY: the descriptor is open, and the flag lets the kernel refuse one that is no network namespace. Only this
                // thread moves, and it ends in here.
                if unsafe { libc::setns(door.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(look())
            });
            inside.join()
        });
        match seen {
            Ok(seen) => seen.map_err(failed),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Is the file that of a namespace? Those of nsfs lie on no device of their own.
fn is_namespace(handle: &Path) -> bool {
    let ours = Path::new("/proc/thread-self/ns/net").metadata();
    match (handle.metadata(), ours) {
        (Ok(this), Ok(ours)) => this.dev() == ours.dev(),
        _ => false,
    }
}

/// The inode in a link like `net:[4026531833]`.
fn inode(link: &Path) -> io::Result<u64> {
    let target = std::fs::read_link(link)?;
    let text = target.to_string_lossy();
    let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// What a namespace without a name is called: the process by which it was found.
fn named_after(root: &Root, process: u32) -> String {
    let program = root.read(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("process {process} ({})", program.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_found_first_and_entered() {
        let found = all(64).unwrap();
        let first = &found.namespaces[0];
        assert!(first.is_ours && first.inode == ours().unwrap().inode);
        // Entering needs CAP_SYS_ADMIN even for one's own.
        match first.enter(|| ours().unwrap().inode) {
            Ok(inode) => assert_eq!(inode, first.inode),
            Err(error) => assert!(error.is_denied(), "{error}"),
        }
    }

    #[test]
    fn what_is_not_there_is_said() {
        let error = named("no-such-namespace").unwrap_err();
        assert!(error.is_absent() && error.to_string().contains("/run/netns/no-such-namespace"), "{error}");
        assert_eq!(all(0).unwrap().namespaces.len(), 0);
    }
}
