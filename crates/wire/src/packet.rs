//! One IP packet, checked once.
//!
//! A [`Packet`] borrows the bytes it was parsed from and holds a few positions in them. It is made by one check of the
//! IP header (and of IPv6 extension headers) and then only read. It never checks the transport header: the views in
//! [`crate::tcp`], [`crate::udp`] and the other protocol modules do.
use crate::checksum::{self, Sum};
use crate::ipv6_ext::{self, SkipMode};
use crate::{Addresses, Family, ParseError, ipv4_options, protocol};
use core::fmt;
use core::net::SocketAddr;

mod plain;
mod transport_checksum;

pub use plain::{PlainTcp, PlainUdp};

/// The fragment fields of a packet: the IPv6 fragment header, or the fields of the IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FragmentHeader {
    /// The identification: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// Offset of this fragment in the reassembled packet, in bytes.
    pub offset: usize,
    /// The "more fragments" flag: this is not the last one.
    pub more: bool,
}

/// An IP packet whose headers are checked down to the transport header.
///
/// It holds only positions; addresses are read from the bytes when asked for. Two are equal if their bytes are, and were
/// parsed in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet<'a> {
    /// The packet without link padding; in a truncated capture, the part that was captured.
    bytes: &'a [u8],
    total_len: u32,
    transport_at: u32,
    /// Where the fragment fields stand: 6 in IPv4, the fragment header in IPv6. Zero: not a fragment.
    fragment_at: u32,
    protocol: u8,
    family: Family,
    /// The transport checksum need not be verified.
    checksum_unnecessary: bool,
}

/// The positions of the headers in a packet: what [`Packet::parse`] has found, without the bytes. It stays valid while field
/// values change and lengths do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    total_len: u32,
    transport_at: u32,
    fragment_at: u32,
    protocol: u8,
    family: Family,
    /// The transport checksum need not be verified.
    checksum_unnecessary: bool,
}

impl Layout {
    /// The packet again, after field values have changed; `None` if `bytes` has another length. The IP header checksum is not
    /// verified again.
    ///
    /// ```
    /// use keepstate_wire::Packet;
    /// let mut ping = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0x66, 0xde, 10, 0, 0, 1, 10, 0, 0, 2, 8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
    /// let layout = Packet::parse(&ping).unwrap().layout().unwrap();
    /// ping[19] = 3;
    /// assert_eq!(layout.view(&ping).unwrap().transport_at(), 20);
    /// assert!(layout.view(&ping[1..]).is_none());
    /// ```
    #[inline(always)]
    pub fn view(self, bytes: &[u8]) -> Option<Packet<'_>> {
        let Layout { total_len, transport_at, fragment_at, protocol, family, checksum_unnecessary } = self;
        let whole = bytes.len() == total_len as usize;
        whole.then_some(Packet { bytes, total_len, transport_at, fragment_at, protocol, family, checksum_unnecessary })
    }
}

impl<'a> Packet<'a> {
    /// The positions of its headers; `None` for a truncated capture.
    #[inline(always)]
    pub fn layout(&self) -> Option<Layout> {
        let Packet { total_len, transport_at, fragment_at, protocol, family, checksum_unnecessary, .. } = *self;
        (!self.is_snapped()).then_some(Layout {
            total_len,
            transport_at,
            fragment_at,
            protocol,
            family,
            checksum_unnecessary,
        })
    }

    /// The same packet, marked as one whose transport checksum need not be verified: the sender left it partial for checksum
    /// offload ([`set_partial_checksum`](crate::rewrite::set_partial_checksum)).
    #[must_use]
    pub fn checksum_unnecessary(self) -> Self {
        Packet { checksum_unnecessary: true, ..self }
    }

    /// Parses `bytes`, which begin with the IP header. Link padding after the packet is cut off.
    ///
    /// # Errors
    /// What is wrong with the IP header, an IPv6 extension header or a length.
    #[inline(always)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_snapped(bytes, bytes.len())
    }

    /// Like [`Packet::parse`], for a capture that kept only the first part of a packet of `wire_len` bytes.
    ///
    /// # Errors
    /// As [`Packet::parse`]; [`ParseError::NotCaptured`] if the captured part does not hold the headers.
    #[inline(always)]
    pub fn parse_snapped(bytes: &'a [u8], wire_len: usize) -> Result<Self, ParseError> {
        Self::parse_ip::<false>(bytes, wire_len.max(bytes.len()), SkipMode::ToFragment)
    }

    /// Like [`Packet::parse_snapped`], for a packet captured on the machine that sent it, before its network card has filled in what
    /// was left to it: the IPv4 header checksum is not verified, and a length field of zero means the whole frame (a segment that
    /// the card will cut).
    ///
    /// # Errors
    /// As [`Packet::parse_snapped`], except [`ParseError::HeaderChecksum`].
    pub fn parse_unfinished(bytes: &'a [u8], wire_len: usize) -> Result<Self, ParseError> {
        Self::parse_ip::<true>(bytes, wire_len.max(bytes.len()), SkipMode::ToFragment)
    }

    /// Like [`Packet::parse`], for a packet that [`crate::reassembly`] has built: the result is never a fragment. A fragment
    /// header left inside an IPv6 packet is skipped, as Linux does, unless it is one of a later fragment.
    ///
    /// # Errors
    /// As [`Packet::parse`]; [`ParseError::FragmentNested`] if the packet is itself a later fragment.
    pub fn parse_reassembled(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_ip::<false>(bytes, bytes.len(), SkipMode::ThroughFragments)
    }

    /// Like [`Packet::parse_reassembled`], for a packet of `wire_len` bytes whose fragments were captured in part: `bytes` are
    /// those before the first gap.
    ///
    /// # Errors
    /// As [`Packet::parse_reassembled`]; [`ParseError::NotCaptured`] if `bytes` do not hold the headers.
    pub fn parse_reassembled_snapped(bytes: &'a [u8], wire_len: usize) -> Result<Self, ParseError> {
        Self::parse_ip::<false>(bytes, wire_len.max(bytes.len()), SkipMode::ThroughFragments)
    }

    // Inlined by order: a result of this size is otherwise returned through memory, which costs more than the parsing.
    #[inline(always)]
    fn parse_ip<const UNFINISHED: bool>(bytes: &'a [u8], wire_len: usize, mode: SkipMode) -> Result<Self, ParseError> {
        match bytes.first() {
            Some(first) if first >> 4 == 4 => Self::parse_v4::<UNFINISHED>(bytes, wire_len),
            Some(first) if first >> 4 == 6 => Self::parse_v6::<UNFINISHED>(bytes, wire_len, mode),
            Some(_) => Err(ParseError::Version),
            None => Err(ParseError::Empty),
        }
    }

    #[inline(always)]
    fn parse_v4<const UNFINISHED: bool>(bytes: &'a [u8], wire_len: usize) -> Result<Self, ParseError> {
        let Some(h) = bytes.first_chunk::<V4_HEADER_LEN>() else {
            return Err(short_header_error(wire_len, V4_HEADER_LEN, ParseError::HeaderTruncated));
        };
        let header_len = usize::from(h[0] & 15) * 4;
        if header_len != V4_HEADER_LEN {
            check_v4_header_with_options(bytes, header_len, wire_len, !UNFINISHED)?;
        } else if !UNFINISHED && !checksum::ipv4_header_checksum_ok(h) {
            return Err(ParseError::HeaderChecksum);
        }
        let mut total_len = usize::from(u16::from_be_bytes([h[2], h[3]]));
        if UNFINISHED && total_len == 0 {
            total_len = wire_len.min(MAX_UNFINISHED_LEN);
        }
        if total_len < header_len {
            return Err(ParseError::TotalLength);
        }
        if total_len > wire_len {
            return Err(ParseError::Truncated);
        }
        // More fragments, or an offset: the reserved bit and "don't fragment" do not make a fragment.
        let is_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0;
        Ok(Packet {
            bytes: bytes.get(..total_len).unwrap_or(bytes),
            total_len: position_u32(total_len),
            transport_at: position_u32(header_len),
            fragment_at: if is_fragment { V4_FRAG_OFF_AT } else { 0 },
            protocol: h[9],
            family: Family::V4,
            checksum_unnecessary: false,
        })
    }

    #[inline(always)]
    fn parse_v6<const UNFINISHED: bool>(bytes: &'a [u8], wire_len: usize, mode: SkipMode) -> Result<Self, ParseError> {
        let Some(h) = bytes.first_chunk::<V6_HEADER_LEN>() else {
            return Err(short_header_error(wire_len, V6_HEADER_LEN, ParseError::HeaderTruncated));
        };
        let payload_len = usize::from(u16::from_be_bytes([h[4], h[5]]));
        let next = h[6];
        // Linux takes the length from the frame if the field is zero and hop-by-hop options follow, jumbo option or not.
        let from_frame = payload_len == 0 && (next == ipv6_ext::HOP_BY_HOP || UNFINISHED && next == protocol::TCP);
        let total_len = if from_frame { wire_len.min(MAX_UNFINISHED_LEN) } else { V6_HEADER_LEN + payload_len };
        if total_len > wire_len {
            return Err(ParseError::Truncated);
        }
        let bytes = bytes.get(..total_len).unwrap_or(bytes);
        let mut packet = Packet {
            bytes,
            total_len: position_u32(total_len),
            transport_at: position_u32(V6_HEADER_LEN),
            fragment_at: 0,
            protocol: next,
            family: Family::V6,
            checksum_unnecessary: false,
        };
        if ipv6_ext::is_extension(next) {
            // Linux looks at these options when a packet arrives: not at those that were inside of fragments.
            if next == ipv6_ext::HOP_BY_HOP && mode != SkipMode::ThroughFragments {
                ipv6_ext::check_hop_by_hop(bytes, total_len)?;
            }
            let end = Self::skip_v6_exthdrs(bytes, total_len, next, mode)?;
            packet.transport_at = position_u32(end.transport_at);
            packet.fragment_at = end.fragment_at.map_or(0, position_u32);
            packet.protocol = end.protocol;
        }
        Ok(packet)
    }

    #[cold]
    fn skip_v6_exthdrs(
        bytes: &[u8],
        total_len: usize,
        next: u8,
        mode: SkipMode,
    ) -> Result<ipv6_ext::SkipResult, ParseError> {
        let end = ipv6_ext::skip_exthdrs(bytes, V6_HEADER_LEN, next, mode).map_err(|error| match error {
            ParseError::ExtensionTruncated if bytes.len() < total_len => ParseError::NotCaptured,
            other => other,
        })?;
        if mode == SkipMode::ThroughFragments && end.fragment_at.is_some() {
            return Err(ParseError::FragmentNested);
        }
        Ok(end)
    }

    /// IPv4 or IPv6.
    #[inline]
    pub fn family(&self) -> Family {
        self.family
    }

    /// Source and destination.
    #[inline]
    pub fn addresses(&self) -> Addresses {
        read_addresses(self.bytes, self.family)
    }

    /// The transport protocol's number (after IPv6 extension headers).
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// The fragment fields, if this packet is a fragment: give it to [`crate::reassembly`] first.
    ///
    /// A fragment's [`transport`](Packet::transport) is its part of the payload; in IPv6, what follows the fragment header.
    #[inline]
    pub fn fragment(&self) -> Option<FragmentHeader> {
        if self.fragment_at == 0 { None } else { self.read_fragment() }
    }

    #[cold]
    fn read_fragment(&self) -> Option<FragmentHeader> {
        match self.family {
            Family::V4 => {
                let &[a, b, c, d] = self.bytes.get(4..)?.first_chunk()?;
                let word = u16::from_be_bytes([c, d]);
                let id = u32::from(u16::from_be_bytes([a, b]));
                Some(FragmentHeader { id, offset: usize::from(word & 0x1fff) * 8, more: word & 0x2000 != 0 })
            }
            Family::V6 => {
                let &[_, _, c, d, e, f, g, h] = self.bytes.get(self.fragment_header_at()?..)?.first_chunk()?;
                let word = u16::from_be_bytes([c, d]);
                let id = u32::from_be_bytes([e, f, g, h]);
                Some(FragmentHeader { id, offset: usize::from(word & 0xfff8), more: word & 1 != 0 })
            }
        }
    }

    /// Offset of the IPv6 fragment header, in a fragment.
    pub(crate) fn fragment_header_at(&self) -> Option<usize> {
        match (self.family, self.fragment_at) {
            (Family::V4, _) | (Family::V6, 0) => None,
            (Family::V6, at) => usize::try_from(at).ok(),
        }
    }

    /// The bytes from the first IPv6 header of type `kind` on: hop-by-hop options (0), routing (43), fragment (44), destination
    /// options (60), or the transport protocol. `None` for IPv4, and where the packet has no such header.
    pub fn find_exthdr(&self, kind: u8) -> Option<&'a [u8]> {
        match self.family() {
            Family::V4 => None,
            Family::V6 => self.bytes.get(ipv6_ext::find_header(self.bytes, kind)?..),
        }
    }

    /// The options of the IPv4 header; none in IPv6.
    pub fn options(&self) -> ipv4_options::Ipv4Options<'a> {
        let end = if self.family == Family::V4 { self.transport_at() } else { V4_HEADER_LEN };
        ipv4_options::Ipv4Options::new(self.bytes.get(V4_HEADER_LEN..end).unwrap_or(&[]))
    }

    /// Whether the options of the IPv4 header are well-formed; also true without any, and in IPv6. Linux drops a packet with
    /// malformed options after tracking it and before confirming its connection.
    #[inline(always)]
    pub fn ipv4_options_ok(&self) -> bool {
        self.transport_at as usize == V4_HEADER_LEN || self.family == Family::V6 || self.check_ipv4_options()
    }

    #[cold]
    fn check_ipv4_options(&self) -> bool {
        self.bytes.get(..self.transport_at()).is_some_and(|header| ipv4_options::check_options(header).is_ok())
    }

    /// Offset of the transport header from the first byte of the packet.
    #[inline]
    pub fn transport_at(&self) -> usize {
        self.transport_at as usize
    }

    /// The captured bytes from the transport header on.
    #[inline]
    pub fn transport(&self) -> &'a [u8] {
        self.bytes.get(self.transport_at as usize..).unwrap_or(&[])
    }

    /// Length of transport header and payload by the IP header; more than `transport().len()` only in a truncated capture.
    #[inline]
    pub fn transport_len(&self) -> usize {
        self.total_len.saturating_sub(self.transport_at) as usize
    }

    /// Source and destination port: the first four bytes of the transport header, whatever the protocol, as Linux reads them for a
    /// tuple. `None` if they are missing, or in a fragment other than the first.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        if self.fragment_at != 0 && self.read_fragment()?.offset != 0 {
            return None;
        }
        let &[a, b, c, d] = self.transport().first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// Addresses and ports of an IPv4 packet that is no fragment and of a protocol with ports, packed for a table lookup: source
    /// in the upper half, destination in the lower half. `None` for any other packet.
    #[inline(always)]
    pub fn flow_key_v4(&self) -> Option<(u64, u32)> {
        let has_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP);
        if self.family != Family::V4 || self.fragment_at != 0 || !has_ports {
            return None;
        }
        let addresses = self.bytes.get(12..20)?.first_chunk()?;
        let ports = self.bytes.get(self.transport_at as usize..)?.first_chunk()?;
        Some((u64::from_be_bytes(*addresses), u32::from_be_bytes(*ports)))
    }

    /// As [`Packet::flow_key_v4`] for an IPv6 packet: source, then destination, each as upper half and lower half; and the ports.
    #[inline(always)]
    pub fn flow_key_v6(&self) -> Option<([[u64; 2]; 2], u32)> {
        let has_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP);
        if self.family != Family::V6 || self.fragment_at != 0 || !has_ports {
            return None;
        }
        let addresses: &[u8; 32] = self.bytes.get(8..40)?.first_chunk()?;
        let ports = self.bytes.get(self.transport_at as usize..)?.first_chunk()?;
        let mut halves = [0; 4];
        for (half, bytes) in halves.iter_mut().zip(addresses.as_chunks::<8>().0) {
            *half = u64::from_be_bytes(*bytes);
        }
        let [a, b, c, d] = halves;
        Some(([[a, b], [c, d]], u32::from_be_bytes(*ports)))
    }

    /// The hop limit (RFC 8200, section 3), or the time to live (RFC 791, section 3.1).
    pub fn hop_limit(&self) -> u8 {
        let at = match self.family {
            Family::V4 => 8,
            Family::V6 => 7,
        };
        self.bytes.get(at).copied().unwrap_or_default()
    }

    /// The packet's length by its IP header: the length that accounting counts.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.total_len as usize
    }

    /// The bytes of the packet, without link padding.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the capture has less than the whole packet.
    #[inline]
    pub fn is_snapped(&self) -> bool {
        self.bytes.len() < self.total_len as usize
    }
}

impl fmt::Display for Packet<'_> {
    /// One line for logs: `IPv4 UDP 10.1.0.2:40000 > 10.2.0.9:53 length 32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.family)?;
        match protocol::name(self.protocol) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "protocol {}", self.protocol)?,
        }
        let has_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP);
        match self.ports().filter(|_| has_ports) {
            Some((source, destination)) => {
                let source = SocketAddr::new(self.addresses().source(), source);
                let destination = SocketAddr::new(self.addresses().destination(), destination);
                write!(f, " {source} > {destination}")?;
            }
            None => write!(f, " {}", self.addresses())?,
        }
        write!(f, " length {}", self.total_len)?;
        match self.fragment() {
            Some(FragmentHeader { id, offset, more }) => {
                write!(f, " fragment id {id} offset {offset}{}", if more { "+" } else { "" })
            }
            None => Ok(()),
        }
    }
}

/// The addresses of the IP header at the start of `bytes`, whose fixed part is complete.
#[inline]
pub(crate) fn read_addresses(bytes: &[u8], family: Family) -> Addresses {
    match family {
        Family::V4 => {
            let (source, destination) = address_pair::<4>(bytes, 12);
            Addresses::V4 { source, destination }
        }
        Family::V6 => {
            let (source, destination) = address_pair::<16>(bytes, 8);
            Addresses::V6 { source, destination }
        }
    }
}

#[inline]
fn address_pair<const N: usize>(bytes: &[u8], at: usize) -> ([u8; N], [u8; N]) {
    let rest = bytes.get(at..).unwrap_or(&[]);
    let first = rest.first_chunk::<N>();
    let second = rest.get(N..).and_then(<[u8]>::first_chunk::<N>);
    (first.copied().unwrap_or([0; N]), second.copied().unwrap_or([0; N]))
}

/// Checks an IPv4 header whose length is not 20 bytes.
#[cold]
fn check_v4_header_with_options(
    bytes: &[u8],
    header_len: usize,
    wire_len: usize,
    verify: bool,
) -> Result<(), ParseError> {
    if header_len < V4_HEADER_LEN {
        return Err(ParseError::HeaderLength);
    }
    let Some(header) = bytes.get(..header_len) else {
        return Err(short_header_error(wire_len, header_len, ParseError::HeaderTruncated));
    };
    if !verify || Sum::new().add_bytes(header).is_valid() { Ok(()) } else { Err(ParseError::HeaderChecksum) }
}

/// The error for an incomplete header of `needed` bytes: [`ParseError::NotCaptured`] if the packet itself had them.
#[cold]
fn short_header_error(wire_len: usize, needed: usize, truncated: ParseError) -> ParseError {
    if wire_len < needed { truncated } else { ParseError::NotCaptured }
}

/// A position in a packet as `u32`: at most 65,575, bounded by the 16-bit length field, or [`MAX_UNFINISHED_LEN`].
#[inline]
fn position_u32(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// The longest packet whose length is taken from its frame: the largest that Linux hands to a card in one piece (GSO_MAX_SIZE).
const MAX_UNFINISHED_LEN: usize = 8 * 65_535;
const V4_HEADER_LEN: usize = 20;
const V6_HEADER_LEN: usize = 40;
const V4_FRAG_OFF_AT: u32 = 6;

#[cfg(test)]
mod tests;
