//! Network namespaces: which there are, and looking around inside one.
//!
//! A namespace is found by its name (a file below `/run/netns` or Docker's directory) or by a process that lives in it; one found
//! twice is one, by its inode. Whoever looks inside does so on a thread of its own, which enters, looks and ends: the thread that
//! asks never leaves its own namespace.
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper in std")]
use crate::sysroot::{FileError, SysRoot};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Its inode, as the kernel's log and `lsns` print it.
    pub inode: u64,
    /// What it is called: its name below `/run/netns`, or the oldest process in it.
    pub name: String,
    /// A file to enter it by.
    pub path: PathBuf,
    /// One process that lives in it, if any was seen.
    pub pid: Option<u32>,
    /// Is it the one that this process is in?
    pub is_current: bool,
}

/// The namespaces found, and what kept others from being found.
#[derive(Clone, Debug, Default)]
pub struct NetnsList {
    /// Ours first, then by name.
    pub namespaces: Vec<Netns>,
    /// Processes whose namespace may not be asked for.
    pub denied: Vec<u32>,
    /// Namespaces beyond the bound, which are not listed.
    pub over_limit: usize,
}

impl NetnsList {
    /// Which processes hide theirs, and how to see them; none where nobody does.
    pub fn hidden(&self) -> Option<HiddenNetns> {
        let first = *self.denied.first()?;
        let root = SysRoot::live();
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
        Some(HiddenNetns { why, hint: how })
    }
}

/// Why a namespace was not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenNetns {
    /// Who hides it.
    pub why: String,
    /// From where it can be seen.
    pub hint: &'static str,
}

/// Does `/proc/PID/status` show the effective user 0?
fn is_root(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().nth(1) == Some("0"))
}

/// Directories that hold a file for each namespace with a name.
const NETNS_DIRECTORIES: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Every namespace of this machine that can be found, `bound` at most.
///
/// # Errors
/// If not even our own can be.
pub fn list(bound: usize) -> Result<NetnsList, FileError> {
    let own = current()?;
    let mut found: BTreeMap<u64, Netns> = BTreeMap::new();
    let mut denied = Vec::new();
    let root = SysRoot::live();
    for directory in NETNS_DIRECTORIES {
        for name in root.list_dir(directory).unwrap_or_default() {
            let handle = Path::new(directory).join(&name);
            // Without the right to enter, the file is that of an empty mount point, whose inode means nothing.
            let Ok(metadata) = handle.metadata() else { continue };
            let inode = metadata.ino();
            if metadata.len() == 0 && is_nsfs(&handle) {
                found.entry(inode).or_insert(Netns { inode, name, path: handle, pid: None, is_current: false });
            }
        }
    }
    let mut processes: Vec<u32> = root.list_dir("/proc")?.iter().filter_map(|name| name.parse().ok()).collect();
    processes.sort_unstable();
    for process in processes {
        let handle = PathBuf::from(format!("/proc/{process}/ns/net"));
        match netns_inode(&handle) {
            Ok(inode) => {
                let known = found.entry(inode).or_insert_with(|| Netns {
                    inode,
                    name: process_label(&root, process),
                    path: handle,
                    pid: None,
                    is_current: false,
                });
                known.pid.get_or_insert(process);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied.push(process),
            // It ended meanwhile.
            Err(_) => (),
        }
    }
    found.insert(own.inode, own);
    let mut namespaces: Vec<Netns> = found.into_values().collect();
    namespaces.sort_by(|a, b| (!a.is_current, &a.name).cmp(&(!b.is_current, &b.name)));
    let beyond = namespaces.len().saturating_sub(bound);
    namespaces.truncate(bound);
    Ok(NetnsList { namespaces, denied, over_limit: beyond })
}

/// The namespace this thread is in.
///
/// # Errors
/// If `/proc` does not say.
pub fn current() -> Result<Netns, FileError> {
    let handle = PathBuf::from("/proc/thread-self/ns/net");
    let inode = netns_inode(&handle).map_err(|source| FileError { path: handle.clone(), operation: "read", source })?;
    // Entered by a path that means the same for every thread of the process.
    let handle = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    Ok(Netns { inode, name: "this namespace".into(), path: handle, pid: Some(std::process::id()), is_current: true })
}

/// The namespace with this name below `/run/netns`, or of the process with this number.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<Netns, FileError> {
    let handle = match name.parse::<u32>() {
        Ok(process) => PathBuf::from(format!("/proc/{process}/ns/net")),
        Err(_) => NETNS_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| Path::new(NETNS_DIRECTORIES[0]).join(name)),
    };
    let metadata = handle.metadata().map_err(|source| FileError { path: handle.clone(), operation: "read", source })?;
    let is_ours = current().is_ok_and(|ours| ours.inode == metadata.ino());
    Ok(Netns {
        inode: metadata.ino(),
        name: name.to_owned(),
        path: handle,
        pid: name.parse().ok(),
        is_current: is_ours,
    })
}

impl Netns {
    /// Does `look` inside this namespace, on a thread of its own. Files are there to be read by [`Root::live`], and programs
    /// started there run there.
    ///
    /// # Errors
    /// If it may not be entered, or is gone.
    pub fn enter<T: Send>(&self, look: impl FnOnce() -> T + Send) -> Result<T, FileError> {
        let failed = |source| FileError { path: self.path.clone(), operation: "entered", source };
        let door = File::open(&self.path).map_err(failed)?;
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
fn is_nsfs(handle: &Path) -> bool {
    let ours = Path::new("/proc/thread-self/ns/net").metadata();
    match (handle.metadata(), ours) {
        (Ok(this), Ok(ours)) => this.dev() == ours.dev(),
        _ => false,
    }
}

/// The inode in a link like `net:[4026531833]`.
fn netns_inode(link: &Path) -> io::Result<u64> {
    let target = std::fs::read_link(link)?;
    let text = target.to_string_lossy();
    let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// What a namespace without a name is called: the process by which it was found.
fn process_label(root: &SysRoot, process: u32) -> String {
    let program = root.read(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("process {process} ({})", program.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_netns_is_listed_first_and_can_be_entered() {
        let found = list(64).unwrap();
        let first = &found.namespaces[0];
        assert!(first.is_current && first.inode == current().unwrap().inode);
        // Entering needs CAP_SYS_ADMIN even for one's own.
        match first.enter(|| current().unwrap().inode) {
            Ok(inode) => assert_eq!(inode, first.inode),
            Err(error) => assert!(error.is_permission_denied(), "{error}"),
        }
    }

    #[test]
    fn missing_netns_is_an_error() {
        let error = find("no-such-namespace").unwrap_err();
        assert!(error.is_not_found() && error.to_string().contains("/run/netns/no-such-namespace"), "{error}");
        assert_eq!(list(0).unwrap().namespaces.len(), 0);
    }
}
