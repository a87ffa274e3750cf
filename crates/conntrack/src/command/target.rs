//! The table a command works on: the kernel's in this network namespace, or a running gateway's.
//!
//! `--gateway[=PATH]` anywhere on the command line selects the gateway with that control socket, and so does KEEPSTATE_GATEWAY=PATH. A
//! gateway speaks ctnetlink too, so that everything else is the same for both.
use super::error::{ConntrackError, Operation};
use super::gateway_socket::GatewaySocket;
use keepstate_linux::ctnetlink::CtClient;
use keepstate_linux::netlink::NetlinkSocket;
use std::ffi::OsString;

/// The variable that names a gateway's socket.
const GATEWAY_ENV: &str = "KEEPSTATE_GATEWAY";

/// Whose table; see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Target {
    /// The kernel, in this network namespace.
    #[default]
    Kernel,
    /// The gateway with this control socket.
    Gateway(GatewaySocket),
}

impl Target {
    /// Takes `--gateway` out of a command line; `variable` is the environment's value.
    ///
    /// # Errors
    /// No path after `--gateway=`.
    pub(super) fn take(
        args: &[String],
        variable: Option<OsString>,
        gateway: &GatewaySocket,
    ) -> Result<(Target, Vec<String>), ConntrackError> {
        let mut target = variable
            .filter(|path| !path.is_empty())
            .map_or(Target::Kernel, |path| Target::Gateway(gateway.at(path.into())));
        let mut rest = Vec::with_capacity(args.len());
        for word in args {
            match word.strip_prefix("--gateway") {
                Some("") => target = Target::Gateway(gateway.clone()),
                Some("=") => {
                    return Err(ConntrackError::usage("option `--gateway=' requires the path of a control socket"));
                }
                Some(path) if path.starts_with('=') => {
                    target = Target::Gateway(gateway.at(path.trim_start_matches('=').into()))
                }
                _ => rest.push(word.clone()),
            }
        }
        Ok((target, rest))
    }

    /// The environment variable's value.
    pub(super) fn from_env() -> Option<OsString> {
        std::env::var_os(GATEWAY_ENV)
    }

    /// A ctnetlink socket to the owner of the table.
    ///
    /// # Errors
    /// The system's error; no gateway listens there, or access is denied.
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

    /// A client of the table.
    ///
    /// # Errors
    /// As [`Target::open_socket`].
    pub(super) fn open_table(&self) -> Result<CtClient, ConntrackError> {
        self.open_socket().map(CtClient::from_socket)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
    use super::*;

    fn usual() -> GatewaySocket {
        GatewaySocket::new("/usual".into(), |_| anyhow::bail!("no gateway listens"))
    }

    #[test]
    fn command_line_overrides_environment() {
        let take = |line: &str, variable: Option<&str>| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let (target, rest) = Target::take(&words, variable.map(Into::into), &usual()).unwrap();
            (target, rest.join(" "))
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
