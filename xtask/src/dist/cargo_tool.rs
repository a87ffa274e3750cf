//! Programs that `cargo install` builds, each in the version that we know: taken where it is installed, else built once into `target/tools`.
use super::tools::{DistFolders, output, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the crate registry.
pub(super) struct CargoTool {
    /// Its crate, which is also the program's name.
    pub(super) name: &'static str,
    /// The version that is built.
    pub(super) version: &'static str,
}

impl CargoTool {
    /// The program: that of the path, if it is of the same minor version, else our own.
    ///
    /// # Errors
    /// It could not be built.
    pub(super) fn program(&self, folders: &DistFolders) -> Result<PathBuf> {
        if self.is_version(Path::new(self.name)) {
            return Ok(self.name.into());
        }
        let tools = folders.target.join("tools");
        let program = tools.join("bin").join(self.name);
        if !self.is_installed(&tools) {
            let mut cargo = Command::new("cargo");
            cargo.args(["install", self.name, "--locked", "--force", "--version", self.version, "--root"]).arg(&tools);
            run(&mut cargo).with_context(|| format!("{} could not be installed", self.name))?;
        }
        Ok(program)
    }

    /// Has cargo noted our version in this folder? Not every program tells its own: cargo-auditable does not.
    fn is_installed(&self, tools: &Path) -> bool {
        let noted = fs::read_to_string(tools.join(".crates.toml")).unwrap_or_default();
        noted.contains(&format!("\"{} {} ", self.name, self.version)) && tools.join("bin").join(self.name).exists()
    }

    /// Does it name our minor version, in whatever words it has?
    fn is_version(&self, program: &Path) -> bool {
        let minor = self.version.rsplit_once('.').map_or(self.version, |(minor, _)| minor);
        let names = |word: &str| word.trim_start_matches('v').starts_with(&format!("{minor}."));
        output(Command::new(program).arg("--version")).is_ok_and(|said| said.split_whitespace().any(names))
    }
}
