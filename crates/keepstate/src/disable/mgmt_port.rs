//! The management port: the service by which the operator reaches the machine, found from the current SSH session.
use super::service::{PortProtocol, ServicePort};
use crate::ssh_session::SshSession;

/// The value of `--lifeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MgmtPort {
    /// None.
    None,
    /// This service.
    Service(ServicePort),
}

/// Parses the value of `--lifeline`.
///
/// # Errors
/// What to write instead.
pub fn parse(text: &str) -> Result<MgmtPort, String> {
    if text == "none" {
        return Ok(MgmtPort::None);
    }
    text.parse().map(MgmtPort::Service).map_err(|error: String| format!("{error}; or none"))
}

/// The local port of the current SSH session.
pub fn ssh_session_port() -> Option<ServicePort> {
    SshSession::current().map(|session| ServicePort { protocol: PortProtocol::Tcp, port: session.port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mgmt_port_values_are_parsed() {
        assert_eq!(parse("none"), Ok(MgmtPort::None));
        assert_eq!(parse("tcp/22"), Ok(MgmtPort::Service(ServicePort { protocol: PortProtocol::Tcp, port: 22 })));
        assert!(parse("ssh").unwrap_err().ends_with("or none"));
    }
}
