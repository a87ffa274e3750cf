//! Reading a bundle: one machine's files, examined on another. [`crate::create`] makes one.
//!
//! A packed bundle is unpacked into a temporary directory, which is removed when the [`Bundle`] is dropped. A directory without a
//! manifest (the root of an image, a report of sos) can be opened too; it only has less information.
use crate::manifest::{Manifest, NamespaceDirectory};
use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use keepstate_advisor::doctor::MissingInput;
use keepstate_linux::SysRoot;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Limit on unpacked bytes: a bundle is far smaller, but the archive is untrusted.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// One machine's files, opened for reading.
#[derive(Debug)]
pub struct Bundle {
    root: SysRoot,
    directory: PathBuf,
    manifest: Option<Manifest>,
    /// The temporary directory it was unpacked into.
    _unpacked: Option<TempDir>,
}

/// One namespace of a bundle.
#[derive(Clone, Debug)]
pub struct BundleNamespace {
    /// Its name.
    pub name: String,
    /// The inode of its nsfs file.
    pub inode: Option<u64>,
    /// Is it the namespace `keepstate collect` ran in?
    pub is_ours: bool,
    /// Its files.
    pub root: SysRoot,
    /// Its counters and sysctls, read again after this time.
    pub second_reading: Option<(SysRoot, Duration)>,
}

impl Bundle {
    /// Opens a directory, or a `.tar.gz`.
    ///
    /// # Errors
    /// If it cannot be read, or is no bundle.
    pub fn open(path: &Path) -> Result<Bundle> {
        let metadata = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
        let (directory, unpacked) = if metadata.is_dir() {
            (path.to_owned(), None)
        } else {
            let unpacked = unpack(path)?;
            (unpacked.path().to_owned(), Some(unpacked))
        };
        let directory = top_directory(directory)?;
        let manifest = Manifest::read(&directory)?;
        let known = ["proc", "sos_commands", "etc", "var/log"].iter().any(|name| directory.join(name).exists());
        if manifest.is_none() && !known {
            bail!(
                "{} is no bundle: give one made by `keepstate collect`, or a directory with proc/ in it",
                path.display()
            );
        }
        Ok(Bundle { root: SysRoot::at(&directory), directory, manifest, _unpacked: unpacked })
    }

    /// The machine's files.
    pub fn root(&self) -> &SysRoot {
        &self.root
    }

    /// Do the files have the modes they had on the machine?
    pub fn keeps_modes(&self) -> bool {
        self.manifest.is_some()
    }

    /// Its network namespaces.
    pub fn namespaces(&self) -> Vec<BundleNamespace> {
        let Some(manifest) = &self.manifest else {
            return vec![BundleNamespace {
                name: "that machine".into(),
                inode: None,
                is_ours: true,
                root: self.root.clone(),
                second_reading: None,
            }];
        };
        let interval = Duration::from_millis(manifest.interval_ms);
        manifest.namespaces.iter().map(|namespace| self.open_namespace(namespace, interval)).collect()
    }

    fn open_namespace(&self, namespace: &NamespaceDirectory, interval: Duration) -> BundleNamespace {
        let directory = self.directory.join(&namespace.directory);
        let later = directory.join("later");
        BundleNamespace {
            name: namespace.name.clone(),
            inode: namespace.inode,
            is_ours: namespace.is_ours,
            second_reading: (!interval.is_zero() && later.exists()).then(|| (SysRoot::at(later), interval)),
            root: SysRoot::at(directory),
        }
    }

    /// What could not be collected.
    pub fn missing_inputs(&self) -> Vec<MissingInput> {
        self.manifest.as_ref().map(|manifest| manifest.left_out.clone()).unwrap_or_default()
    }
}

/// Most archives hold one top directory: it is the bundle then.
fn top_directory(directory: PathBuf) -> Result<PathBuf> {
    if ["proc", "sos_commands", "manifest.json"].iter().any(|name| directory.join(name).exists()) {
        return Ok(directory);
    }
    let entries: Vec<_> = directory.read_dir()?.collect::<std::io::Result<_>>()?;
    match entries.as_slice() {
        [only] if only.path().is_dir() => Ok(only.path()),
        _ => Ok(directory),
    }
}

fn unpack(path: &Path) -> Result<TempDir> {
    let what = || format!("cannot unpack {}", path.display());
    let mut file = BufReader::new(File::open(path).with_context(what)?);
    let mut magic = [0; 2];
    file.read_exact(&mut magic).with_context(what)?;
    if magic != [0x1f, 0x8b] {
        bail!("{} is neither a directory nor a .tar.gz file: unpack it, and give its directory", path.display());
    }
    let whole = std::io::Cursor::new(magic).chain(file);
    let directory = tempfile::tempdir().context("cannot create a temporary directory to unpack it")?;
    let mut archive = tar::Archive::new(GzDecoder::new(whole).take(MAX_UNPACKED_BYTES));
    for entry in archive.entries().with_context(what)? {
        let mut entry = entry.with_context(what)?;
        // Plain files and directories only: a link could lead outside, and devices are of no use here.
        if entry.header().entry_type().is_file() || entry.header().entry_type().is_dir() {
            entry.unpack_in(directory.path()).with_context(what)?;
        }
    }
    Ok(directory)
}
