//! The kernel's conntrack statistics: `/proc/net/stat/nf_conntrack`.
//!
//! The file has a header line of column names, then one line of hexadecimal numbers per CPU. The names changed over time
//! (`searched` became `clashres`, `delete_list` became `chainlength`, `ignore` lost its meaning), so a column is looked up
//! by its name only. The first column, `entries`, is the count of this namespace, repeated on every line; all others are summed.
use crate::sysroot::{FileError, SysRoot};
use std::collections::BTreeMap;

/// The file. It shows the reader's network namespace.
pub const PATH: &str = "/proc/net/stat/nf_conntrack";

/// One reading of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcCtStats {
    /// Column names, in the file's order.
    names: Vec<String>,
    /// One row per CPU.
    rows: Vec<Vec<u64>>,
}

/// Why the text cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CtStatParseError {
    /// There is no header line with a column `entries`.
    #[error("no column `entries` in the first line")]
    MissingHeader,
    /// A value is not hexadecimal.
    #[error("line {line}: not a hexadecimal number: `{text}`")]
    BadNumber {
        /// The line, from 1.
        line: usize,
        /// The value.
        text: String,
    },
}

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum CtStatError {
    /// The file cannot be read: the kernel was built without it (use ctnetlink), or permission is denied.
    #[error(transparent)]
    Unreadable(#[from] FileError),
    /// The contents cannot be parsed.
    #[error("{PATH}: {0}")]
    Malformed(#[from] CtStatParseError),
}

/// Reads the file.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn read(root: &SysRoot) -> Result<ProcCtStats, CtStatError> {
    Ok(ProcCtStats::parse(&root.read(PATH)?)?)
}

impl ProcCtStats {
    /// Parses the file's text. Missing values at the end of a line are zero; surplus values are skipped.
    ///
    /// # Errors
    /// The text is not such a table.
    ///
    /// ```
    /// use keepstate_linux::proc_ct_stat::ProcCtStats;
    /// let counters = ProcCtStats::parse("entries  clashres found drop\n0000000f 1 2 a\n0000000f 0 0 1\n").unwrap();
    /// assert_eq!((counters.entries(), counters.sum("drop"), counters.sum("searched")), (15, Some(11), None));
    /// ```
    pub fn parse(text: &str) -> Result<ProcCtStats, CtStatParseError> {
        let mut lines = text.lines();
        let names: Vec<String> = lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if !names.iter().any(|name| name == "entries") {
            return Err(CtStatParseError::MissingHeader);
        }
        let mut rows = Vec::new();
        for (at, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let mut row = Vec::with_capacity(names.len());
            for cell in line.split_whitespace().take(names.len()) {
                let number = u64::from_str_radix(cell, 16);
                row.push(number.map_err(|_| CtStatParseError::BadNumber { line: at + 2, text: cell.to_owned() })?);
            }
            row.resize(names.len(), 0);
            rows.push(row);
        }
        Ok(ProcCtStats { names, rows })
    }

    /// Connections in this namespace.
    pub fn entries(&self) -> u64 {
        self.column("entries").and_then(|at| self.rows.first()?.get(at).copied()).unwrap_or(0)
    }

    /// A counter summed over all CPUs; `None` if this kernel has no column of that name.
    pub fn sum(&self, name: &str) -> Option<u64> {
        let at = self.column(name)?;
        Some(self.rows.iter().filter_map(|row| row.get(at)).fold(0, |sum: u64, cell| sum.wrapping_add(*cell)))
    }

    /// Every counter but `entries`, summed, by its name.
    pub fn sums(&self) -> BTreeMap<&str, u64> {
        let names = self.names.iter().filter(|name| *name != "entries");
        names.filter_map(|name| Some((name.as_str(), self.sum(name)?))).collect()
    }

    /// The increase of a counter since an `earlier` reading. Values are 32 bits wide in the kernel and wrap per CPU, so the
    /// difference is taken per CPU; a new CPU counts from zero.
    pub fn delta(&self, earlier: &ProcCtStats, name: &str) -> Option<u64> {
        let (now, then) = (self.column(name)?, earlier.column(name)?);
        let mut rise = 0_u64;
        for (at, row) in self.rows.iter().enumerate() {
            let before = earlier.rows.get(at).and_then(|row| row.get(then)).copied().unwrap_or(0);
            let after = row.get(now).copied().unwrap_or(0);
            let wrapped = after.wrapping_sub(before);
            rise = rise.saturating_add(if after < before { wrapped & u64::from(u32::MAX) } else { wrapped });
        }
        Some(rise)
    }

    /// Lines in the file: possible CPUs.
    pub fn cpus(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V6_18: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000103 00000001 00000000 00000000 000003f2 00000000 00000000 00000000 00000000 00000002 00000002 00000000 00000004  00000000 00000000 00000000 00000017
00000103 00000000 00000000 00000000 0000000e 00000000 00000000 00000000 00000000 00000000 00000010 00000000 00000000  00000000 00000000 00000000 00000001
";
    const V4_4: &str = "\
entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000002 0ca35ee9 00000e10 25288bff 00051735 0000b7b2 252882f6 252882f6 25288bff 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000
";

    #[test]
    fn columns_are_looked_up_by_name() {
        let today = ProcCtStats::parse(V6_18).unwrap();
        assert_eq!((today.entries(), today.cpus()), (0x103, 2));
        assert_eq!((today.sum("invalid"), today.sum("drop"), today.sum("clashres")), (Some(1024), Some(18), Some(1)));
        assert_eq!(today.sum("searched"), None);
        let old = ProcCtStats::parse(V4_4).unwrap();
        assert_eq!((old.sum("searched"), old.sum("insert")), (Some(0x0ca3_5ee9), Some(0x2528_8bff)));
        assert_eq!(old.sum("clashres"), None);
        assert_eq!(old.sums().len(), 16);
    }

    #[test]
    fn delta_handles_32_bit_wraparound() {
        let before = ProcCtStats::parse("entries drop\n1 fffffffe\n1 5\n").unwrap();
        let after = ProcCtStats::parse("entries drop\n9 3\n9 7\n9 1\n").unwrap();
        assert_eq!(after.delta(&before, "drop"), Some(5 + 2 + 1));
        assert_eq!(after.delta(&before, "insert"), None);
    }

    #[test]
    fn malformed_text_is_rejected() {
        assert_eq!(ProcCtStats::parse(""), Err(CtStatParseError::MissingHeader));
        assert_eq!(ProcCtStats::parse("hello world\n1 2\n"), Err(CtStatParseError::MissingHeader));
        let error = ProcCtStats::parse("entries drop\n1 2\n1 zz\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3: not a hexadecimal number: `zz`");
        assert_eq!(ProcCtStats::parse("entries drop\n00000001\n").unwrap().sum("drop"), Some(0));
    }

    #[test]
    fn reads_below_a_sysroot() {
        let there = tempfile::tempdir().unwrap();
        let root = SysRoot::at(there.path());
        assert!(matches!(read(&root), Err(CtStatError::Unreadable(error)) if error.is_not_found()));
        std::fs::create_dir_all(there.path().join("proc/net/stat")).unwrap();
        std::fs::write(there.path().join("proc/net/stat/nf_conntrack"), V6_18).unwrap();
        assert_eq!(read(&root).unwrap().entries(), 0x103);
        std::fs::write(there.path().join("proc/net/stat/nf_conntrack"), "x").unwrap();
        assert!(read(&root).unwrap_err().to_string().contains("/proc/net/stat/nf_conntrack: no column"));
    }
}
