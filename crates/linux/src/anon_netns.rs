//! Network namespaces without a name, for programs that belong together: a client, a router, a server.
//!
//! A namespace lives as long as this value or a program in it; programs started in it end with the thread that started them, so that nothing is left behind
//! however their starter ends. Whoever is not root makes them in a [user namespace](become_root_within) of his own.
#![allow(unsafe_code, reason = "unshare, setns and prctl have no safe wrapper in std")]

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

/// One network namespace.
#[derive(Debug)]
pub struct AnonNetns(File);

impl AnonNetns {
    /// Makes one, with nothing in it but a loopback device that is down.
    ///
    /// # Errors
    /// It may not be made (CAP_SYS_ADMIN).
    pub fn create() -> io::Result<AnonNetns> {
        run_on_thread(|| {
            // SAFETY: it touches no memory, and only this thread moves, which ends in here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            File::open("/proc/thread-self/ns/net").map(AnonNetns)
        })
    }

    /// A file by which other programs, of whoever may look into this process, can name it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Does something inside, on a thread of its own. Sockets made there stay there.
    ///
    /// # Errors
    /// It may not be entered.
    pub fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        let door = self.0.as_raw_fd();
        run_on_thread(move || setns(door).map(|()| what()))
    }

    /// A program to be run inside. It is killed when the thread that starts it ends, and a terminal's Ctrl-C does not reach it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let door = self.0.as_raw_fd();
        let mut command = Command::new(program);
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes two system calls on numbers: it neither allocates nor locks. The descriptor was open when
        // this value was, and the child has a copy of it.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(io::Error::last_os_error());
                }
                setns(door)
            });
        }
        command
    }
}

/// Makes this process root of a user namespace of its own, in which it may make network namespaces. It must have no threads yet.
///
/// # Errors
/// The machine does not let users make namespaces.
pub fn become_root_in_user_namespace() -> io::Result<()> {
    // SAFETY: these calls take nothing and cannot fail.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: it touches no memory of ours; with more than one thread the kernel refuses it.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(io::Error::last_os_error());
    }
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

fn setns(door: RawFd) -> io::Result<()> {
    // SAFETY: the flag lets the kernel refuse a descriptor that is no network namespace; no memory is touched.
    match unsafe { libc::setns(door, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn run_on_thread<T: Send>(what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match std::thread::scope(|scope| scope.spawn(what).join()) {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn enter_and_command_run_inside_the_netns() {
        let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let Ok(private) = AnonNetns::create() else {
            eprintln!("\n######## SKIPPED: private namespaces: they need root");
            return;
        };
        let there = private.enter(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
        assert_ne!(here, there);
        assert_eq!(here, std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        let ran = private.command("readlink").arg("/proc/self/ns/net").output().unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap().trim(), there.to_string_lossy());
        assert!(std::fs::read_link(private.path()).unwrap() == there);
        // Its loopback device is down, so that nobody is reached there.
        let heard = private.enter(|| TcpStream::connect(("127.0.0.1", 9)).unwrap_err().kind()).unwrap();
        assert_eq!(heard, io::ErrorKind::NetworkUnreachable);
        drop(private.enter(|| TcpListener::bind("0.0.0.0:0")).unwrap().unwrap());
    }
}
