//! What is there: every knob of connection tracking, whether it may be written, and how full the table is.
use super::sysctl_file;
use crate::size::gather;
use anyhow::{Context, Result};
use keepstate_advisor::tune::{COUNT, CurrentState, CurrentSysctl};
use keepstate_linux::{SysRoot, sysctl};

/// Looks at the knobs below `root`.
///
/// # Errors
/// The directory of knobs cannot be read.
pub(super) fn read(root: &SysRoot) -> Result<CurrentState> {
    let mut situation = CurrentState { object_size: 256, ..CurrentState::default() };
    for name in root.list_dir("/proc/sys/net/netfilter").context("the knobs")? {
        if !name.starts_with("nf_conntrack_") {
            continue;
        }
        let key = format!("net.netfilter.{name}");
        let Ok(value) = sysctl::read_u64(root, &key) else { continue };
        situation.sysctls.insert(key.clone(), CurrentSysctl { value, writable: sysctl_file::is_writable(root, &key) });
    }
    situation.count = situation.sysctls.get(COUNT).and_then(|present| present.value);
    if let Ok(machine) = gather::read_machine(root) {
        situation.object_size = machine.object_size.0;
    }
    Ok(situation)
}
