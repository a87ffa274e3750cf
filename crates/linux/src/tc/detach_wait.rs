//! The kernel detaches a program some time after its link's last name is gone; until then it goes on with packets.
use std::io;
use std::time::Duration;

/// How often it is looked whether a program is detached: for a second in all.
const CHECKS: u32 = 200;
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until a program is gone; false if it is there after a second.
pub(super) fn wait_until_gone(mut is_gone: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for _ in 0..CHECKS {
        if is_gone()? {
            return Ok(true);
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
    Ok(false)
}
