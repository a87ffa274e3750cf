//! Who is at the other end of a Unix socket, by the kernel's word.
#![allow(unsafe_code, reason = "SO_PEERCRED has no stable safe wrapper in std")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A process and its owner, as they were when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// The process.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl PeerCred {
    /// The process that has connected.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<PeerCred> {
        let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` octets into `found`, which outlives the call.
        let asked = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut length,
            )
        };
        if asked != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PeerCred { pid: u32::try_from(found.pid).unwrap_or(0), uid: found.uid, gid: found.gid })
    }

    /// Our own process.
    pub fn current() -> PeerCred {
        // SAFETY: these calls take nothing and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        PeerCred { pid: std::process::id(), uid, gid }
    }
}
