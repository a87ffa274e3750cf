//! Selectors of the packet inside of a tunnel's packet: `vxlan vni`, `geneve ip saddr`, `gre tcp dport`.
use super::header_field::{BitRange, Endpoint, IpField, PayloadField};
use crate::datatype::DataType;

/// A tunnel whose packets carry other packets in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Tunnel {
    /// Frames in UDP (RFC 7348).
    Vxlan,
    /// Frames in UDP (RFC 8926).
    Geneve,
    /// Packets in GRE (RFC 2784).
    Gre,
    /// Frames in GRE.
    Gretap,
}

impl Tunnel {
    const ALL: [(&'static str, Tunnel); 4] =
        [("vxlan", Tunnel::Vxlan), ("geneve", Tunnel::Geneve), ("gre", Tunnel::Gre), ("gretap", Tunnel::Gretap)];

    /// By its keyword.
    pub(crate) fn from_keyword(word: &str) -> Option<Tunnel> {
        Tunnel::ALL.iter().find(|(name, _)| *name == word).map(|(_, tunnel)| *tunnel)
    }

    /// Its keyword.
    pub(crate) fn keyword(self) -> &'static str {
        Tunnel::ALL.iter().find(|(_, tunnel)| *tunnel == self).map_or("", |(name, _)| name)
    }

    /// Fields of its own header: names, bits, types.
    pub(crate) const fn header_fields(self) -> &'static [(&'static str, BitRange, DataType)] {
        match self {
            Tunnel::Vxlan => &VXLAN_FIELDS,
            Tunnel::Geneve => &GENEVE_FIELDS,
            Tunnel::Gre => &GRE_FIELDS,
            Tunnel::Gretap => &[],
        }
    }

    /// Is it carried by UDP, else by GRE?
    pub(crate) const fn is_udp(self) -> bool {
        matches!(self, Tunnel::Vxlan | Tunnel::Geneve)
    }

    /// Does it carry frames, else packets?
    pub(crate) const fn carries_frames(self) -> bool {
        !matches!(self, Tunnel::Gre)
    }
}

/// A field behind the header that carries a tunnel's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelField {
    /// The tunnel.
    pub tunnel: Tunnel,
    /// What of it.
    pub part: TunnelPart,
}

/// What of a tunnel's packet is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelPart {
    /// Bits of the tunnel's own header.
    Header(BitRange, DataType),
    /// Bits of the frame inside.
    Link(BitRange, DataType),
    /// A field of the IPv4 header inside.
    Ip(IpField),
    /// A field of the IPv6 header inside.
    Ip6(IpField),
    /// A port inside, of this protocol.
    Port(Option<u8>, Endpoint),
    /// Bits of the transport header inside.
    Transport(PayloadField),
}

const VXLAN_FIELDS: [(&str, BitRange, DataType); 2] =
    [("flags", BitRange::new(0, 8), DataType::Number(8)), ("vni", BitRange::new(32, 24), DataType::Number(24))];
const GENEVE_FIELDS: [(&str, BitRange, DataType); 2] =
    [("type", BitRange::new(16, 16), DataType::EtherType), ("vni", BitRange::new(32, 24), DataType::Number(24))];
const GRE_FIELDS: [(&str, BitRange, DataType); 3] = [
    ("flags", BitRange::new(0, 5), DataType::Number(5)),
    ("version", BitRange::new(13, 3), DataType::Number(3)),
    ("protocol", BitRange::new(16, 16), DataType::EtherType),
];
