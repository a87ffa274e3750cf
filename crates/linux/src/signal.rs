//! SIGHUP, as a flag: the ordinary way to ask a program that runs to read its files again; and the end of a child with all it has started.
#![allow(unsafe_code, reason = "signal(2) and kill(2) have no safe wrapper in std")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static SIGHUP_RECEIVED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_sighup(_: libc::c_int) {
    // Storing is all that a handler may do.
    SIGHUP_RECEIVED.store(true, Ordering::Relaxed);
}

/// From now on SIGHUP no longer ends the process but sets the flag.
///
/// # Errors
/// The kernel refuses it.
pub fn catch_sighup() -> io::Result<&'static AtomicBool> {
    let handler: extern "C" fn(libc::c_int) = on_sighup;
    // SAFETY: the handler is a function of the right kind that lives for ever and only stores into an atomic.
    if unsafe { libc::signal(libc::SIGHUP, handler as libc::sighandler_t) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(&SIGHUP_RECEIVED)
}

/// Kills a process that leads a group of its own, and whoever else is in that group.
pub fn kill_process_group(leader: u32) {
    // 0 and 1 would mean other groups than a child's own.
    if let Ok(leader @ 2..) = i32::try_from(leader) {
        // SAFETY: kill takes two numbers and touches no memory of ours.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}
