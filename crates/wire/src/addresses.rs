//! Address family, and a packet's pair of addresses: plain values, without a reference into the packet.
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Family {
    /// Internet Protocol version 4.
    V4,
    /// Internet Protocol version 6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// Source and destination address of one packet; both are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Addresses {
    /// Four bytes each, in network order.
    V4 {
        /// Source.
        source: [u8; 4],
        /// Destination.
        destination: [u8; 4],
    },
    /// Sixteen bytes each, in network order.
    V6 {
        /// Source.
        source: [u8; 16],
        /// Destination.
        destination: [u8; 16],
    },
}

impl Addresses {
    /// A pair of addresses; `None` if they are of different families.
    ///
    /// ```
    /// use keepstate_wire::Addresses;
    /// let pair = Addresses::new([10, 1, 0, 2].into(), [10, 2, 0, 9].into()).unwrap();
    /// assert_eq!(pair, Addresses::V4 { source: [10, 1, 0, 2], destination: [10, 2, 0, 9] });
    /// assert_eq!(pair.to_string(), "10.1.0.2 > 10.2.0.9");
    /// ```
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Some(Addresses::V4 { source: source.octets(), destination: destination.octets() })
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Addresses::V6 { source: source.octets(), destination: destination.octets() })
            }
            _ => None,
        }
    }

    /// IPv4 or IPv6.
    pub const fn family(&self) -> Family {
        match self {
            Addresses::V4 { .. } => Family::V4,
            Addresses::V6 { .. } => Family::V6,
        }
    }

    /// The source address.
    pub const fn source(&self) -> IpAddr {
        match *self {
            Addresses::V4 { source: [a, b, c, d], .. } => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            Addresses::V6 { source, .. } => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(source))),
        }
    }

    /// The destination address.
    pub const fn destination(&self) -> IpAddr {
        match *self {
            Addresses::V4 { destination: [a, b, c, d], .. } => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            Addresses::V6 { destination, .. } => IpAddr::V6(Ipv6Addr::from_bits(u128::from_be_bytes(destination))),
        }
    }
}

impl fmt::Display for Addresses {
    /// `source > destination`, as tcpdump writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.source(), self.destination())
    }
}
