//! The static program as a tar archive, and as a container image (OCI image layout), both the same bytes whenever they are made of the same commit.
use super::tools::{DistFolders, STATIC_TARGET, output, run, strip, version};
use super::{third_party, tree};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image's file.
pub(super) fn image_file(folders: &DistFolders) -> PathBuf {
    folders.out.join(format!("keepstate-{}.oci.tar", version()))
}

/// The archive's file.
pub(super) fn tarball_file(folders: &DistFolders) -> PathBuf {
    folders.out.join(format!("keepstate-{}-{STATIC_TARGET}.tar.gz", version()))
}

/// `keepstate-VERSION-TARGET.tar.gz`: the program, its manual and completions, licences.
pub(super) fn tarball(folders: &DistFolders, binary: &Path) -> Result<()> {
    let stage = folders.out.join("static");
    let name = format!("keepstate-{}", version());
    let tree = stage.join(&name);
    fs::create_dir_all(&tree)?;
    strip(binary, &tree.join("keepstate"))?;
    tree::mode(&tree.join("keepstate"), 0o755)?;
    let man = tree.join("man");
    fs::create_dir_all(&man)?;
    run(Command::new(binary).args(["man", "--dir"]).arg(&man))?;
    for shell in ["bash", "zsh", "fish"] {
        let text = output(Command::new(binary).args(["completions", shell]))?;
        tree::write(&tree.join("completions").join(format!("keepstate.{shell}")), &text)?;
    }
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        tree::copy(folders, file, &tree.join(file))?;
    }
    tree::write(&tree.join("THIRD-PARTY.txt"), &third_party::text(folders, STATIC_TARGET)?)?;
    pack(folders, &stage, &name, &tarball_file(folders), true)
}

/// `keepstate-VERSION.oci.tar`: an image with nothing but the program, its entry point, and the licences.
pub(super) fn image(folders: &DistFolders, binary: &Path) -> Result<()> {
    let root = folders.out.join("image-root");
    fs::create_dir_all(root.join("usr/bin"))?;
    strip(binary, &root.join("usr/bin/keepstate"))?;
    tree::mode(&root.join("usr/bin/keepstate"), 0o755)?;
    tree::write(&root.join("usr/share/doc/keepstate/THIRD-PARTY.txt"), &third_party::text(folders, STATIC_TARGET)?)?;
    let layout = folders.out.join("image");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let layer = folders.out.join("layer.tar");
    pack(folders, &root, ".", &layer, false)?;
    let diff_id = sha256(&layer)?;
    run(Command::new("gzip").arg("-9n").arg(&layer))?;
    let layer = add_blob(&blobs, &folders.out.join("layer.tar.gz"))?;
    let architecture = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/keepstate"],
            "Cmd": ["--help"],
            "Labels": {"org.opencontainers.image.title": "keepstate", "org.opencontainers.image.version": version(), "org.opencontainers.image.licenses": "MIT OR Apache-2.0"},
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
    });
    let config = add_json(folders, &blobs, &config)?;
    let blob = |kind: &str, (digest, size): &(String, u64)| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"), "size": size});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", &config),
        "layers": [blob("layer.v1.tar+gzip", &layer)],
    });
    let manifest = add_json(folders, &blobs, &manifest)?;
    let mut entry = blob("manifest.v1+json", &manifest);
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".into(), json!({"org.opencontainers.image.ref.name": version()}));
        entry.insert("platform".into(), json!({"architecture": architecture, "os": "linux"}));
    }
    tree::write(&layout.join("index.json"), &json!({"schemaVersion": 2, "manifests": [entry]}).to_string())?;
    tree::write(&layout.join("oci-layout"), &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    pack(folders, &layout, ".", &image_file(folders), false)
}

fn add_json(folders: &DistFolders, blobs: &Path, value: &serde_json::Value) -> Result<(String, u64)> {
    let file = folders.out.join("blob.json");
    tree::write(&file, &value.to_string())?;
    add_blob(blobs, &file)
}

/// Moves a file to where its digest says; the digest, and its size.
fn add_blob(blobs: &Path, file: &Path) -> Result<(String, u64)> {
    let (digest, size) = (sha256(file)?, fs::metadata(file)?.len());
    fs::rename(file, blobs.join(&digest))?;
    Ok((digest, size))
}

fn sha256(file: &Path) -> Result<String> {
    let said = output(Command::new("sha256sum").arg(file))?;
    Ok(said.split_whitespace().next().context("sha256sum prints a digest")?.to_owned())
}

/// What is in `name` below `folder`, as root's, at the time of the commit.
fn pack(folders: &DistFolders, folder: &Path, name: &str, file: &Path, compress: bool) -> Result<()> {
    let time = output(Command::new("git").current_dir(&folders.root).args(["log", "-1", "--format=%ct"]))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{}", time.trim())).arg("--mode=u=rwX,go=rX");
    if compress {
        tar.args(["--use-compress-program", "gzip -9n"]);
    }
    run(tar.arg("--file").arg(file).arg("--directory").arg(folder).arg(name))
}
