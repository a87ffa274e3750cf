//! `cargo xtask dist`: packages for Debian, in `target/dist`, made of one list of files ([`tree`]) by dpkg-deb: nothing has to be built for it but the program.
mod check;
mod deb;
mod tree;

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Make the Debian packages keepstate and keepstate-gateway
#[derive(clap::Args)]
pub struct Dist {
    /// Check the packages that were made: lintian; install, run and remove in a clean Debian root
    #[arg(long)]
    check: bool,
    /// Take the binaries of this profile; dev is quick to build, and not for others
    #[arg(long, default_value = "release", value_parser = ["release", "dev"])]
    profile: String,
}

/// Where everything is.
struct DistFolders {
    /// The repository.
    root: PathBuf,
    /// What is made.
    out: PathBuf,
    /// Cargo's target directory.
    target: PathBuf,
}

impl Dist {
    /// Makes the packages, or checks them.
    pub fn run(self) -> Result<ExitCode> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let folders = DistFolders { out: target.join("dist"), root, target };
        if self.check {
            return check::check(&folders);
        }
        if folders.out.exists() {
            fs::remove_dir_all(&folders.out).context("removing the last run's packages")?;
        }
        fs::create_dir_all(&folders.out)?;
        let binary = self.build(&folders)?;
        deb::make(&folders, &binary)?;
        for entry in fs::read_dir(&folders.out)? {
            let path = entry?.path();
            if path.is_file() {
                println!("{} ({} kB)", path.display(), fs::metadata(&path)?.len() / 1024);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Builds the program; its path.
    fn build(&self, folders: &DistFolders) -> Result<PathBuf> {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(&folders.root).args([
            "build",
            "--locked",
            "--package",
            "keepstate",
            "--profile",
            &self.profile,
        ]);
        run(&mut cargo)?;
        let folder = if self.profile == "dev" { "debug" } else { "release" };
        Ok(folders.target.join(folder).join("keepstate"))
    }
}

/// Copies a program without its debugging information.
fn strip(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("strip").args(["--strip-unneeded", "-R", ".comment", "-o"]).arg(to).arg(from))
}

/// The version of all packages.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{:?} cannot be run", command.get_program()))?;
    if status.success() { Ok(()) } else { bail!("{} failed: {status}", described(command)) }
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
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
