//! Signals: SIGHUP as a flag, the usual request to reload configuration files; and SIGKILL for a process group.
use rustix::process::{Pid, Signal};
use signal_hook::consts::SIGHUP;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

static SIGHUP_RECEIVED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on SIGHUP does not end the process but sets the returned flag.
///
/// # Errors
/// The signal handler cannot be installed.
pub fn catch_sighup() -> io::Result<&'static AtomicBool> {
    signal_hook::flag::register(SIGHUP, Arc::clone(&SIGHUP_RECEIVED))?;
    Ok(&SIGHUP_RECEIVED)
}

/// Kills a process that leads a process group, and everything in that group. It may have ended already.
pub fn kill_process_group(leader: u32) {
    // 0 and 1 mean other groups than a child's own.
    if let Some(leader) = i32::try_from(leader).ok().filter(|leader| *leader > 1).and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;
    use std::sync::atomic::Ordering;

    #[test]
    fn sighup_sets_the_flag() {
        let received = catch_sighup().unwrap();
        assert!(!received.load(Ordering::Relaxed));
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(received.swap(false, Ordering::Relaxed));
    }

    #[test]
    fn kills_a_process_group() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        kill_process_group(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        kill_process_group(0);
        kill_process_group(u32::MAX);
    }
}
