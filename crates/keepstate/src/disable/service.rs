//! A service by its protocol and port: `tcp/1883`.
use std::fmt;
use std::str::FromStr;

/// A protocol and one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// The protocol.
    pub protocol: Protocol,
    /// The port, never 0.
    pub port: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    /// As in `/etc/protocols`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol.name(), self.port)
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Service, String> {
        let wrong = || format!("{text:?}: write protocol and port like tcp/1883; protocols are tcp, udp, sctp");
        let (one, other) = text.trim().split_once('/').ok_or_else(wrong)?;
        // Some write the port first, as /etc/services does.
        let (protocol, port) =
            if one.starts_with(|letter: char| letter.is_ascii_digit()) { (other, one) } else { (one, other) };
        let protocol = protocol.to_ascii_lowercase();
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol).ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        Ok(Service { protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing() {
        assert_eq!("tcp/1883".parse::<Service>().unwrap().to_string(), "tcp/1883");
        assert_eq!("53/UDP".parse::<Service>().unwrap().to_string(), "udp/53");
        for wrong in ["1883", "tcp/", "tcp/0", "tcp/65536", "icmp/1", "/", "tcp/1883-1890", ""] {
            assert!(wrong.parse::<Service>().unwrap_err().contains("like tcp/1883"), "{wrong}");
        }
    }
}
