//! What a journal may say: an image's journal may be somebody else's, and rollback does what it says.
//!
//! Only our own files, only conntrack's sysctls, only directories above our files, and no modes beyond permissions.
use crate::journal::{ChangedSysctl, Journal, WrittenFile};
use crate::paths::journal_path;
use crate::persistent_files::OWN_FILES;
use anyhow::{Result, bail};
use std::path::Path;

/// Does the journal say only what `tune` would have written?
///
/// # Errors
/// What it says instead.
pub fn check(journal: &Journal) -> Result<()> {
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
