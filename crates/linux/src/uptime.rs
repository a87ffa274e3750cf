//! Which boot of the machine this is, and how long it has lasted: the clock that nobody sets.
#![allow(unsafe_code, reason = "clock_gettime(2) has no safe wrapper in std for this clock")]

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

/// Where the kernel tells it.
const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// A number that no other boot of any machine has.
///
/// # Errors
/// The kernel does not tell it.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string(BOOT_ID_PATH)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("{BOOT_ID_PATH}: {text:?}")))
}

/// Time since the machine was started, that in which it slept included.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which `time` is, and it outlives the call.
    let asked = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    if asked != 0 {
        // Linux has had this clock since 2.6.39: it does not fail.
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_stable_and_boottime_advances() {
        assert_eq!(boot_id().ok(), boot_id().ok());
        let before = since_boot();
        assert!(before > Duration::ZERO && since_boot() >= before);
    }
}
