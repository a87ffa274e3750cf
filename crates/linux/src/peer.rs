//! Who is at the other end of a Unix socket, by the kernel's word.
#![allow(unsafe_code, reason = "SO_PEERCRED has no stable safe wrapper in std")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// A process and its owner, as they were when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub process: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

impl Peer {
    /// The process that has connected.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
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
        Ok(Peer { process: u32::try_from(found.pid).unwrap_or(0), user: found.uid, group: found.gid })
    }

    /// Our own process.
    pub fn own() -> Peer {
        // SAFETY: these calls take nothing and cannot fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        Peer { process: std::process::id(), user, group }
    }
}
