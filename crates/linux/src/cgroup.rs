//! Names of cgroups (version 2): by the id that sockets carry, and of a process.
use crate::sysroot::{FileError, SysRoot};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

/// Cgroups that are looked at, at most.
const MAX_CGROUPS: usize = 65_536;

/// The path of each cgroup by its id, which is the inode of its folder.
#[derive(Clone, Debug, Default)]
pub struct CgroupNames {
    paths: HashMap<u64, String>,
}

impl CgroupNames {
    /// Reads them all.
    ///
    /// # Errors
    /// There is no cgroup2 file system, or it cannot be listed.
    pub fn read(root: &SysRoot) -> Result<CgroupNames, FileError> {
        let mounts = root.read("/proc/self/mountinfo")?;
        let Some(mount) = mount_point(&mounts) else { return Ok(CgroupNames::default()) };
        let mut names = CgroupNames::default();
        let mut left = vec![String::new()];
        while let Some(path) = left.pop() {
            let folder = format!("{mount}{path}");
            // One that has gone meanwhile has no sockets any more.
            let Ok(metadata) = root.path(&folder).metadata() else { continue };
            let name = if path.is_empty() { "/".to_owned() } else { path.clone() };
            names.paths.insert(metadata.ino(), name);
            if names.paths.len() >= MAX_CGROUPS {
                break;
            }
            for entry in root.list_dir(&folder).unwrap_or_default() {
                let below = format!("{path}/{entry}");
                if root.path(format!("{mount}{below}")).symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    left.push(below);
                }
            }
        }
        Ok(names)
    }

    /// The path of a cgroup, from the root of the hierarchy.
    pub fn path(&self, id: u64) -> Option<&str> {
        self.paths.get(&id).map(String::as_str)
    }
}

/// The path of a process's cgroup.
pub fn of_process(root: &SysRoot, pid: u32) -> Option<String> {
    let text = root.read(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// Where cgroup2 is mounted: alone, or beside the first version.
fn mount_point(mountinfo: &str) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let is_cgroup2 = kind.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| fields.split(' ').nth(4).map(|path| path.replace("\\040", " "))).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_alone_or_beside_the_first() {
        let hybrid = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      42 23 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(
            mount_point("42 23 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw").as_deref(),
            Some("/sys/fs/cgroup")
        );
        assert_eq!(mount_point("31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }
}
