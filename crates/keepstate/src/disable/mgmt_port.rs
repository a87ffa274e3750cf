//! The management port: the service by which the operator reaches the machine, found from the current SSH session.
use super::service::{PortProtocol, ServicePort};
use std::fs;

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

/// The local port of the current SSH session. If `sudo` removed the variable, a parent process still has it.
pub fn ssh_session_port() -> Option<ServicePort> {
    let own = std::env::var("SSH_CONNECTION").ok();
    let value = own.or_else(|| {
        let mut process = std::process::id();
        for _ in 0..MAX_ANCESTORS {
            let variables = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            if let Some(value) = ssh_connection_variable(&variables) {
                return Some(value);
            }
            process = parent_pid(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)?;
        }
        None
    })?;
    server_port(&value).map(|port| ServicePort { protocol: PortProtocol::Tcp, port })
}

/// `SSH_CONNECTION` is client, its port, server, its port.
fn server_port(value: &str) -> Option<u16> {
    value.split_whitespace().nth(3)?.parse().ok().filter(|port| *port != 0)
}

fn ssh_connection_variable(environment: &[u8]) -> Option<String> {
    let value = environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"SSH_CONNECTION="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The parent in a line of `/proc/PID/stat`; the process name may contain anything and ends at the last parenthesis.
fn parent_pid(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|process| *process != 0)
}

/// Limit on the search upwards: shells in sudo in tmux in a shell.
const MAX_ANCESTORS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_port_is_found_in_the_environment() {
        assert_eq!(server_port("192.0.2.7 50022 192.0.2.1 2222"), Some(2222));
        assert_eq!(
            (server_port("fe80::1%eth0 50022 fe80::2%eth0 22"), server_port("x y"), server_port("")),
            (Some(22), None, None)
        );
        assert_eq!(ssh_connection_variable(b"A=1\0SSH_CONNECTION=a 1 b 22\0B=2\0").as_deref(), Some("a 1 b 22"));
        assert_eq!(parent_pid("41 (a) b) S 40 1 1"), Some(40));
        assert_eq!((parent_pid("41 (x) S 0 1 1"), parent_pid("41")), (None, None));
    }

    #[test]
    fn mgmt_port_values_are_parsed() {
        assert_eq!(parse("none"), Ok(MgmtPort::None));
        assert_eq!(parse("tcp/22"), Ok(MgmtPort::Service(ServicePort { protocol: PortProtocol::Tcp, port: 22 })));
        assert!(parse("ssh").unwrap_err().ends_with("or none"));
    }
}
