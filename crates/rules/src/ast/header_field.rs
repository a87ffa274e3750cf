//! Fields at fixed places of a packet's headers.
use crate::datatype::DataType;

/// Header that an offset refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum PayloadBase {
    /// The header of the Ethernet frame that the packet came in.
    Link,
    Network,
    Transport,
    /// Payload of TCP or UDP.
    Inner,
}

/// A range of at most 128 bits, the first one the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitRange {
    /// First bit.
    pub offset: u16,
    /// Number of bits.
    pub count: u8,
}

impl BitRange {
    /// A range of bits.
    pub const fn new(offset: u16, count: u8) -> BitRange {
        BitRange { offset, count }
    }

    /// The numbers of its bits.
    pub(crate) fn range(self) -> std::ops::Range<usize> {
        usize::from(self.offset)..usize::from(self.offset) + usize::from(self.count)
    }
}

/// Bits at a fixed offset of a header, and the packets that have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadField {
    /// Header.
    pub base: PayloadBase,
    /// Bits in it.
    pub bits: BitRange,
    /// Type of the value.
    pub data_type: DataType,
    /// Only packets of this IP protocol.
    pub protocol: Option<u8>,
    /// Only IPv6 packets (with `false`: only IPv4 packets).
    pub v6: Option<bool>,
    /// Only ICMP messages of these types; all if empty.
    pub icmp_types: &'static [u8],
}

impl PayloadField {
    /// Is it a checksum? Writing it changes no other.
    pub fn is_checksum(&self) -> bool {
        if self.base == PayloadBase::Network {
            return self.v6 == Some(false) && self.bits == BitRange::new(80, 16);
        }
        let bits = match self.protocol {
            Some(6) => BitRange::new(128, 16),
            Some(17 | 136) => BitRange::new(48, 16),
            Some(132) => BitRange::new(64, 32),
            Some(1 | 2 | 58) => BitRange::new(16, 16),
            _ => return false,
        };
        self.base == PayloadBase::Transport && self.bits == bits
    }
}

/// Source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
pub enum Endpoint {
    Source,
    Destination,
}

/// Fields of the IPv4 and IPv6 headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the words of the language")]
#[non_exhaustive]
pub enum IpField {
    Source,
    Destination,
    Protocol,
    Dscp,
    Ecn,
    Length,
    Ttl,
    Checksum,
    Id,
    /// Flags and fragment offset, as in the header.
    Fragment,
    Version,
    HeaderLength,
    FlowLabel,
}

impl IpField {
    /// Its bits in the header, if a rule may change it by writing them.
    pub const fn rewritable_bits(self, v6: bool) -> Option<BitRange> {
        match (self, v6) {
            (IpField::Version, _) => Some(BitRange::new(0, 4)),
            (IpField::HeaderLength, false) => Some(BitRange::new(4, 4)),
            (IpField::Ecn, false) => Some(BitRange::new(14, 2)),
            (IpField::Ecn, true) => Some(BitRange::new(10, 2)),
            (IpField::Id, false) => Some(BitRange::new(32, 16)),
            (IpField::Fragment, false) => Some(BitRange::new(48, 16)),
            (IpField::Protocol, false) => Some(BitRange::new(72, 8)),
            (IpField::Checksum, false) => Some(BitRange::new(80, 16)),
            (IpField::Length, false) => Some(BitRange::new(16, 16)),
            (IpField::Length, true) => Some(BitRange::new(32, 16)),
            (IpField::Protocol, true) => Some(BitRange::new(48, 8)),
            (IpField::FlowLabel, true) => Some(BitRange::new(12, 20)),
            _ => None,
        }
    }
}
