//! The kinds of traffic that `bench table` measures, one row each.
use clap::ValueEnum;

/// What the connections of a row are, and how the engine is called for their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableCase {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP streams over IPv4.
    Udp,
    /// UDP streams over IPv6.
    Udp6,
    /// TCP over IPv4 with the source translated.
    Nat,
    /// TCP over IPv4 in a zone.
    Zone,
    /// TCP over IPv4 as a router with an empty ruleset calls the engine: `prefetch`, then `track` and `confirm` for each packet.
    Track,
}

impl TableCase {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            TableCase::Tcp => "tcp",
            TableCase::Tcp6 => "tcp6",
            TableCase::Udp => "udp",
            TableCase::Udp6 => "udp6",
            TableCase::Nat => "nat",
            TableCase::Zone => "zone",
            TableCase::Track => "track",
        }
    }

    pub fn is_udp(self) -> bool {
        matches!(self, TableCase::Udp | TableCase::Udp6)
    }

    pub fn is_ipv6(self) -> bool {
        matches!(self, TableCase::Tcp6 | TableCase::Udp6)
    }
}
