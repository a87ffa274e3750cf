//! The machine's memory, as `/proc/meminfo` shows it.
use crate::sysroot::{FileError, SysRoot};

/// Where the file stands.
pub const PATH: &str = "/proc/meminfo";

/// What of it matters for a table, in octets; `None` where the kernel has no such line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemInfo {
    /// All the kernel manages: without what firmware and the kernel itself keep. Default sizes are computed from this.
    pub total: Option<u64>,
    /// What could be given out without swapping, by the kernel's own estimate (since 3.14).
    pub available: Option<u64>,
    /// Held by the kernel's slabs.
    pub slab: Option<u64>,
    /// Of these, what cannot be taken back under pressure: connections are among it.
    pub slab_unreclaimable: Option<u64>,
    /// Set aside as huge pages: not available to a table.
    pub huge_pages: Option<u64>,
}

/// The memory as it stands.
///
/// # Errors
/// Why the file cannot be read.
pub fn read(root: &SysRoot) -> Result<MemInfo, FileError> {
    Ok(MemInfo::parse(&root.read(PATH)?))
}

impl MemInfo {
    /// Reads the file's text. A line that is not understood is as one that is not there.
    ///
    /// ```
    /// use keepstate_linux::memory::Memory;
    /// let memory = Memory::parse("MemTotal:        3953636 kB\nMemFree:          120 kB\n");
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
