//! The limit of open files, which bounds the sessions of a process.
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises this process's limit of open files (RLIMIT_NOFILE) to `wanted`, or as far as allowed. Returns the limit then in force.
///
/// # Errors
/// setrlimit(2) fails.
pub fn raise_file_limit(wanted: u64) -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Absent means unlimited.
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    if soft >= wanted {
        return Ok(soft);
    }
    // Only root can go beyond the hard limit, and nobody beyond fs.nr_open.
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum.map(|hard| hard.max(wanted)) };
    if setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(hard)
}
