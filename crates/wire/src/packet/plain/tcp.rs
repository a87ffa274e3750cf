//! A TCP segment in an ordinary IP packet, whose headers lie at fixed places.
use super::PlainHeaders;
use crate::packet::{Packet, V4_HEADER_LEN, V6_HEADER_LEN};
use crate::protocol;
use crate::tcp::{TcpFlags, TcpSegment};

const TCP_HEADER_LEN: usize = 20;
const V4_LEN: usize = V4_HEADER_LEN + TCP_HEADER_LEN;
const V6_LEN: usize = V6_HEADER_LEN + TCP_HEADER_LEN;

/// A whole packet with TCP, not fragmented, without IPv4 options and without IPv6 extension headers; `HEADERS` is the length of both headers. Made by [`Packet::plain_tcp`] and
/// [`Packet::plain_tcp_v6`].
#[derive(Clone, Copy, Debug)]
pub struct PlainTcp<'a, const HEADERS: usize>(PlainHeaders<'a, HEADERS>);

impl<'a> Packet<'a> {
    /// The packet as an ordinary TCP segment over IPv4; `None` if it is anything else, or has no whole TCP header.
    #[inline(always)]
    pub fn plain_tcp(&self) -> Option<PlainTcp<'a, V4_LEN>> {
        self.plain_headers(protocol::TCP, TCP_HEADER_LEN).map(PlainTcp)
    }

    /// As [`Packet::plain_tcp`], over IPv6.
    #[inline(always)]
    pub fn plain_tcp_v6(&self) -> Option<PlainTcp<'a, V6_LEN>> {
        self.plain_headers(protocol::TCP, TCP_HEADER_LEN).map(PlainTcp)
    }
}

impl<'a, const HEADERS: usize> PlainTcp<'a, HEADERS> {
    /// The segment, as [`TcpSegment::parse`] gives it; `None` if its header length is wrong.
    #[inline(always)]
    pub fn segment(&self) -> Option<TcpSegment<'a>> {
        let (bytes, h): (_, &[u8; TCP_HEADER_LEN]) = (self.0.bytes, self.0.headers.last_chunk()?);
        let data_at = HEADERS - TCP_HEADER_LEN + usize::from(h[12] >> 4) * 4;
        let options = bytes.get(HEADERS..data_at)?;
        Some(TcpSegment {
            source: u16::from_be_bytes([h[0], h[1]]),
            destination: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: TcpFlags(h[13]),
            window: u16::from_be_bytes([h[14], h[15]]),
            data_len: bytes.len() - data_at,
            options,
            options_cut: false,
            data: bytes.get(data_at..).unwrap_or(&[]),
        })
    }

    /// Whether the TCP checksum is right, as [`Packet::transport_checksum_ok`].
    #[inline(always)]
    pub fn checksum_ok(&self) -> bool {
        self.0.checksum_ok(protocol::TCP, TCP_HEADER_LEN)
    }
}

impl PlainTcp<'_, V6_LEN> {
    /// Source and destination, each as upper half and lower half: as [`Packet::flow_key_v6`] gives them.
    #[inline(always)]
    pub fn addresses(&self) -> [[u64; 2]; 2] {
        self.0.ipv6_addresses()
    }
}
