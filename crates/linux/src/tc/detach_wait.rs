//! The kernel detaches a program some time after its link's last name is gone; until then it goes on with packets.
use std::io;
use std::time::Duration;

/// How often it is looked whether a program is detached: for ten seconds in all.
const CHECKS: u32 = 2000;
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Waits until a program is gone.
///
/// # Errors
/// It cannot be looked for; it is still there after ten seconds.
pub(super) fn wait_until_gone(mut is_gone: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    for _ in 0..CHECKS {
        if is_gone()? {
            return Ok(());
        }
        std::thread::sleep(CHECK_INTERVAL);
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel has not detached a program within ten seconds"))
}
