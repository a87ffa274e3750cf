//! Writing a sysctl and reading it back: a value that does not hold is an error.
use crate::sysctl_file;
use anyhow::{Context, Result, bail};
use keepstate_linux::{SysRoot, atomic_file};

/// Writes a sysctl and reads it back.
///
/// # Errors
/// If it cannot be written, or has another value afterwards.
pub fn write_and_verify(root: &SysRoot, key: &str, value: &str) -> Result<()> {
    atomic_file::kill_point();
    let hint = "needs root in the initial network namespace (CAP_NET_ADMIN); in a container, set it on the host";
    sysctl_file::write(root, key, value).with_context(|| format!("cannot set {key}={value}: {hint}"))?;
    atomic_file::kill_point();
    let found = sysctl_file::read(root, key)?;
    if found != value {
        bail!(
            "{key} was set to {value} but is {found}: another program writes it too, or the kernel adjusted the value"
        );
    }
    Ok(())
}
