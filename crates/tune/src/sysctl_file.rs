//! A sysctl as a file: below `/proc/sys`, or for the buckets of old kernels a parameter of the module.
//!
//! Up to Linux 4.7 `nf_conntrack_buckets` is read-only, and the table is resized by writing the parameter `hashsize`. Outside the
//! initial network namespace neither can be written, but `nf_conntrack_max` cannot either: that tells the two cases apart.
use keepstate_advisor::tune::{BUCKETS, MAX};
use keepstate_linux::{FileError, SysRoot, sysctl};

/// The parameter by which old kernels take the number of buckets.
const HASHSIZE_PARAMETER: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Must this sysctl be written as the module's parameter?
pub fn is_module_parameter(root: &SysRoot, key: &str) -> bool {
    key == BUCKETS && !has_write_bit(root, BUCKETS) && has_write_bit(root, MAX) && root.exists(HASHSIZE_PARAMETER)
}

/// Can it be written here? By its mode: outside the initial namespace the global sysctls are read-only even for root.
pub fn is_writable(root: &SysRoot, key: &str) -> bool {
    has_write_bit(root, key) || is_module_parameter(root, key)
}

/// Its value.
///
/// # Errors
/// If it cannot be read.
pub fn read(root: &SysRoot, key: &str) -> Result<String, FileError> {
    if is_module_parameter(root, key) {
        return root.read(HASHSIZE_PARAMETER).map(|text| text.trim().to_owned());
    }
    sysctl::read(root, key)
}

/// Sets it.
///
/// # Errors
/// If it cannot be written.
pub fn write(root: &SysRoot, key: &str, value: &str) -> Result<(), FileError> {
    if is_module_parameter(root, key) {
        return root.write_value(HASHSIZE_PARAMETER, value);
    }
    sysctl::write(root, key, value)
}

fn has_write_bit(root: &SysRoot, key: &str) -> bool {
    root.mode(sysctl::path(key)).is_some_and(|mode| mode & 0o222 != 0)
}
