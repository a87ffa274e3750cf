//! Reads whose addresses and sockets there are: the namespaces of this machine, their addresses, their sockets with their cgroups.
use crate::owner::OwnerIndex;
use keepstate_linux::addresses::local_addresses;
use keepstate_linux::cgroup::{self, CgroupNames};
use keepstate_linux::netns::{self, Netns};
use keepstate_linux::sock_diag::{LocalSocket, local_sockets};
use keepstate_linux::{FileError, SysRoot};
use std::net::IpAddr;

/// Namespaces that are looked at.
const MAX_NAMESPACES: usize = 1024;

/// What one namespace tells.
type Told = (Vec<IpAddr>, Vec<LocalSocket>);

/// A picture of now. `own` is the namespace whose table is followed; `None` is this process's.
///
/// # Errors
/// Not even our own namespace can be read.
pub(crate) fn gather(own: Option<&Netns>) -> Result<OwnerIndex, FileError> {
    let root = SysRoot::live();
    let mut found = netns::list(MAX_NAMESPACES)?.namespaces;
    let is_own = |netns: &Netns| own.map_or(netns.is_current, |own| own.inode == netns.inode);
    found.sort_by_key(|netns| !is_own(netns));
    let cgroups = CgroupNames::read(&root).unwrap_or_default();
    let mut index = OwnerIndex::default();
    for netns in found {
        // One that may not be entered, or has gone, is not known: its connections are said to be unknown.
        let told = if netns.is_current { Ok(read_here()) } else { netns.enter(read_here) };
        let Ok((addresses, sockets)) = told else { continue };
        let process = netns.pid.and_then(|pid| cgroup::of_process(&root, pid));
        let name = if is_own(&netns) { format!("{} (this table's)", netns.name) } else { netns.name.clone() };
        let at = index.add_namespace(&name, &addresses, process.as_deref());
        for socket in sockets {
            let path = socket.cgroup.and_then(|id| cgroups.path(id));
            if let Some(path) = path {
                index.add_socket(at, (socket.protocol, socket.address, socket.port), path);
            }
        }
    }
    Ok(index)
}

fn read_here() -> Told {
    (local_addresses(&SysRoot::live()).unwrap_or_default(), local_sockets().unwrap_or_default())
}
