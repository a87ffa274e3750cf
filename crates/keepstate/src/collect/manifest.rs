//! What a bundle says about itself: whose files, which namespaces, what was cut and what left out, and why.
use anyhow::{Context, Result, bail};
use keepstate_advisor::doctor::MissingInput;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path};

/// The kind and version of a bundle.
pub const SCHEMA: &str = "keepstate.bundle/1";

/// The file that says it.
pub const FILE_NAME: &str = "manifest.json";

/// What a bundle says about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Kind and version.
    pub schema: String,
    /// The program that made it.
    pub made_by: String,
    /// When.
    pub made_at: String,
    /// Are addresses replaced by pseudonyms?
    pub redacted: bool,
    /// Milliseconds between the two readings of counters and knobs; 0 where there was one.
    pub interval_ms: u64,
    /// Namespaces, that of the collector first.
    pub namespaces: Vec<NamespaceDirectory>,
    /// Files, in the order they were written.
    pub files: Vec<BundleFile>,
    /// What is not in it.
    pub left_out: Vec<MissingInput>,
}

/// A namespace's place in the bundle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NamespaceDirectory {
    /// Its directory; empty for the bundle itself.
    pub directory: String,
    /// What it is called.
    pub name: String,
    /// Its inode.
    pub inode: Option<u64>,
    /// Was it collected in this one?
    pub is_ours: bool,
}

/// A file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BundleFile {
    /// Its path in the bundle.
    pub path: String,
    /// Octets kept.
    pub bytes: u64,
    /// Was it longer?
    pub is_cut: bool,
}

impl Manifest {
    /// The manifest of a directory; none where there is none.
    ///
    /// # Errors
    /// If it is of another kind or a later version, or leads out of the bundle.
    pub fn read(directory: &Path) -> Result<Option<Manifest>> {
        let path = directory.join(FILE_NAME);
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(None) };
        // Reports of other programs have a manifest.json too.
        let Some(schema) = value.get("schema").and_then(|schema| schema.as_str()) else { return Ok(None) };
        if schema != SCHEMA {
            bail!("{} is of {schema}; this program reads {SCHEMA}", path.display());
        }
        let manifest: Manifest = serde_json::from_value(value).with_context(|| path.display().to_string())?;
        for place in &manifest.namespaces {
            if !Path::new(&place.directory).components().all(|part| matches!(part, Component::Normal(_))) {
                bail!("{}: a namespace's directory `{}` leads out of the bundle", path.display(), place.directory);
            }
        }
        Ok(Some(manifest))
    }
}
