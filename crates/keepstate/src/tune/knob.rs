//! A knob where it stands: a file below `/proc/sys`, and for the buckets of old kernels a parameter of the module.
//!
//! Up to Linux 4.7 `nf_conntrack_buckets` could only be read, and the table was moved by writing the parameter `hashsize`. Outside the initial
//! network namespace neither may be written, but the limit cannot either: that tells the two apart.
use keepstate_advisor::tune::{BUCKETS, MAX};
use keepstate_linux::{Root, Unreadable, sysctl};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Where old kernels take the number of buckets.
pub(super) const HASHSIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Must this knob be written as the module's parameter?
pub(super) fn is_parameter(root: &Root, key: &str) -> bool {
    key == BUCKETS && !has_write_bit(root, BUCKETS) && has_write_bit(root, MAX) && root.path(HASHSIZE).exists()
}

/// May it be written here? By its mode: outside the initial namespace the global knobs are read-only, whoever asks.
pub(super) fn is_writable(root: &Root, key: &str) -> bool {
    has_write_bit(root, key) || is_parameter(root, key)
}

/// What it is.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(root: &Root, key: &str) -> Result<String, Unreadable> {
    if is_parameter(root, key) {
        return root.read(HASHSIZE).map(|text| text.trim().to_owned());
    }
    sysctl::read(root, key)
}

/// Sets it.
///
/// # Errors
/// It cannot be written.
pub(super) fn write(root: &Root, key: &str, value: &str) -> Result<(), Unreadable> {
    if is_parameter(root, key) {
        let path = root.path(HASHSIZE);
        return fs::write(&path, format!("{value}\n")).map_err(|source| Unreadable { path, doing: "written", source });
    }
    sysctl::write(root, key, value)
}

fn has_write_bit(root: &Root, key: &str) -> bool {
    let mode = fs::metadata(root.path(sysctl::path(key))).map(|metadata| metadata.permissions().mode());
    mode.is_ok_and(|mode| mode & 0o222 != 0)
}
