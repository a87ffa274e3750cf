//! The number of CPUs.
use crate::sysroot::SysRoot;

/// CPUs that are online; `None` if no file shows it.
pub fn online(root: &SysRoot) -> Option<u64> {
    let ranges = root.read("/sys/devices/system/cpu/online").ok();
    ranges.and_then(|text| count_in_ranges(text.trim())).or_else(|| {
        let text = root.read("/proc/cpuinfo").ok()?;
        let lines = text.lines().filter(|line| line.split(':').next().is_some_and(|name| name.trim() == "processor"));
        Some(lines.count() as u64).filter(|count| *count > 0)
    })
}

/// How many numbers there are in `0-3,5`.
fn count_in_ranges(text: &str) -> Option<u64> {
    let mut count = 0_u64;
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cpu_ranges() {
        assert_eq!(
            (count_in_ranges("0-7"), count_in_ranges("0"), count_in_ranges("0-3,8-11,15")),
            (Some(8), Some(1), Some(9))
        );
        for text in ["", "x", "3-1", "0-18446744073709551615", "1-"] {
            assert_eq!(count_in_ranges(text), None, "{text}");
        }
    }

    #[test]
    fn falls_back_to_cpuinfo() {
        let there = tempfile::tempdir().unwrap();
        let root = SysRoot::at(there.path());
        assert_eq!(online(&root), None);
        std::fs::create_dir_all(there.path().join("proc")).unwrap();
        std::fs::write(there.path().join("proc/cpuinfo"), "processor\t: 0\nmodel name : processor\n\nprocessor\t: 1\n")
            .unwrap();
        assert_eq!(online(&root), Some(2));
    }
}
