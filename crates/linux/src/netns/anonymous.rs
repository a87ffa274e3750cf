//! Network namespaces without a name, for programs that belong together: a client, a router, a server.
//!
//! A namespace lives as long as this value or a program in it. Programs started in it end with the thread that started them, so nothing is left behind
//! however the starter ends. Without root they are made in a [user namespace](become_root_in_user_namespace).
#![allow(unsafe_code, reason = "unshare(2), and code between fork and exec")]

use super::enter::{run_on_thread, setns};
use rustix::process::{Signal, getegid, geteuid, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// One network namespace.
#[derive(Debug)]
pub struct AnonNetns(File);

impl AnonNetns {
    /// Makes one. It contains only a loopback interface that is down.
    ///
    /// # Errors
    /// Permission denied (CAP_SYS_ADMIN).
    pub fn create() -> io::Result<AnonNetns> {
        run_on_thread(|| {
            unshare(UnshareFlags::NEWNET)?;
            AnonNetns::current()
        })
    }

    /// The namespace of this thread.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn current() -> io::Result<AnonNetns> {
        File::open("/proc/thread-self/ns/net").map(AnonNetns)
    }

    /// A path that names it for other programs that may look into this process.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs `work` inside, on a thread of its own. Sockets opened there stay there.
    ///
    /// # Errors
    /// It cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        run_on_thread(|| setns(self.0.as_fd()).map(|()| work()))
    }

    /// A program to be run inside. It is killed when the thread that starts it ends, and a terminal's Ctrl-C does not reach it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let namespace = self.0.as_raw_fd();
        let mut command = Command::new(program);
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes two system calls on numbers: it neither allocates nor locks. The descriptor was open when
        // this value was, and the child has a copy of it.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                setns(BorrowedFd::borrow_raw(namespace))
            });
        }
        command
    }
}

/// Makes this process root of a new user namespace, in which it may make network namespaces. It must be single-threaded.
///
/// # Errors
/// The machine does not allow unprivileged user namespaces.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(UnshareFlags::NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// Never with `UnshareFlags::FILES`.
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES), "descriptors are shared by the threads of a process");
    // SAFETY: what is unsafe is a table of descriptors of one's own (FILES), which no caller in this file asks for.
    Ok(unsafe { unshare_unsafe(flags) }?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn enter_and_command_run_inside_the_netns() {
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let Ok(netns) = AnonNetns::create() else {
            return keepstate_test_support::report_skipped("anonymous network namespaces need root");
        };
        let there = netns.enter(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(here, there);
        assert_eq!(here, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        let ran = netns.command("readlink").arg("/proc/self/ns/net").output().unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), there.to_string_lossy());
        assert!(std::fs::read_link(netns.path()).unwrap() == there);
        // Its loopback device is down, so that nobody is reached there.
        let error = netns.enter(|| TcpStream::connect(("127.0.0.1", 9)).unwrap_err().kind()).unwrap();
        assert_eq!(error, io::ErrorKind::NetworkUnreachable);
        drop(netns.enter(|| TcpListener::bind("0.0.0.0:0")).unwrap().unwrap());
    }
}
