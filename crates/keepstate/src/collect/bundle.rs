//! A bundle: one machine's files, to be examined on another. This side opens it; [`super::gather`] made it.
//!
//! A packed bundle is unpacked into a directory of its own, which goes when the bundle does. A directory that somebody else made (an
//! image's `/`, a report of sos) is one too, only with less told about it.
use super::manifest::{Manifest, NamespaceDirectory};
use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use keepstate_advisor::doctor::MissingInput;
use keepstate_linux::SysRoot;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// What is unpacked at most: a bundle is far smaller, and an archive may be anything.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;

/// One machine's files.
#[derive(Debug)]
pub struct Bundle {
    root: SysRoot,
    directory: PathBuf,
    manifest: Option<Manifest>,
    /// Where it was unpacked, until it is dropped.
    _unpacked: Option<TempDir>,
}

/// One namespace of a bundle.
#[derive(Clone, Debug)]
pub struct BundleNamespace {
    /// What it is called.
    pub name: String,
    /// Its inode.
    pub inode: Option<u64>,
    /// Was it the one that was collected in?
    pub is_ours: bool,
    /// Its files.
    pub root: SysRoot,
    /// Its counters and knobs, read again so much later.
    pub second_reading: Option<(SysRoot, Duration)>,
}

impl Bundle {
    /// Opens a directory, or a `.tar.gz`.
    ///
    /// # Errors
    /// If it cannot be read, or holds no machine's files.
    pub fn open(path: &Path) -> Result<Bundle> {
        let metadata = path.metadata().with_context(|| format!("{} cannot be read", path.display()))?;
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
                "{} holds no machine's files: give a bundle of `keepstate collect`, or a directory with proc/ in it like /",
                path.display()
            );
        }
        Ok(Bundle { root: SysRoot::at(&directory), directory, manifest, _unpacked: unpacked })
    }

    /// The files of the machine.
    pub fn root(&self) -> &SysRoot {
        &self.root
    }

    /// Do the files have the modes they had on their machine?
    pub fn keeps_modes(&self) -> bool {
        self.manifest.is_some()
    }

    /// Its namespaces.
    pub fn namespaces(&self) -> Vec<BundleNamespace> {
        let Some(manifest) = &self.manifest else {
            let later = None;
            return vec![BundleNamespace {
                name: "that machine".into(),
                inode: None,
                is_ours: true,
                root: self.root.clone(),
                second_reading: later,
            }];
        };
        let over = Duration::from_millis(manifest.interval_ms);
        manifest.namespaces.iter().map(|place| self.open_namespace(place, over)).collect()
    }

    fn open_namespace(&self, place: &NamespaceDirectory, over: Duration) -> BundleNamespace {
        let directory = self.directory.join(&place.directory);
        let later = directory.join("later");
        BundleNamespace {
            name: place.name.clone(),
            inode: place.inode,
            is_ours: place.is_ours,
            second_reading: (!over.is_zero() && later.exists()).then(|| (SysRoot::at(later), over)),
            root: SysRoot::at(directory),
        }
    }

    /// What could not be collected.
    pub fn missing_inputs(&self) -> Vec<MissingInput> {
        self.manifest.as_ref().map(|manifest| manifest.left_out.clone()).unwrap_or_default()
    }
}

/// Archives hold one directory more often than not.
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
    let what = || format!("{} cannot be unpacked", path.display());
    let mut file = BufReader::new(File::open(path).with_context(what)?);
    let mut magic = [0; 2];
    file.read_exact(&mut magic).with_context(what)?;
    if magic != [0x1f, 0x8b] {
        bail!("{} is neither a directory nor a .tar.gz: unpack it, and give its directory", path.display());
    }
    let whole = std::io::Cursor::new(magic).chain(file);
    let directory = tempfile::tempdir().context("there is no place to unpack it")?;
    let mut archive = tar::Archive::new(GzDecoder::new(whole).take(MAX_UNPACKED_BYTES));
    for entry in archive.entries().with_context(what)? {
        let mut entry = entry.with_context(what)?;
        // Plain files and directories only: a link could lead out, a device is none of ours.
        if entry.header().entry_type().is_file() || entry.header().entry_type().is_dir() {
            entry.unpack_in(directory.path()).with_context(what)?;
        }
    }
    Ok(directory)
}
