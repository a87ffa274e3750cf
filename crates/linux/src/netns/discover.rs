//! Which network namespaces there are, and work inside one.
//!
//! A namespace is found by its name (a file below `/run/netns` or Docker's directory) or by a process in it; one found
//! twice counts once, by its inode.
use super::enter::{run_on_thread, setns};
use crate::sysroot::{FileError, SysRoot};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Its inode, as the kernel's log and `lsns` print it.
    pub inode: u64,
    /// Its name below `/run/netns`, or the process with the lowest number in it.
    pub name: String,
    /// A file by which it is entered.
    pub path: PathBuf,
    /// A process in it, if one was seen.
    pub pid: Option<u32>,
    /// Is it the one of this process?
    pub is_current: bool,
}

/// The namespaces found, and why others were not.
#[derive(Clone, Debug, Default)]
pub struct NetnsList {
    /// Ours first, then by name.
    pub namespaces: Vec<Netns>,
    /// Processes whose namespace could not be read: permission denied.
    pub denied: Vec<u32>,
    /// Namespaces over the limit, which are not listed.
    pub over_limit: usize,
}

impl NetnsList {
    /// Which processes' namespaces could not be read, and how to read them; `None` if all could.
    pub fn hidden(&self) -> Option<HiddenNetns> {
        let first = *self.denied.first()?;
        let root = SysRoot::live();
        let name = root.read(format!("/proc/{first}/comm")).map(|name| name.trim().to_owned()).unwrap_or_default();
        let reason = match self.denied.len() {
            1 => format!("permission denied for process {first} ({name})"),
            count => format!("permission denied for {count} processes, the first is {first} ({name})"),
        };
        // Root of a container, or of a user namespace that the process is not in, may not read it either.
        let denied_to_root = root.read("/proc/self/status").is_ok_and(|text| is_root(&text));
        let hint = match denied_to_root {
            true => "from outside this container or user namespace: root in here is not permitted",
            false => "as root (CAP_SYS_PTRACE)",
        };
        Some(HiddenNetns { reason, hint })
    }
}

/// Why a namespace could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenNetns {
    /// The processes concerned.
    pub reason: String,
    /// From where it can be read.
    pub hint: &'static str,
}

/// Does `/proc/PID/status` show the effective user 0?
fn is_root(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    users.is_some_and(|users| users.split_whitespace().nth(1) == Some("0"))
}

/// Directories that hold a file for each namespace with a name.
const NETNS_DIRECTORIES: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// The namespaces of this machine, `limit` at most, with those that could not be read counted.
///
/// # Errors
/// Not even our own can be read.
pub fn list(limit: usize) -> Result<NetnsList, FileError> {
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
    let over_limit = namespaces.len().saturating_sub(limit);
    namespaces.truncate(limit);
    Ok(NetnsList { namespaces, denied, over_limit })
}

/// The namespace this thread is in.
///
/// # Errors
/// `/proc` cannot be read.
pub fn current() -> Result<Netns, FileError> {
    let handle = PathBuf::from("/proc/thread-self/ns/net");
    let inode = netns_inode(&handle).map_err(|source| FileError { path: handle.clone(), operation: "read", source })?;
    // Entered by a path that means the same for every thread of the process.
    let handle = PathBuf::from(format!("/proc/{}/ns/net", std::process::id()));
    Ok(Netns { inode, name: "this namespace".into(), path: handle, pid: Some(std::process::id()), is_current: true })
}

/// The namespace with this name below `/run/netns`, or of the process with this id.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<Netns, FileError> {
    let handle = match name.parse::<u32>() {
        Ok(process) => PathBuf::from(format!("/proc/{process}/ns/net")),
        Err(_) => NETNS_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())
            .unwrap_or_else(|| Path::new(NETNS_DIRECTORIES[0]).join(name)),
    };
    let failed = |source| FileError { path: handle.clone(), operation: "read", source };
    let metadata = handle.metadata().map_err(failed)?;
    if !is_nsfs(&handle) {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is the file of no namespace")));
    }
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
    /// Is it still there under its name? A socket that was opened in it keeps it alive, empty, when everybody else has left it.
    ///
    /// # Errors
    /// Its file is gone, or is that of another namespace.
    pub fn check(&self) -> Result<(), FileError> {
        let failed = |source| FileError { path: self.path.clone(), operation: "read", source };
        match self.path.metadata().map_err(failed)?.ino() {
            inode if inode == self.inode => Ok(()),
            _ => Err(failed(io::Error::new(io::ErrorKind::NotFound, "it is another namespace by now"))),
        }
    }

    /// Runs `work` inside this namespace, on a thread of its own. [`SysRoot::live`] reads that namespace's files there, and programs
    /// started there run there.
    ///
    /// # Errors
    /// Permission denied, or the namespace is gone.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, FileError> {
        let failed = |source| FileError { path: self.path.clone(), operation: "entered", source };
        let namespace = File::open(&self.path).map_err(failed)?;
        run_on_thread(|| setns(namespace.as_fd()).map(|()| work())).map_err(failed)
    }
}

/// Is this the file of a namespace? All of them are on the same device (nsfs).
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

/// The label of a namespace without a name: the process by which it was found.
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
