//! Sysctls: files below `/proc/sys`.
use crate::sysroot::{FileError, SysRoot};
use std::path::PathBuf;

/// The file of a key: `net.netfilter.nf_conntrack_max` or, with slashes, `net/netfilter/nf_conntrack_max`.
///
/// ```
/// let path = keepstate_linux::sysctl::path("net.netfilter.nf_conntrack_max");
/// assert_eq!(path, std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_max"));
/// ```
pub fn path(key: &str) -> PathBuf {
    // As sysctl(8): the first separator met tells which one it is; in the other writing a dot belongs to a name.
    let slashes = match key.find(['.', '/']) {
        Some(at) if key.as_bytes().get(at) == Some(&b'/') => key.to_owned(),
        _ => key
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    };
    PathBuf::from("/proc/sys").join(slashes.trim_start_matches('/'))
}

/// The value of a key, without the newline.
///
/// # Errors
/// It cannot be read.
pub fn read(root: &SysRoot, key: &str) -> Result<String, FileError> {
    root.read(path(key)).map(|text| text.trim_end().to_owned())
}

/// The value of a key as a number; `None` if it is not one.
///
/// # Errors
/// It cannot be read.
pub fn read_u64(root: &SysRoot, key: &str) -> Result<Option<u64>, FileError> {
    read(root, key).map(|text| text.trim().parse().ok())
}

/// Writes a key. The value takes effect at once, and is lost at the next boot.
///
/// # Errors
/// It cannot be written: no such key, permission denied, read-only, or a value the kernel rejects (`InvalidInput`).
pub fn write(root: &SysRoot, key: &str, value: &str) -> Result<(), FileError> {
    root.write_value(path(key), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dotted_and_slashed_keys_give_the_same_path() {
        let slashes = path("net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(slashes, PathBuf::from("/proc/sys/net/ipv4/conf/eth0.1/rp_filter"));
        assert_eq!(path("net.ipv4.conf.eth0/1.rp_filter"), slashes);
    }

    #[test]
    fn reads_and_writes_a_value() {
        let there = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(there.path().join("proc/sys/net")).unwrap();
        std::fs::write(there.path().join("proc/sys/net/a"), "17\n").unwrap();
        let root = SysRoot::at(there.path());
        assert_eq!(read_u64(&root, "net.a").unwrap(), Some(17));
        write(&root, "net.a", "x18").unwrap();
        assert_eq!((read(&root, "net.a").unwrap().as_str(), read_u64(&root, "net.a").unwrap()), ("x18", None));
        assert!(write(&root, "net.b", "1").unwrap_err().is_not_found());
    }
}
