//! The current state of a machine: every conntrack sysctl, whether it can be written, and how full the table is.
use crate::sysctl_file;
use anyhow::{Context, Result};
use keepstate_advisor::tune::{COUNT, CurrentState, CurrentSysctl};
use keepstate_linux::{SysRoot, sysctl};

/// Reads the sysctls below `root`. `object_size` is the bytes of one connection.
///
/// # Errors
/// If the directory of sysctls cannot be read.
pub fn read_current_state(root: &SysRoot, object_size: u64) -> Result<CurrentState> {
    let mut current = CurrentState { object_size, ..CurrentState::default() };
    for name in root.list_dir("/proc/sys/net/netfilter").context("cannot list the conntrack sysctls")? {
        if !name.starts_with("nf_conntrack_") {
            continue;
        }
        let key = format!("net.netfilter.{name}");
        let Ok(value) = sysctl::read_u64(root, &key) else { continue };
        current.sysctls.insert(key.clone(), CurrentSysctl { value, writable: sysctl_file::is_writable(root, &key) });
    }
    current.count = current.sysctls.get(COUNT).and_then(|sysctl| sysctl.value);
    Ok(current)
}
