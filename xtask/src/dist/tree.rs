//! The files of the packages: where each comes from and where it goes.
use super::tools::{DistFolders, output, run, strip};
use anyhow::Result;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The package `keepstate`: the program, manual, completions, the units of doctor and serve.
pub(super) fn program(folders: &DistFolders, binary: &Path, into: &Path) -> Result<()> {
    let bin = into.join("usr/bin");
    fs::create_dir_all(&bin)?;
    strip(binary, &bin.join("keepstate"))?;
    mode(&bin.join("keepstate"), 0o755)?;
    let man = into.join("usr/share/man/man1");
    fs::create_dir_all(&man)?;
    run(Command::new(binary).args(["man", "--dir"]).arg(&man))?;
    for page in fs::read_dir(&man)? {
        run(Command::new("gzip").arg("-9n").arg(page?.path()))?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/keepstate"),
        ("zsh", "usr/share/zsh/vendor-completions/_keepstate"),
        ("fish", "usr/share/fish/vendor_completions.d/keepstate.fish"),
    ] {
        write(&into.join(place), &output(Command::new(binary).args(["completions", shell]))?)?;
    }
    for unit in fs::read_dir(folders.root.join("packaging/systemd"))? {
        let name = unit?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("keepstate-gateway") && name != "keepstate.sysusers" {
            unit_file(folders, &name, into)?;
        }
    }
    for file in ["prometheus/keepstate.rules.yaml", "grafana/keepstate.json"] {
        copy(folders, &format!("packaging/{file}"), &into.join("usr/share/keepstate").join(file))?;
    }
    copy(folders, "packaging/systemd/keepstate.sysusers", &into.join("usr/lib/sysusers.d/keepstate.conf"))
}

/// The package `keepstate-gateway`: units, configuration, schema.
pub(super) fn gateway(folders: &DistFolders, into: &Path) -> Result<()> {
    for unit in ["keepstate-gateway.service", "keepstate-gateway@.service"] {
        unit_file(folders, unit, into)?;
    }
    copy(folders, "packaging/gateway.toml", &into.join("etc/keepstate/gateway.toml"))?;
    copy(folders, "packaging/gateway.nft", &into.join("etc/keepstate/gateway.nft"))?;
    copy(folders, "packaging/gateway.schema.json", &into.join("usr/share/keepstate/gateway.schema.json"))
}

/// Debian 12's units are below /lib, which is a link to /usr/lib where the two are one.
fn unit_file(folders: &DistFolders, name: &str, into: &Path) -> Result<()> {
    copy(folders, &format!("packaging/systemd/{name}"), &into.join("lib/systemd/system").join(name))
}

/// Copies a file of the repository.
pub(super) fn copy(folders: &DistFolders, from: &str, to: &Path) -> Result<()> {
    write(to, &fs::read_to_string(folders.root.join(from))?)
}

/// Writes a file, and the directories that it is in.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    mode(path, 0o644)
}

pub(super) fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
