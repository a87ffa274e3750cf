//! The process at the other end of a Unix socket (SO_PEERCRED).
#![allow(
    unsafe_code,
    reason = "std's wrapper is unstable; rustix's needs a pid above 0, which the kernel does not promise"
)]

use rustix::process::{getegid, geteuid};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The credentials of a process at the time it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// The process; 0 if it is in another pid namespace.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

impl PeerCred {
    /// Those of the peer of `stream`.
    ///
    /// # Errors
    /// The system's error.
    pub fn of(stream: &UnixStream) -> io::Result<PeerCred> {
        let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `found`, which outlives the call.
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

    /// Those of this process.
    pub fn current() -> PeerCred {
        PeerCred { pid: std::process::id(), uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_of_a_socket_pair_is_this_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(PeerCred::of(&ours).unwrap(), PeerCred::current());
    }
}
