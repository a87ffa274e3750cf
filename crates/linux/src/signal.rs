//! SIGKILL for a process group.
use rustix::process::{Pid, Signal};

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

    #[test]
    fn kills_a_process_group() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        kill_process_group(child.id());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
        kill_process_group(0);
        kill_process_group(u32::MAX);
    }
}
