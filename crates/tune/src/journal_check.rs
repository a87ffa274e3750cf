//! What a journal may say: an image's journal may be somebody else's, and rollback does what it says.
//!
//! Only our own files, only conntrack's sysctls, only directories above our files, and no modes beyond permissions.
use crate::journal::{ChangedSysctl, Journal, SCHEMA, WrittenFile};
use crate::paths::journal_path;
use crate::persistent_files::OWN_FILES;
use anyhow::{Context, Result, bail};
use keepstate_linux::SysRoot;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A journal holds some short files.
const MAX_JOURNAL_BYTES: u64 = 16 << 20;

impl Journal {
    /// Reads the journal below a root, if there is one.
    ///
    /// # Errors
    /// If it exists and cannot be read, is no journal, has another schema, or says what no journal of `tune` says.
    pub fn read(root: &SysRoot) -> Result<Option<Journal>> {
        let shown = root.path(journal_path());
        let text = match root.read_bytes(journal_path(), MAX_JOURNAL_BYTES) {
            Ok(text) => text,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.is_permission_denied() => return Err(error).context("try again as root"),
            Err(error) => return Err(error.into()),
        };
        if root.is_live() {
            check_owner(root, &shown)?;
        }
        let journal: Journal = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a journal of keepstate tune", shown.display()))?;
        if journal.schema != SCHEMA {
            bail!("{} has schema {}; this program reads {SCHEMA}", shown.display(), journal.schema.escape_debug());
        }
        check(&journal).with_context(|| {
            format!(
                "{} was not written by keepstate tune: nothing was changed; look at it, then remove it",
                shown.display()
            )
        })?;
        Ok(Some(journal))
    }
}

/// On this machine only root, or the user who runs this, may say what is to be restored.
fn check_owner(root: &SysRoot, shown: &Path) -> Result<()> {
    let found = root.open_file(journal_path())?.metadata()?;
    let own = rustix::process::geteuid().as_raw();
    if (found.uid() != 0 && found.uid() != own) || found.mode() & 0o022 != 0 {
        bail!(
            "{} can be written by others (owner {}, mode {:o}): look at it, then chown root and chmod 600",
            shown.display(),
            found.uid(),
            found.mode() & 0o7777
        );
    }
    Ok(())
}

/// Does the journal say only what `tune` would have written?
///
/// # Errors
/// What it says instead.
fn check(journal: &Journal) -> Result<()> {
    if !journal.id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        bail!("its id is {}", journal.id.escape_debug());
    }
    journal.knobs.iter().try_for_each(check_sysctl)?;
    journal.files.iter().try_for_each(check_file)?;
    for directory in &journal.directories {
        let own = OWN_FILES.iter().map(Path::new).chain([journal_path()]);
        let above = |file: &Path| file.ancestors().skip(1).any(|above| is_same(above, directory));
        if directory.parent().is_none() || !own.into_iter().any(above) {
            bail!("it names the directory {:?}, which holds no file of tune", directory);
        }
    }
    Ok(())
}

fn check_sysctl(changed: &ChangedSysctl) -> Result<()> {
    let ChangedSysctl { key, before, after } = changed;
    let name = key.strip_prefix("net.netfilter.nf_conntrack_").or(key.strip_prefix("net.nf_conntrack_"));
    let plain =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !name.is_some_and(|name| !name.is_empty() && plain(name)) {
        bail!("it names the sysctl {key:?}, which is not one of connection tracking");
    }
    for value in [before, after] {
        if value.len() > MAX_VALUE_BYTES
            || !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t')
        {
            bail!("the value of {key} is {value:.100?}");
        }
    }
    Ok(())
}

fn check_file(file: &WrittenFile) -> Result<()> {
    if !OWN_FILES.iter().any(|own| is_same(Path::new(own), &file.path)) {
        bail!("it names the file {:?}, which is not one of tune; its files are {}", file.path, OWN_FILES.join(", "));
    }
    for content in file.before.iter().chain([&file.after]) {
        if content.mode & !PERMISSION_BITS != 0 {
            bail!("it gives {} the mode {:o}: only permissions can be restored", file.path.display(), content.mode);
        }
    }
    Ok(())
}

/// The same path to the byte: a path with `.` in it would be equal as components.
fn is_same(one: &Path, other: &Path) -> bool {
    one.as_os_str() == other.as_os_str()
}

const PERMISSION_BITS: u32 = 0o777;
/// A sysctl of connection tracking is a number.
const MAX_VALUE_BYTES: usize = 100;
