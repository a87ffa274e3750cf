//! `cargo xtask dist`: packages for Debian and for RPM, a static program as an archive and as a container image, the book as pages, in `target/dist`. All are made of one list of files ([`tree`]) by the distributions' own
//! tools; nothing has to be built for it but the program, once for glibc and once static.
mod archive;
mod auditable;
mod book;
mod cargo_tool;
mod check;
mod check_static;
mod clean_root;
mod deb;
mod rpm;
mod third_party;
mod tools;
mod tree;

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tools::{DistFolders, STATIC_TARGET, run};

/// Make the packages keepstate and keepstate-gateway for Debian and RPM, the static archive, the container image
#[derive(clap::Args)]
pub struct Dist {
    /// Check what was made: lintian, rpmlint; install, run and remove in a clean root; read and run the image
    #[arg(long)]
    check: bool,
    /// Take the binaries of this profile; dev is quick to build, and not for others
    #[arg(long, default_value = "release", value_parser = ["release", "dev"])]
    profile: String,
    /// Make only these; the book is made only if it is named: it needs mdBook
    #[arg(long, value_delimiter = ',', default_values = PACKAGES, value_parser = KINDS)]
    only: Vec<String>,
}

/// What can be made.
const KINDS: [&str; 5] = ["deb", "static", "rpm", "image", "book"];
const PACKAGES: [&str; 4] = ["deb", "static", "rpm", "image"];

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
        let wants = |kind: &str| self.only.iter().any(|wanted| wanted == kind);
        if wants("deb") {
            deb::make(&folders, &self.build(&folders, None)?)?;
        }
        if PACKAGES[1..].iter().any(|kind| wants(kind)) {
            let binary = self.build(&folders, Some(STATIC_TARGET)).with_context(|| {
                format!("the static program needs: rustup target add {STATIC_TARGET}, apt-get install musl-tools")
            })?;
            type Make = fn(&DistFolders, &Path) -> Result<()>;
            let makers: [(&str, Make); 3] =
                [("static", archive::tarball), ("rpm", rpm::make), ("image", archive::image)];
            makers.iter().filter(|(kind, _)| wants(kind)).try_for_each(|(_, make)| make(&folders, &binary))?;
        }
        if wants("book") {
            book::make(&folders)?;
        }
        for entry in fs::read_dir(&folders.out)? {
            let path = entry?.path();
            if path.is_file() {
                println!("{} ({} kB)", path.display(), fs::metadata(&path)?.len() / 1024);
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Builds the program, for this machine or for another target; its path.
    fn build(&self, folders: &DistFolders, target: Option<&str>) -> Result<PathBuf> {
        let mut cargo = auditable::cargo(folders);
        cargo.current_dir(&folders.root).args([
            "build",
            "--locked",
            "--package",
            "keepstate",
            "--profile",
            &self.profile,
        ]);
        target.into_iter().for_each(|target| _ = cargo.args(["--target", target]));
        run(&mut cargo)?;
        let folder = if self.profile == "dev" { "debug" } else { "release" };
        Ok(folders.target.join(target.unwrap_or_default()).join(folder).join("keepstate"))
    }
}
