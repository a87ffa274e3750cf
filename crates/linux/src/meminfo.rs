//! The machine's memory: `/proc/meminfo`.
use crate::sysroot::{FileError, SysRoot};

/// The file.
pub const PATH: &str = "/proc/meminfo";

/// The values that matter for a connection table, in bytes; `None` if the kernel has no such line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemInfo {
    /// All memory the kernel manages. Default table sizes are computed from it.
    pub total: Option<u64>,
    /// Available without swapping, by the kernel's estimate (since 3.14).
    pub available: Option<u64>,
    /// Memory in slabs.
    pub slab: Option<u64>,
    /// Of these, unreclaimable; connections are part of it.
    pub slab_unreclaimable: Option<u64>,
    /// Reserved as huge pages: not available to a table.
    pub huge_pages: Option<u64>,
}

/// Reads the file.
///
/// # Errors
/// The file cannot be read.
pub fn read(root: &SysRoot) -> Result<MemInfo, FileError> {
    Ok(MemInfo::parse(&root.read(PATH)?))
}

impl MemInfo {
    /// Parses the file's text. Lines that cannot be parsed are skipped.
    ///
    /// ```
    /// use keepstate_linux::meminfo::MemInfo;
    /// let memory = MemInfo::parse("MemTotal:        3953636 kB\nMemFree:          120 kB\n");
    /// assert_eq!((memory.total, memory.available), (Some(3_953_636 << 10), None));
    /// ```
    pub fn parse(text: &str) -> MemInfo {
        let line = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let mut words = rest.split_whitespace();
            let number: u64 = words.next()?.parse().ok()?;
            match words.next() {
                Some("kB") => number.checked_mul(1024),
                _ => None,
            }
        };
        MemInfo {
            total: line("MemTotal"),
            available: line("MemAvailable"),
            slab: line("Slab"),
            slab_unreclaimable: line("SUnreclaim"),
            huge_pages: line("Hugetlb"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_looked_up_by_name() {
        let text = "MemTotal:       24684092 kB\nMemFree:        23202860 kB\nMemAvailable:   24147584 kB\nSlab: 7 kB\nSReclaimable: 5 kB\nSUnreclaim:            2 kB\nHugePages_Total:       9\nHugetlb:               0 kB\n";
        let memory = MemInfo::parse(text);
        assert_eq!((memory.total, memory.available), (Some(24_684_092 << 10), Some(24_147_584 << 10)));
        assert_eq!((memory.slab, memory.slab_unreclaimable, memory.huge_pages), (Some(7168), Some(2048), Some(0)));
    }

    #[test]
    fn malformed_fields_are_none() {
        for text in
            ["", "MemTotal", "MemTotal:", "MemTotal: many kB", "MemTotal: 12", "MemTotal: 18446744073709551615 kB"]
        {
            assert_eq!(MemInfo::parse(text), MemInfo::default(), "{text}");
        }
    }
}
