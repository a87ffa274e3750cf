//! Whose table: that of this network namespace's kernel, or a running gateway's.
//!
//! `--gateway[=PATH]` anywhere on the command line chooses the gateway whose control socket that is, and so does KEEPSTATE_GATEWAY=PATH. A gateway is
//! asked in the kernel's own messages, so that everything behind this module is the same for both.
use super::error::{ConntrackError, Operation};
use super::gateway_socket::GatewaySocket;
use keepstate_linux::ctnetlink::CtClient;
use keepstate_linux::netlink::NetlinkSocket;
use std::ffi::OsString;

/// The variable that names a gateway's socket.
const GATEWAY_ENV: &str = "KEEPSTATE_GATEWAY";

/// See the module's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// This network namespace's kernel.
    #[default]
    Kernel,
    /// The gateway behind this socket.
    Gateway(GatewaySocket),
}

impl Target {
    /// Takes the words that choose a place out of a command line; `variable` is what the environment says.
    ///
    /// # Errors
    /// No path behind `--gateway=`.
    pub(super) fn take(
        words: &[String],
        variable: Option<OsString>,
        gateway: &GatewaySocket,
    ) -> Result<(Target, Vec<String>), ConntrackError> {
        let mut place = variable
            .filter(|path| !path.is_empty())
            .map_or(Target::Kernel, |path| Target::Gateway(gateway.at(path.into())));
        let mut rest = Vec::with_capacity(words.len());
        for word in words {
            match word.strip_prefix("--gateway") {
                Some("") => place = Target::Gateway(gateway.clone()),
                Some("=") => {
                    return Err(ConntrackError::usage(
                        "option `--gateway=' is followed by the path of a control socket",
                    ));
                }
                Some(path) if path.starts_with('=') => {
                    place = Target::Gateway(gateway.at(path.trim_start_matches('=').into()))
                }
                _ => rest.push(word.clone()),
            }
        }
        Ok((place, rest))
    }

    /// What the environment says.
    pub(super) fn from_env() -> Option<OsString> {
        std::env::var_os(GATEWAY_ENV)
    }

    /// A way to the table's owner.
    ///
    /// # Errors
    /// What the system says; nobody listens there, or does not let us in.
    pub(super) fn open_socket(&self) -> Result<NetlinkSocket, ConntrackError> {
        match self {
            Target::Kernel => NetlinkSocket::open_netfilter()
                .map_err(|error| ConntrackError::from_kernel(Operation::Open, &error.into())),
            Target::Gateway(gateway) => match gateway.connect() {
                Ok(stream) => Ok(NetlinkSocket::over_stream(stream)),
                Err(error) => Err(ConntrackError::Failed(format!("Operation failed: {error:#}"))),
            },
        }
    }

    /// The table.
    ///
    /// # Errors
    /// As [`Place::socket`].
    pub(super) fn open_table(&self) -> Result<CtClient, ConntrackError> {
        self.open_socket().map(CtClient::from_socket)
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
    fn command_line_overrides_environment() {
        let take = |line: &str, variable: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (place, rest) = Target::take(&words, variable.map(Into::into), &usual()).unwrap();
            (place, rest.join(" "))
        };
        let gateway = |path: &str| Target::Gateway(usual().at(path.into()));
        assert_eq!(take("-L -p tcp", None), (Target::Kernel, "-L -p tcp".into()));
        assert_eq!(take("-L", Some("")), (Target::Kernel, "-L".into()));
        assert_eq!(take("-L", Some("/a")), (gateway("/a"), "-L".into()));
        assert_eq!(take("-L --gateway=/b -p tcp", Some("/a")), (gateway("/b"), "-L -p tcp".into()));
        assert_eq!(take("--gateway -L", Some("/a")), (gateway("/usual"), "-L".into()));
        assert_eq!(take("--gateways -L", None), (Target::Kernel, "--gateways -L".into()));
        assert!(Target::take(&["--gateway=".to_owned()], None, &usual()).is_err());
    }
}
