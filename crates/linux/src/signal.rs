//! SIGHUP, as a flag: the ordinary way to ask a program that runs to read its files again.
#![allow(unsafe_code, reason = "signal(2) has no safe wrapper in std")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static HANGUP: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    // Storing is all that a handler may do.
    HANGUP.store(true, Ordering::Relaxed);
}

/// From now on SIGHUP no longer ends the process but sets the flag.
///
/// # Errors
/// The kernel refuses it.
pub fn hangup() -> io::Result<&'static AtomicBool> {
    let handler: extern "C" fn(libc::c_int) = note;
    // SAFETY: the handler is a function of the right kind that lives for ever and only stores into an atomic.
    if unsafe { libc::signal(libc::SIGHUP, handler as libc::sighandler_t) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(&HANGUP)
}
