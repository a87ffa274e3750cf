//! The manifest of a bundle: which namespaces and files it holds, what was cut or left out, and why.
use anyhow::{Context, Result, bail};
use keepstate_advisor::doctor::MissingInput;
use keepstate_linux::SysRoot;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path};

/// Schema name and version.
pub const SCHEMA: &str = "keepstate.bundle/1";

/// Its file name in the bundle.
pub const FILE_NAME: &str = "manifest.json";

/// The manifest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that made it.
    pub made_by: String,
    /// When, RFC 3339 in UTC.
    pub made_at: String,
    /// Are addresses replaced by pseudonyms?
    pub redacted: bool,
    /// What was replaced, by class.
    #[serde(default)]
    pub replaced: Vec<ReplacedClass>,
    /// Milliseconds between the two readings of counters and sysctls; 0 if they were read once.
    pub interval_ms: u64,
    /// Network namespaces; the first is the one `collect` ran in.
    pub namespaces: Vec<NamespaceDirectory>,
    /// Files, in the order they were written.
    pub files: Vec<BundleFile>,
    /// What is missing.
    pub left_out: Vec<MissingInput>,
}

/// A class of what must not leave the machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReplacedClass {
    /// `secrets`, `addresses`, `addresses in names`, `hardware addresses`.
    pub class: String,
    /// How many were replaced.
    pub number: u64,
}

/// A namespace's directory in the bundle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NamespaceDirectory {
    /// Path in the bundle; empty for the top directory.
    pub directory: String,
    /// Its name.
    pub name: String,
    /// The inode of its nsfs file.
    pub inode: Option<u64>,
    /// Is it the one `collect` ran in?
    pub is_ours: bool,
}

/// A file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BundleFile {
    /// Its path in the bundle.
    pub path: String,
    /// Bytes in the bundle.
    pub bytes: u64,
    /// Was the original longer?
    pub is_cut: bool,
}

impl Manifest {
    /// Reads the manifest of a directory, if it has one.
    ///
    /// # Errors
    /// If its schema is another one, or a path in it leads outside the bundle.
    pub fn read(directory: &SysRoot) -> Result<Option<Manifest>> {
        let path = directory.path(FILE_NAME);
        let Ok(text) = directory.read(FILE_NAME) else { return Ok(None) };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(None) };
        // Reports of other programs have a manifest.json too, without a schema.
        let Some(schema) = value.get("schema").and_then(|schema| schema.as_str()) else { return Ok(None) };
        if schema != SCHEMA {
            bail!("{} has schema {schema}; this program reads {SCHEMA}", path.display());
        }
        let manifest: Manifest = serde_json::from_value(value).with_context(|| path.display().to_string())?;
        for namespace in &manifest.namespaces {
            if !Path::new(&namespace.directory).components().all(|part| matches!(part, Component::Normal(_))) {
                bail!("{}: namespace directory `{}` leads outside the bundle", path.display(), namespace.directory);
            }
        }
        Ok(Some(manifest))
    }
}
