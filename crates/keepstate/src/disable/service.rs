//! A service by its protocol and port: `tcp/1883`.
use std::fmt;
use std::str::FromStr;

/// A protocol and one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The protocol.
    pub protocol: PortProtocol,
    /// The port, never 0.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl PortProtocol {
    /// All of them.
    pub const ALL: [PortProtocol; 3] = [PortProtocol::Tcp, PortProtocol::Udp, PortProtocol::Sctp];

    /// As in `/etc/protocols`.
    pub fn name(self) -> &'static str {
        match self {
            PortProtocol::Tcp => "tcp",
            PortProtocol::Udp => "udp",
            PortProtocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.name(), self.port)
    }
}

impl FromStr for ServicePort {
    type Err = String;

    fn from_str(text: &str) -> Result<ServicePort, String> {
        let wrong = || format!("{text:?}: write protocol and port, like tcp/1883 (protocols: tcp, udp, sctp)");
        let (one, other) = text.trim().split_once('/').ok_or_else(wrong)?;
        // The port may come first, as in /etc/services.
        let (protocol, port) =
            if one.starts_with(|letter: char| letter.is_ascii_digit()) { (other, one) } else { (one, other) };
        let protocol = protocol.to_ascii_lowercase();
        let protocol = PortProtocol::ALL.into_iter().find(|known| known.name() == protocol).ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(ServicePort { protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_may_be_written_first_or_last() {
        assert_eq!("tcp/1883".parse::<ServicePort>().unwrap().to_string(), "tcp/1883");
        assert_eq!("53/UDP".parse::<ServicePort>().unwrap().to_string(), "udp/53");
        for wrong in ["1883", "tcp/", "tcp/0", "tcp/65536", "icmp/1", "/", "tcp/1883-1890", ""] {
            assert!(wrong.parse::<ServicePort>().unwrap_err().contains("like tcp/1883"), "{wrong}");
        }
    }
}
