//! Whose table: that of this network namespace's kernel, or a running gateway's.
//!
//! `--gateway[=PATH]` anywhere on the command line chooses the gateway whose control socket that is, and so does KEEPSTATE_GATEWAY=PATH. A gateway is
//! asked in the kernel's own messages, so that everything behind this module is the same for both.
use super::fault::{Doing, Fault};
use super::gateway_socket::GatewaySocket;
use keepstate_linux::ctnetlink::Table;
use keepstate_linux::netlink::Socket;
use std::ffi::OsString;

/// The variable that names a gateway's socket.
const VARIABLE: &str = "KEEPSTATE_GATEWAY";

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// This network namespace's kernel.
    #[default]
    Kernel,
    /// The gateway behind this socket.
    Gateway(GatewaySocket),
}

impl Place {
    /// Takes the words that choose a place out of a command line; `variable` is what the environment says.
    ///
    /// # Errors
    /// No path behind `--gateway=`.
    pub(super) fn take(
        words: &[String],
        variable: Option<OsString>,
        gateway: &GatewaySocket,
    ) -> Result<(Place, Vec<String>), Fault> {
        let mut place = variable
            .filter(|path| !path.is_empty())
            .map_or(Place::Kernel, |path| Place::Gateway(gateway.at(path.into())));
        let mut rest = Vec::with_capacity(words.len());
        for word in words {
            match word.strip_prefix("--gateway") {
                Some("") => place = Place::Gateway(gateway.clone()),
                Some("=") => {
                    return Err(Fault::usage("option `--gateway=' is followed by the path of a control socket"));
                }
                Some(path) if path.starts_with('=') => {
                    place = Place::Gateway(gateway.at(path.trim_start_matches('=').into()))
                }
                _ => rest.push(word.clone()),
            }
        }
        Ok((place, rest))
    }

    /// What the environment says.
    pub(super) fn variable() -> Option<OsString> {
        std::env::var_os(VARIABLE)
    }

    /// A way to the table's owner.
    ///
    /// # Errors
    /// What the system says; nobody listens there, or does not let us in.
    pub(super) fn socket(&self) -> Result<Socket, Fault> {
        match self {
            Place::Kernel => Socket::open().map_err(|error| Fault::kernel(Doing::Open, &error.into())),
            Place::Gateway(gateway) => match gateway.connect() {
                Ok(stream) => Ok(Socket::over(stream)),
                Err(error) => Err(Fault::Failed(format!("Operation failed: {error:#}"))),
            },
        }
    }

    /// The table.
    ///
    /// # Errors
    /// As [`Place::socket`].
    pub(super) fn table(&self) -> Result<Table, Fault> {
        self.socket().map(Table::of)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn usual() -> GatewaySocket {
        GatewaySocket::new("/usual".into(), |_| anyhow::bail!("nobody listens"))
    }

    #[test]
    fn the_command_line_counts_before_the_environment() {
        let take = |line: &str, variable: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (place, rest) = Place::take(&words, variable.map(Into::into), &usual()).unwrap();
            (place, rest.join(" "))
        };
        let gateway = |path: &str| Place::Gateway(usual().at(path.into()));
        assert_eq!(take("-L -p tcp", None), (Place::Kernel, "-L -p tcp".into()));
        assert_eq!(take("-L", Some("")), (Place::Kernel, "-L".into()));
        assert_eq!(take("-L", Some("/a")), (gateway("/a"), "-L".into()));
        assert_eq!(take("-L --gateway=/b -p tcp", Some("/a")), (gateway("/b"), "-L -p tcp".into()));
        assert_eq!(take("--gateway -L", Some("/a")), (gateway("/usual"), "-L".into()));
        assert_eq!(take("--gateways -L", None), (Place::Kernel, "--gateways -L".into()));
        assert!(Place::take(&["--gateway=".to_owned()], None, &usual()).is_err());
    }
}
