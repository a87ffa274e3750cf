//! Where the packages are made, and the programs that are run for it.
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the static program.
#[cfg(target_arch = "aarch64")]
pub(super) const STATIC_TARGET: &str = "aarch64-unknown-linux-musl";
#[cfg(not(target_arch = "aarch64"))]
pub(super) const STATIC_TARGET: &str = "x86_64-unknown-linux-musl";

/// Where everything is.
pub(super) struct DistFolders {
    /// The repository.
    pub(super) root: PathBuf,
    /// What is made.
    pub(super) out: PathBuf,
    /// Cargo's target directory.
    pub(super) target: PathBuf,
}

/// Copies a program without its debugging information.
pub(super) fn strip(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").args(["--strip-unneeded", "-R", ".comment", "-o"]).arg(to).arg(from))
}

/// Is this program installed?
pub(super) fn is_there(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

/// The version of all packages.
pub(super) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Runs a command to its end.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?} cannot be run", command.get_program()))?;
    if status.success() { Ok(()) } else { bail!("{} failed: {status}", described(command)) }
}

/// What a command prints.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{:?} cannot be run", command.get_program()))?;
    if !output.status.success() {
        bail!("{} failed: {}", described(command), String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
