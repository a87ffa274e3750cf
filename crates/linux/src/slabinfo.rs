//! The kernel's slabs, `/proc/slabinfo`: the real size of a connection on this kernel.
//!
//! Only root can read the file. Connections have a slab of their own; the extension of each (NAT, accounting, events, timestamps)
//! is in a general slab and cannot be told apart there.
use crate::sysroot::{FileError, SysRoot};

/// The file.
pub const PATH: &str = "/proc/slabinfo";

/// One slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlabCache {
    /// Its name: `nf_conntrack`; old kernels have one for each namespace, `nf_conntrack_` and an address or a number.
    pub name: String,
    /// Objects in use.
    pub active_objects: u64,
    /// Objects there is room for, in pages already taken.
    pub total_objects: u64,
    /// Bytes of an object, with alignment.
    pub object_size: u64,
    /// Objects in one run of pages.
    pub objects_per_slab: u64,
    /// Pages in such a run.
    pub pages_per_slab: u64,
}

/// Every slab.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlabInfo(pub Vec<SlabCache>);

/// Reads the file.
///
/// # Errors
/// The file cannot be read: not root, or a kernel without it.
pub fn read(root: &SysRoot) -> Result<SlabInfo, FileError> {
    Ok(SlabInfo::parse(&root.read(PATH)?))
}

impl SlabInfo {
    /// Parses the file's text. Lines that cannot be parsed are skipped.
    pub fn parse(text: &str) -> SlabInfo {
        SlabInfo(text.lines().filter(|line| !line.starts_with('#')).filter_map(SlabCache::parse).collect())
    }

    /// A slab by its whole name.
    pub fn cache(&self, name: &str) -> Option<&SlabCache> {
        self.0.iter().find(|slab| slab.name == name)
    }

    /// Those that hold connections, whatever this kernel calls them.
    pub fn conntrack_caches(&self) -> impl Iterator<Item = &SlabCache> {
        self.0.iter().filter(|slab| match slab.name.strip_prefix("nf_conntrack") {
            Some("") => true,
            Some(rest) => rest
                .strip_prefix('_')
                .is_some_and(|of| !of.is_empty() && of.chars().all(|digit| digit.is_ascii_hexdigit())),
            None => false,
        })
    }

    /// Bytes of a connection on this kernel.
    pub fn conntrack_object_size(&self) -> Option<u64> {
        self.conntrack_caches().map(|slab| slab.object_size).max()
    }

    /// Bytes of pages that hold connections, used or not, without extensions.
    pub fn conntrack_bytes(&self) -> u64 {
        self.conntrack_caches()
            .map(|slab| slab.total_objects.saturating_mul(slab.object_size))
            .fold(0, u64::saturating_add)
    }
}

impl SlabCache {
    fn parse(line: &str) -> Option<SlabCache> {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse().ok();
        Some(SlabCache {
            name,
            active_objects: number()?,
            total_objects: number()?,
            object_size: number()?,
            objects_per_slab: number()?,
            pages_per_slab: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6_18: &str = "\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
nf_conntrack_expect      0      0    208   19    1 : tunables    0    0    0 : slabdata      0      0      0
nf_conntrack         176    240    256   16    1 : tunables    0    0    0 : slabdata     15     15      0
kmalloc-128         3456   3456    128   32    1 : tunables    0    0    0 : slabdata    108    108      0
";

    #[test]
    fn parses_conntrack_cache() {
        let slabs = SlabInfo::parse(V6_18);
        assert_eq!(slabs.0.len(), 3);
        assert_eq!((slabs.conntrack_object_size(), slabs.conntrack_bytes()), (Some(256), 240 * 256));
        assert_eq!(slabs.cache("kmalloc-128").unwrap().active_objects, 3456);
        assert_eq!(slabs.conntrack_caches().map(|slab| slab.active_objects).collect::<Vec<_>>(), [176]);
    }

    #[test]
    fn sums_per_netns_caches_of_old_kernels() {
        let old = "nf_conntrack_ffffffff81cd9c80 10 20 304 13 1\nnf_conntrack_1 5 20 304 13 1\nnf_conntrack_expect 1 2 9 1 1\n";
        let slabs = SlabInfo::parse(old);
        assert_eq!((slabs.conntrack_caches().count(), slabs.conntrack_bytes()), (2, 40 * 304));
    }

    #[test]
    fn malformed_lines_are_skipped() {
        assert_eq!(SlabInfo::parse("nf_conntrack many 2 3 4 5\n\nnf_conntrack 1 2\n").conntrack_object_size(), None);
    }
}
