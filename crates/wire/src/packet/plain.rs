//! The headers of an ordinary packet: the fixed IP header, and the transport header right behind it, one view of both with few checks.
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

pub use tcp::PlainTcp;
pub use udp::PlainUdp;

use super::{Packet, V4_HEADER_LEN, V6_HEADER_LEN};
use crate::Family;
use crate::checksum::Sum;

/// A whole packet, not fragmented, without IPv4 options and without IPv6 extension headers. `HEADERS` is the length of both headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainHeaders<'a, const HEADERS: usize> {
    pub(super) bytes: &'a [u8],
    pub(super) headers: &'a [u8; HEADERS],
    total_len: u32,
    checksum_unnecessary: bool,
}

impl<'a> Packet<'a> {
    /// The headers of a packet of `protocol`, whose own header has `transport_header` bytes; `None` if the packet is not ordinary, of another protocol, or too short for them. `HEADERS` says
    /// which family is meant.
    #[inline(always)]
    pub(super) fn plain_headers<const HEADERS: usize>(
        &self,
        protocol: u8,
        transport_header: usize,
    ) -> Option<PlainHeaders<'a, HEADERS>> {
        let ip_header = HEADERS - transport_header;
        let family = if ip_header == V4_HEADER_LEN { Family::V4 } else { Family::V6 };
        let is_plain = self.protocol == protocol
            && self.family == family
            && self.fragment_at == 0
            && self.transport_at as usize == ip_header
            && !self.is_snapped();
        let headers = self.bytes.first_chunk()?;
        is_plain.then_some(PlainHeaders {
            bytes: self.bytes,
            headers,
            total_len: self.total_len,
            checksum_unnecessary: self.checksum_unnecessary,
        })
    }
}

impl<const HEADERS: usize> PlainHeaders<'_, HEADERS> {
    /// Length of transport header and payload.
    #[inline(always)]
    pub(super) const fn transport_len(&self, transport_header: usize) -> u32 {
        self.total_len - (HEADERS - transport_header) as u32
    }

    /// Whether the checksum of TCP or UDP is right, as [`Packet::transport_checksum_ok`] of one that has a checksum.
    #[inline(always)]
    pub(super) fn checksum_ok(&self, protocol: u8, transport_header: usize) -> bool {
        if self.checksum_unnecessary {
            return true;
        }
        let addresses_at = if HEADERS - transport_header == V4_HEADER_LEN { 12 } else { 8 };
        // The addresses, then the transport header.
        let words = self.headers.as_chunks::<4>().0.iter().skip(addresses_at / 4);
        // At most 65,535 bytes, and fifteen words of 32 bits: nothing can overflow.
        let length = self.transport_len(transport_header) + u32::from(protocol);
        let fixed: u64 = words.map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let sum = Sum::from_word(fixed + u64::from(length.to_be()));
        if self.bytes.len() == HEADERS { sum } else { sum.add_end_of(self.bytes, HEADERS) }.is_valid()
    }

    /// Source and destination of an IPv6 packet, each as upper half and lower half: as [`Packet::flow_key_v6`] gives them.
    #[inline(always)]
    pub(super) fn ipv6_addresses(&self) -> [[u64; 2]; 2] {
        const { assert!(HEADERS >= V6_HEADER_LEN) };
        let half = |at: usize| u64::from_be_bytes(self.headers.as_chunks::<8>().0.get(at).copied().unwrap_or_default());
        [[half(1), half(2)], [half(3), half(4)]]
    }
}
