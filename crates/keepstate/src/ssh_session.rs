//! The SSH session that the program was started from, if it was: by the variable that sshd sets. Nothing is changed.
use keepstate_linux::process_parent::parent_of;
use std::fs;
use std::net::IpAddr;

/// An SSH session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SshSession {
    /// Where it comes from.
    pub client: IpAddr,
    /// The port of this machine.
    pub port: u16,
}

impl SshSession {
    /// The current one. If `sudo` removed the variable, a parent process still has it.
    pub fn current() -> Option<SshSession> {
        let own = std::env::var("SSH_CONNECTION").ok();
        let value = own.or_else(|| {
            let mut process = std::process::id();
            for _ in 0..MAX_ANCESTORS {
                let variables = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
                if let Some(value) = ssh_connection_variable(&variables) {
                    return Some(value);
                }
                process = parent_of(&process.to_string())?;
            }
            None
        })?;
        SshSession::of_variable(&value)
    }

    /// `SSH_CONNECTION` is client, its port, server, its port; a link-local address has its link behind a %.
    fn of_variable(value: &str) -> Option<SshSession> {
        let mut words = value.split_whitespace();
        let client = words.next()?.split('%').next()?.parse().ok()?;
        let port = words.nth(2)?.parse().ok().filter(|port| *port != 0)?;
        Some(SshSession { client, port })
    }
}

fn ssh_connection_variable(environment: &[u8]) -> Option<String> {
    let value = environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"SSH_CONNECTION="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Limit on the search upwards: shells in sudo in tmux in a shell.
const MAX_ANCESTORS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_found_in_the_environment() {
        let of = |text| SshSession::of_variable(text).map(|session| (session.client.to_string(), session.port));
        assert_eq!(of("192.0.2.7 50022 192.0.2.1 2222"), Some(("192.0.2.7".to_owned(), 2222)));
        assert_eq!(of("fe80::1%eth0 50022 fe80::2%eth0 22"), Some(("fe80::1".to_owned(), 22)));
        assert_eq!((of("x y"), of("")), (None, None));
        assert_eq!(ssh_connection_variable(b"A=1\0SSH_CONNECTION=a 1 b 22\0B=2\0").as_deref(), Some("a 1 b 22"));
    }
}
