//! `keepstate collect`: a bundle of this machine's files, for `keepstate doctor --from` on another.
//!
//! The life of a bundle: a hidden directory beside its place, filled file by file, packed if a file is wanted, synced, and renamed to
//! its name. What goes wrong before that leaves nothing behind, and there is never half a bundle under its name.
mod bundle;
mod collector;
mod manifest;
mod redact;

pub use bundle::{Bundle, BundleNamespace};
pub use manifest::{Manifest, SCHEMA};
pub use redact::Redactor;

use crate::stderr;
use anyhow::{Context, Result, bail};
use clap::Args;
use collector::{CollectLimits, Collector};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Collect what `keepstate doctor --from` needs to examine this machine on another.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Collect {
    /// Where to: a file that ends in .tar.gz or .tgz, else a directory [default: keepstate-DATE.tar.gz here]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Replace addresses by pseudonyms: the same address by the same one, of the same family, private if it was
    #[arg(long)]
    redact: bool,
    /// Keep the bundle below this size, before it is packed; what does not fit is cut, and said in its manifest
    #[arg(long, value_name = "SIZE", default_value = "10M", value_parser = crate::shared_args::parse_size)]
    max_size: u64,
    /// Collect this many entries of each table at most
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    sample: usize,
    /// Look into this many network namespaces at most
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    namespaces: usize,
    /// Read the counters twice, this long apart; 0 reads them once
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = crate::doctor::interval)]
    interval: Duration,
}

const EXAMPLES: &str = "\
Examples:
  # everything, as root, to be sent to whoever helps
  sudo keepstate collect -o host.tar.gz
  # without telling any address
  sudo keepstate collect --redact -o host.tar.gz
  # a directory, to read what would be sent
  sudo keepstate collect --redact -o host
  # and on the other machine
  keepstate doctor --from host.tar.gz

Of configuration only the lines about connection tracking are kept; manifest.json says
what is in the bundle, what was left out, and why.
Exit codes: 0 done, 1 it could not be written, 2 wrongly asked";

impl Collect {
    /// Do the options fit together?
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.max_size < 1 << 16 {
            return Err("a bundle of less than 64K holds too little to be examined: give --max-size more".into());
        }
        Ok(())
    }

    /// Collects, and says where the bundle is on standard output.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn run(&self) -> Result<ExitCode> {
        let place = self.output.clone().unwrap_or_else(|| {
            // Colons are no part of a file name that travels.
            let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
            PathBuf::from(format!("keepstate-{now}.tar.gz"))
        });
        if place.symlink_metadata().is_ok() {
            bail!("{} is there already: choose another name, or remove it", place.display());
        }
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let what = || format!("{} cannot be written", parent.display());
        let workshop = tempfile::Builder::new().prefix(".keepstate-").tempdir_in(parent).with_context(what)?;
        let directory = workshop.path().join("bundle");
        fs::create_dir(&directory).with_context(what)?;
        let limits = CollectLimits { sample: self.sample, namespaces: self.namespaces, interval: self.interval };
        let manifest = Collector::new(&directory, self.max_size, self.redact).collect(&limits)?;
        let made =
            if is_tar_gz(&place) { write_tar_gz(&directory, &workshop.path().join("packed"))? } else { directory };
        fs::rename(&made, &place).with_context(|| format!("{} cannot be written", place.display()))?;
        println!("{}", place.display());
        for left in &manifest.left_out {
            stderr::note(format!("left out: {}: {}", left.what, left.why));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn is_tar_gz(place: &Path) -> bool {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// Packs a directory, and makes sure that it is on the disk before it gets its name.
fn write_tar_gz(directory: &Path, file: &Path) -> Result<PathBuf> {
    let what = || "the bundle cannot be packed".to_owned();
    let out = fs::File::create(file).with_context(what)?;
    let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    archive.append_dir_all("keepstate", directory).with_context(what)?;
    let out = archive.into_inner().and_then(GzEncoder::finish).with_context(what)?;
    out.sync_all().with_context(what)?;
    Ok(file.to_owned())
}
