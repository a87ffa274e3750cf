//! How the scheduler weighs a thread against others (`nice`).
//!
//! Netfilter runs in the kernel's own time, before any process. A program that does its work would otherwise wait behind every busy process of the machine, with each packet that needs it.
use std::io;

/// The calling thread, and those that it starts, go before ordinary ones.
///
/// # Errors
/// Permission denied: it needs CAP_SYS_NICE, or a limit of `nice` that allows it.
pub fn prefer_thread() -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, PREFERRED)?)
}

/// The calling thread, and the programs and threads that it starts, are ordinary ones again.
pub fn ordinary_thread() {
    // Nobody needs a right for it; where a filter of system calls forbids it, it stays as it was.
    let _ = rustix::process::setpriority_process(None, 0);
}

/// As a service manager would set it: well before ordinary processes, behind those of real time.
const PREFERRED: i32 = -10;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;

    #[test]
    fn a_preferred_thread_may_become_ordinary() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let seen = std::thread::spawn(move || {
            let allowed = prefer_thread().is_ok();
            let preferred = nice();
            let heir = std::thread::spawn(nice).join().unwrap();
            ordinary_thread();
            (allowed, preferred, heir, nice())
        });
        match seen.join().unwrap() {
            (true, preferred, heir, ordinary) => assert_eq!((preferred, heir, ordinary), (PREFERRED, PREFERRED, 0)),
            // Without the right nothing has changed.
            (false, preferred, heir, _) => assert_eq!(preferred, heir),
        }
    }
}
