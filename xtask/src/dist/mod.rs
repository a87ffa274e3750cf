//! `cargo xtask dist`: packages for Debian, in `target/dist`, made of one list of files ([`tree`]) by dpkg-deb: nothing has to be built for it but the program.
mod check;
mod deb;
mod tools;
mod tree;

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use tools::{DistFolders, run};

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
