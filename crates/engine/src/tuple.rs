//! Tuples (`struct nf_conntrack_tuple`) and zones. A tuple names one direction of a connection; its inverse names the other.
use core::fmt;
use core::net::IpAddr;
use keepstate_types::ipproto;

/// Addresses, protocol and protocol keys of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// Transport protocol number.
    pub protocol: u8,
    /// Source port; the id of an ICMP query; the source key of GRE; 0 where the protocol has none.
    pub source_key: u16,
    /// Destination port; type and code (`type << 8 | code`) of an ICMP query; the call id of GRE; 0 where the protocol has none.
    pub destination_key: u16,
}

impl Tuple {
    /// The tuple of the opposite direction; `None` for an ICMP type that is neither a query nor a reply.
    pub fn invert(&self) -> Option<Tuple> {
        let (source_key, destination_key) = match self.protocol {
            ipproto::ICMP => (self.source_key, inverse_icmp_type(self.icmp_type())? << 8 | u16::from(self.icmp_code())),
            ipproto::ICMPV6 => {
                (self.source_key, inverse_icmpv6_type(self.icmp_type())? << 8 | u16::from(self.icmp_code()))
            }
            _ => (self.destination_key, self.source_key),
        };
        Some(Tuple {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_key,
            destination_key,
        })
    }

    /// The ICMP type in the destination key.
    pub fn icmp_type(&self) -> u8 {
        self.destination_key.to_be_bytes()[0]
    }

    /// The ICMP code in the destination key.
    pub fn icmp_code(&self) -> u8 {
        self.destination_key.to_be_bytes()[1]
    }

    /// Is it an IPv6 tuple?
    pub fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }
}

/// As `conntrack` prints a tuple: addresses, then the ports, the type, code and id of an ICMP message, or the keys of GRE.
impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tuple { source, destination, protocol, source_key, destination_key } = *self;
        write!(f, "src={source} dst={destination}")?;
        match protocol {
            ipproto::TCP | ipproto::UDP | ipproto::UDPLITE | ipproto::SCTP => {
                write!(f, " sport={source_key} dport={destination_key}")
            }
            ipproto::ICMP | ipproto::ICMPV6 => {
                write!(f, " type={} code={} id={source_key}", self.icmp_type(), self.icmp_code())
            }
            ipproto::GRE => write!(f, " srckey={source_key:#x} dstkey={destination_key:#x}"),
            _ => Ok(()),
        }
    }
}

/// RFC 792, 950: echo 8/0, timestamp 13/14, information 15/16, address mask 17/18.
fn inverse_icmp_type(kind: u8) -> Option<u16> {
    Some(match kind {
        8 => 0,
        0 => 8,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// RFC 4443, 4620: echo 128/129, node information 139/140.
fn inverse_icmpv6_type(kind: u8) -> Option<u16> {
    Some(match kind {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}

/// A conntrack zone: it separates equal tuples of different networks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Zone {
    /// 0 is the default zone.
    pub id: u16,
    /// Which tuples carry the id; in the other direction the zone is 0.
    pub direction: ZoneDirection,
}

/// Which of a connection's tuples a zone applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ZoneDirection {
    /// To both tuples.
    #[default]
    Both,
    /// To the original tuple only.
    Original,
    /// To the reply tuple only.
    Reply,
}

impl Zone {
    /// The zone's id as the tuple of `direction` carries it.
    #[inline(always)]
    pub const fn id_for(self, direction: crate::Direction) -> u16 {
        match (self.direction, direction) {
            (ZoneDirection::Both, _)
            | (ZoneDirection::Original, crate::Direction::Original)
            | (ZoneDirection::Reply, crate::Direction::Reply) => self.id,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn tuples_are_shown_as_conntrack_prints_them() {
        let tuple = |protocol, source_key, destination_key| Tuple {
            source: [10, 0, 0, 2].into(),
            destination: [192, 0, 2, 9].into(),
            protocol,
            source_key,
            destination_key,
        };
        assert_eq!(tuple(ipproto::TCP, 40_000, 80).to_string(), "src=10.0.0.2 dst=192.0.2.9 sport=40000 dport=80");
        assert_eq!(tuple(ipproto::ICMP, 7, 8 << 8).to_string(), "src=10.0.0.2 dst=192.0.2.9 type=8 code=0 id=7");
        assert_eq!(tuple(ipproto::GRE, 1, 0).to_string(), "src=10.0.0.2 dst=192.0.2.9 srckey=0x1 dstkey=0x0");
        assert_eq!(tuple(50, 0, 0).to_string(), "src=10.0.0.2 dst=192.0.2.9");
    }
}
