//! Service state for systemd (sd_notify(3)): datagrams to the socket named by `NOTIFY_SOCKET`.
//!
//! Outside systemd there is no such socket and nothing is sent. A failed notification is never an error: the service does not depend on it.
use rustix::time::{ClockId, clock_gettime};
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A connection to the service manager.
#[derive(Debug)]
pub struct SdNotifier {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl SdNotifier {
    /// The one named by `NOTIFY_SOCKET`; `None` outside systemd.
    pub fn from_env() -> Option<SdNotifier> {
        SdNotifier::with_socket(&env::var_os("NOTIFY_SOCKET")?).ok()
    }

    /// One to this socket: a path, or an abstract name after `@`.
    ///
    /// # Errors
    /// Not a valid socket name, or no socket can be opened.
    pub fn with_socket(name: &OsString) -> io::Result<SdNotifier> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that hangs must not block the service.
        socket.set_nonblocking(true)?;
        Ok(SdNotifier { socket, address })
    }

    /// Sends `state`: lines of `NAME=VALUE`.
    pub fn notify(&self, state: &str) {
        // Not an error: see above.
        let _ = self.socket.send_to_addr(state.as_bytes(), &self.address);
    }

    /// The service is ready.
    pub fn ready(&self) {
        self.notify("READY=1");
    }

    /// The service reloads its configuration; [`ready`](SdNotifier::ready) ends that.
    pub fn reloading(&self) {
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_now().as_micros()));
    }

    /// The service stops.
    pub fn stopping(&self) {
        self.notify("STOPPING=1");
    }

    /// A status line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.notify(&format!("STATUS={}", text.replace('\n', " ")));
    }
}

/// How often to send `WATCHDOG=1`: a third of systemd's limit. `None` if this process has no watchdog.
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let meant = number("WATCHDOG_PID").is_none_or(|process| process == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|limit| meant && *limit > 0).map(|limit| Duration::from_micros(limit / 3))
}

/// CLOCK_MONOTONIC, which systemd compares with its own.
fn monotonic_now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
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
            let state = received(socket);
            let micros: u64 = state.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!(micros > 0);
            notifier.stopping();
            assert_eq!(received(socket), "STOPPING=1");
        }
        std::fs::remove_file(path).unwrap();
        // Nothing listens there: not an error.
        SdNotifier::with_socket(&"/nonexistent/keepstate".into()).unwrap().ready();
    }
}
