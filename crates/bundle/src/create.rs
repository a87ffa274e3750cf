//! Creating a bundle: a hidden directory beside the output path, filled file by file, packed if a file is wanted, synced, and
//! renamed to its name.
//!
//! An error before the rename leaves nothing behind: there is never half a bundle under its name.
use crate::collector::{CollectLimits, Collector};
use crate::manifest::Manifest;
use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to collect, and how much of it.
#[derive(Clone, Debug)]
pub struct BundleOptions {
    /// Bytes of all files together, before they are packed.
    pub max_bytes: u64,
    /// Replace addresses by pseudonyms.
    pub redact: bool,
    /// Entries of each conntrack table.
    pub sample: usize,
    /// Network namespaces.
    pub namespaces: usize,
    /// Time between the two readings of the counters; zero reads them once.
    pub interval: Duration,
}

/// Collects this machine into `output`: a file if it ends in `.tar.gz` or `.tgz`, else a directory.
///
/// # Errors
/// If something is at `output` already, or the bundle cannot be written. What cannot be read is listed in the manifest instead.
pub fn create(output: &Path, options: &BundleOptions) -> Result<Manifest> {
    if output.symlink_metadata().is_ok() {
        bail!("{} exists: choose another name, or remove it", output.display());
    }
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = || format!("cannot write to {}", parent.display());
    let temporary = tempfile::Builder::new().prefix(".keepstate-").tempdir_in(parent).with_context(what)?;
    let directory = temporary.path().join("bundle");
    // Only its owner may read what was collected.
    fs::DirBuilder::new().mode(0o700).create(&directory).with_context(what)?;
    let limits = CollectLimits { sample: options.sample, namespaces: options.namespaces, interval: options.interval };
    let manifest = Collector::new(&directory, options.max_bytes, options.redact).collect(&limits)?;
    let made = if is_tar_gz(output) { write_tar_gz(&directory, &temporary.path().join("packed"))? } else { directory };
    rename_to_free_name(&made, output).with_context(|| format!("cannot write {}", output.display()))?;
    Ok(manifest)
}

/// Renames, unless something has got that name meanwhile.
fn rename_to_free_name(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that cannot say so.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

fn is_tar_gz(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// Packs a directory and syncs the archive before it gets its name.
fn write_tar_gz(directory: &Path, file: &Path) -> Result<PathBuf> {
    let what = || "cannot pack the bundle".to_owned();
    let out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).with_context(what)?;
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    archive.append_dir_all("keepstate", directory).with_context(what)?;
    let out = archive.into_inner().and_then(GzEncoder::finish).with_context(what)?;
    out.sync_all().with_context(what)?;
    Ok(file.to_owned())
}
