//! Reading a bundle: one machine's files, examined on another. [`crate::create`] makes one.
//!
//! A packed bundle is unpacked into a temporary directory, which is removed when the [`Bundle`] is dropped. A directory without a
//! manifest (the root of an image, a report of sos) can be opened too; it only has less information.
use crate::manifest::{Manifest, NamespaceDirectory};
use crate::unpack::{UnpackLimits, unpack};
use anyhow::{Context, Result, bail};
use keepstate_advisor::doctor::MissingInput;
use keepstate_linux::SysRoot;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// One machine's files, opened for reading.
#[derive(Debug)]
pub struct Bundle {
    root: SysRoot,
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
        let (whole, unpacked) = if metadata.is_dir() {
            (SysRoot::at(path), None)
        } else {
            let unpacked = unpack(path, UnpackLimits::default())?;
            (SysRoot::at(unpacked.path()), Some(unpacked))
        };
        let root = top_directory(whole)?;
        let manifest = Manifest::read(&root)?;
        let known = ["proc", "sos_commands", "etc", "var/log"].iter().any(|name| root.exists(name));
        if manifest.is_none() && !known {
            bail!(
                "{} is no bundle: give one made by `keepstate collect`, or a directory with proc/ in it",
                path.display()
            );
        }
        Ok(Bundle { root, manifest, _unpacked: unpacked })
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
        // A directory that was cut off, or leads outside, has no files.
        let root = self.root.below(&namespace.directory).unwrap_or_else(|_| SysRoot::at(NO_SUCH_DIRECTORY));
        let later = root.below("later").ok().filter(|_| !interval.is_zero());
        BundleNamespace {
            name: namespace.name.clone(),
            inode: namespace.inode,
            is_ours: namespace.is_ours,
            second_reading: later.map(|later| (later, interval)),
            root,
        }
    }

    /// What could not be collected.
    pub fn missing_inputs(&self) -> Vec<MissingInput> {
        self.manifest.as_ref().map(|manifest| manifest.left_out.clone()).unwrap_or_default()
    }
}

/// A name that no machine has a directory of.
const NO_SUCH_DIRECTORY: &str = "/nonexistent/keepstate";

/// Most archives hold one top directory: it is the bundle then.
fn top_directory(whole: SysRoot) -> Result<SysRoot> {
    if ["proc", "sos_commands", "manifest.json"].iter().any(|name| whole.exists(name)) {
        return Ok(whole);
    }
    match whole.list_dir("/")?.as_slice() {
        [only] => Ok(whole.below(only).unwrap_or(whole)),
        _ => Ok(whole),
    }
}
