//! The boot: its id, and the time since (CLOCK_BOOTTIME, which nobody sets).
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

const BOOT_ID_PATH: &str = "/proc/sys/kernel/random/boot_id";

/// The random id of this boot.
///
/// # Errors
/// The kernel's file cannot be read.
pub fn boot_id() -> io::Result<[u8; 16]> {
    let text = fs::read_to_string(BOOT_ID_PATH)?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("{BOOT_ID_PATH}: not a boot id: {text:?}")))
}

/// Time since boot, including suspend.
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
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
