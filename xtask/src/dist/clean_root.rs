//! A clean Debian root to install packages in: made by debootstrap, entered with a network of its own.
use super::tools::{DistFolders, output, run};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Debian root of our own, made once.
pub(super) fn clean_root(folders: &DistFolders) -> Result<PathBuf> {
    let clean = folders.target.join("dist-root");
    if !clean.join("usr/bin/dpkg").exists() {
        let partial = folders.target.join("dist-root.partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        println!("making a Debian root (once, two minutes)");
        run(Command::new("debootstrap")
            .args(["--variant=minbase", "bookworm"])
            .arg(&partial)
            .stdout(std::process::Stdio::null()))?;
        fs::rename(partial, &clean)?;
    }
    Ok(clean)
}

/// Runs a script in the root, with its own network and processes of proc.
pub(super) fn enter(root: &Path, script: &str) -> Result<()> {
    let setup = r#"mount --rbind /proc "$0/proc" && mount --rbind /sys "$0/sys" && mount --rbind /dev "$0/dev" && exec chroot "$0" /bin/sh -c "$1""#;
    run(Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", setup])
        .arg(root)
        .arg(script)
        .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C"))
    .with_context(|| format!("in the clean root: {script}"))
}

/// Every file of the root that a package could leave: not dpkg's own records, nor what was copied there.
pub(super) fn files(root: &Path) -> Result<BTreeSet<String>> {
    let found =
        output(Command::new("find").current_dir(root).args([".", "-xdev", "-mindepth", "1", "-printf", "%P\\n"]))?;
    let is_of_a_package = |path: &&str| {
        !["var/lib/dpkg", "var/log", "tmp", "var/cache", "run", "proc", "sys", "dev"]
            .iter()
            .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
            && !["etc/group-", "etc/gshadow-", "etc/ld.so.cache", "var/lib/dpkg"].contains(path)
    };
    Ok(found.lines().filter(is_of_a_package).map(str::to_owned).collect())
}
