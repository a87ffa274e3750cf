//! Which process has started another.
use std::fs;

/// The parent of a process, by its name in `/proc`: its id, or `self`. `None` if there is no such process, or nothing above it.
pub fn parent_of(process: &str) -> Option<u32> {
    in_stat(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The parent in a line of `/proc/PID/stat`; the process name may contain anything and ends at the last parenthesis.
fn in_stat(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|process| *process != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_found_behind_any_name() {
        assert_eq!(in_stat("41 (a) b) S 40 1 1"), Some(40));
        assert_eq!((in_stat("41 (x) S 0 1 1"), in_stat("41")), (None, None));
        assert_eq!(parent_of("self"), Some(std::os::unix::process::parent_id()));
    }
}
