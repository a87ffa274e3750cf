//! A UDP datagram in an ordinary IP packet, whose headers lie at fixed places.
use super::PlainHeaders;
use crate::packet::{Packet, V4_HEADER_LEN, V6_HEADER_LEN};
use crate::protocol;

const UDP_HEADER_LEN: usize = 8;
const V4_LEN: usize = V4_HEADER_LEN + UDP_HEADER_LEN;
const V6_LEN: usize = V6_HEADER_LEN + UDP_HEADER_LEN;

/// A whole packet with UDP, not fragmented, without IPv4 options and without IPv6 extension headers; `HEADERS` is the length of both headers. Made by [`Packet::plain_udp`] and
/// [`Packet::plain_udp_v6`].
#[derive(Clone, Copy, Debug)]
pub struct PlainUdp<'a, const HEADERS: usize>(PlainHeaders<'a, HEADERS>);

impl<'a> Packet<'a> {
    /// The packet as an ordinary UDP datagram over IPv4; `None` if it is anything else, has no whole UDP header, or the length in that does not fit
    /// ([`UdpHeader::parse`](crate::udp::UdpHeader::parse)).
    #[inline(always)]
    pub fn plain_udp(&self) -> Option<PlainUdp<'a, V4_LEN>> {
        self.plain_headers(protocol::UDP, UDP_HEADER_LEN).and_then(PlainUdp::checked)
    }

    /// As [`Packet::plain_udp`], over IPv6.
    #[inline(always)]
    pub fn plain_udp_v6(&self) -> Option<PlainUdp<'a, V6_LEN>> {
        self.plain_headers(protocol::UDP, UDP_HEADER_LEN).and_then(PlainUdp::checked)
    }
}

impl<'a, const HEADERS: usize> PlainUdp<'a, HEADERS> {
    #[inline(always)]
    fn checked(headers: PlainHeaders<'a, HEADERS>) -> Option<Self> {
        let &[.., a, b, _, _] = headers.headers.last_chunk::<UDP_HEADER_LEN>()?;
        let length = u32::from(u16::from_be_bytes([a, b]));
        let fits = length >= UDP_HEADER_LEN as u32 && length <= headers.transport_len(UDP_HEADER_LEN);
        fits.then_some(PlainUdp(headers))
    }

    /// Whether the UDP checksum is right or missing, as [`Packet::transport_checksum_ok`].
    #[inline(always)]
    pub fn checksum_ok(&self) -> bool {
        let is_missing = self.0.headers.last_chunk() == Some(&[0; 2]);
        is_missing || self.0.checksum_ok(protocol::UDP, UDP_HEADER_LEN)
    }
}

impl PlainUdp<'_, V6_LEN> {
    /// Source and destination, each as upper half and lower half: as [`Packet::flow_key_v6`] gives them.
    #[inline(always)]
    pub fn addresses(&self) -> [[u64; 2]; 2] {
        self.0.ipv6_addresses()
    }
}
