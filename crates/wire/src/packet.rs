//! One IP datagram, checked once.
use crate::Refusal;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Internet Protocol version 4.
    V4,
    /// Internet Protocol version 6.
    V6,
}

/// Source and destination address, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Four octets each, network order.
    V4 { /// Source.
        source: [u8; 4], /// Destination.
        destination: [u8; 4] },
    /// Sixteen octets each, network order.
    V6 { /// Source.
        source: [u8; 16], /// Destination.
        destination: [u8; 16] },
}

/// What the fragment header (or the IPv4 fields) said of a datagram that is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of this piece in the whole, in bytes.
    pub offset: usize,
    /// More pieces follow.
    pub more: bool,
}

/// A whole IP datagram whose headers are checked down to the transport header.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Checks `bytes`, one datagram from its first IP octet. Link padding after the datagram is left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> { Ok(Packet { bytes }) }
    /// As [`Packet::parse`], for a capture that kept only the first part of a datagram of `wire_len` octets.
    pub fn parse_snapped(bytes: &'a [u8], _wire_len: usize) -> Result<Self, Refusal> { Ok(Packet { bytes }) }
    /// IPv4 or IPv6.
    pub fn family(&self) -> Family { unimplemented!() }
    /// Source and destination.
    pub fn addresses(&self) -> Addresses { unimplemented!() }
    /// The transport protocol's number (after IPv6 extension headers).
    pub fn protocol(&self) -> u8 { unimplemented!() }
    /// Present when this datagram is a fragment: give it to [`crate::reassembly`] first.
    pub fn fragment(&self) -> Option<Fragment> { unimplemented!() }
    /// The octets present from the transport header on.
    pub fn transport(&self) -> &'a [u8] { unimplemented!() }
    /// The length of the transport part by the headers; more than `transport().len()` only in a snapped capture.
    pub fn transport_len(&self) -> usize { unimplemented!() }
    /// The datagram's length by its headers: what accounting counts.
    pub fn total_len(&self) -> usize { unimplemented!() }
    /// The datagram as it was given, without link padding.
    pub fn bytes(&self) -> &'a [u8] { self.bytes }
    /// Whether the transport checksum holds. True where it cannot be judged (snapped) and where the protocol has none.
    pub fn transport_checksum_ok(&self) -> bool { unimplemented!() }
}

/// The packet that an ICMP error quotes: an IP header and at least eight octets behind it, lengths not believed.
#[derive(Clone, Copy, Debug)]
pub struct Quote<'a> {
    /// Of the quoted packet, as quoted.
    pub addresses: Addresses,
    /// Transport protocol.
    pub protocol: u8,
    /// What is there of the transport header and beyond.
    pub transport: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Reads the quote that begins at `bytes`, of the family of the error that carries it.
    pub fn parse(_bytes: &'a [u8], _family: Family) -> Result<Self, Refusal> { unimplemented!() }
}
