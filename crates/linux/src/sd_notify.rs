//! What a service tells systemd about itself, as sd_notify(3) has it: a datagram to the socket that `NOTIFY_SOCKET` names.
//!
//! Outside systemd there is no such socket, and nothing is said. That nobody hears is never an error: a service works on all the same.
#![allow(unsafe_code, reason = "clock_gettime(2) has no safe wrapper in std that tells the clock's own number")]

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd, if there is one.
#[derive(Debug)]
pub struct SdNotifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl SdNotifier {
    /// The one that the environment names; `None` outside systemd.
    pub fn from_env() -> Option<SdNotifier> {
        SdNotifier::with_socket(&env::var_os("NOTIFY_SOCKET")?).ok()
    }

    /// One to this socket: a path, or behind an `@` an abstract name.
    ///
    /// # Errors
    /// That is no name of a socket; the system has no socket for us.
    pub fn with_socket(name: &OsString) -> io::Result<SdNotifier> {
        let to = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // Whoever should hear may be stuck: we are not.
        socket.set_nonblocking(true)?;
        Ok(SdNotifier { socket, address: to })
    }

    /// Says `state`: lines of `NAME=VALUE`.
    pub fn notify(&self, state: &str) {
        // Nobody hears: nothing depends on it.
        let _ = self.socket.send_to_addr(state.as_bytes(), &self.address);
    }

    /// It works.
    pub fn ready(&self) {
        self.notify("READY=1");
    }

    /// It reads its files again; [`Notifier::ready`] ends that.
    pub fn reloading(&self) {
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_now().as_micros()));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// What it is doing, for people.
    pub fn status(&self, text: &str) {
        self.notify(&format!("STATUS={}", text.replace('\n', " ")));
    }
}

/// How often systemd wants a sign of life (`WATCHDOG=1`) of this process: well within its own limit. `None` if it wants none.
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|limit| meant && *limit > 0).map(|limit| Duration::from_micros(limit / 3))
}

/// CLOCK_MONOTONIC, as systemd compares it.
fn monotonic_now() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec, which lives through the call.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    if told != 0 {
        return Duration::ZERO;
    }
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn notifies_by_path_and_by_abstract_name() {
        let name = format!("keepstate-notify-{}", std::process::id());
        let path = env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, to) in [(&by_path, path.clone().into_os_string()), (&by_name, format!("@{name}").into())] {
            let notifier = SdNotifier::with_socket(&to).unwrap();
            notifier.ready();
            assert_eq!(received(socket), "READY=1");
            notifier.status("two\nlines");
            assert_eq!(received(socket), "STATUS=two lines");
            notifier.reloading();
            let said = received(socket);
            let micros: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!(micros > 0);
            notifier.stopping();
            assert_eq!(received(socket), "STOPPING=1");
        }
        std::fs::remove_file(path).unwrap();
        // Nobody is there any more: that is no error.
        SdNotifier::with_socket(&"/nonexistent/keepstate".into()).unwrap().ready();
    }
}
