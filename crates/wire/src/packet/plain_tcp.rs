//! A TCP segment in an ordinary IPv4 packet, whose headers lie at fixed places: one view of both, with few checks.
use super::{Packet, V4_HEADER_LEN};
use crate::checksum::Sum;
use crate::tcp::{TcpFlags, TcpSegment};
use crate::{Family, protocol};

const BOTH_HEADERS_LEN: usize = V4_HEADER_LEN + TCP_HEADER_LEN;
const TCP_HEADER_LEN: usize = 20;

/// A whole IPv4 packet with TCP, not fragmented and without IP options. Made by [`Packet::plain_tcp`].
#[derive(Clone, Copy, Debug)]
pub struct PlainTcp<'a> {
    bytes: &'a [u8],
    headers: &'a [u8; BOTH_HEADERS_LEN],
    total_len: u32,
    checksum_unnecessary: bool,
}

impl<'a> Packet<'a> {
    /// The packet as an ordinary TCP segment over IPv4; `None` if it is anything else, or has no whole TCP header.
    #[inline(always)]
    pub fn plain_tcp(&self) -> Option<PlainTcp<'a>> {
        let is_plain = self.protocol == protocol::TCP
            && self.family == Family::V4
            && self.fragment_at == 0
            && self.transport_at as usize == V4_HEADER_LEN
            && !self.is_snapped();
        let headers = self.bytes.first_chunk()?;
        is_plain.then_some(PlainTcp {
            bytes: self.bytes,
            headers,
            total_len: self.total_len,
            checksum_unnecessary: self.checksum_unnecessary,
        })
    }
}

impl<'a> PlainTcp<'a> {
    /// The segment, as [`TcpSegment::parse`] gives it; `None` if its header length is wrong.
    #[inline(always)]
    pub fn segment(&self) -> Option<TcpSegment<'a>> {
        let h: &[u8; TCP_HEADER_LEN] = self.headers.last_chunk()?;
        let data_at = V4_HEADER_LEN + usize::from(h[12] >> 4) * 4;
        let options = self.bytes.get(BOTH_HEADERS_LEN..data_at)?;
        Some(TcpSegment {
            source: u16::from_be_bytes([h[0], h[1]]),
            destination: u16::from_be_bytes([h[2], h[3]]),
            seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            flags: TcpFlags(h[13]),
            window: u16::from_be_bytes([h[14], h[15]]),
            data_len: self.bytes.len() - data_at,
            options,
            options_cut: false,
            data: self.bytes.get(data_at..).unwrap_or(&[]),
        })
    }

    /// Whether the TCP checksum is right, as [`Packet::transport_checksum_ok`].
    #[inline(always)]
    pub fn checksum_ok(&self) -> bool {
        if self.checksum_unnecessary {
            return true;
        }
        // The addresses, then the TCP header.
        let words = self.headers.as_chunks::<4>().0.iter().skip(3);
        // At most 65,535 bytes, and nine words of 32 bits: nothing can overflow.
        let length = self.total_len - V4_HEADER_LEN as u32 + u32::from(protocol::TCP);
        let fixed: u64 = words.map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let sum = Sum::from_word(fixed + u64::from(length.to_be()));
        if self.bytes.len() == BOTH_HEADERS_LEN { sum } else { sum.add_end_of(self.bytes, BOTH_HEADERS_LEN) }.is_valid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// An IPv4 packet that carries `transport`, with the right header checksum.
    fn ipv4(protocol: u8, fragment: u8, options: bool, transport: &[u8]) -> Vec<u8> {
        let header_len = if options { 24 } else { 20 };
        let total = u16::try_from(header_len + transport.len()).unwrap().to_be_bytes();
        let first = if options { 0x46 } else { 0x45 };
        let mut bytes =
            vec![first, 0, total[0], total[1], 0, 1, fragment, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 255, 255, 255, 254];
        bytes.resize(header_len, 1);
        let check = crate::checksum::internet(&bytes).to_be_bytes();
        bytes[10..12].copy_from_slice(&check);
        bytes.extend(transport);
        bytes
    }

    proptest! {
        /// It says what the general views say, of any bytes; and it is refused where they find nothing to say.
        #[test]
        fn it_equals_the_general_views(
            transport in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xff), Just(0)], 0..400),
            offset in 0u8..16,
            kind in 0usize..8,
            right in any::<bool>(),
        ) {
            let mut transport = transport;
            if let Some(byte) = transport.get_mut(12) {
                *byte = offset << 4;
            }
            let protocol = if kind == 0 { protocol::UDP } else { protocol::TCP };
            let bytes = ipv4(protocol, if kind == 1 { 0x20 } else { 0 }, kind == 2, &transport);
            let mut bytes = bytes;
            if right && kind > 2 && transport.len() >= 20 {
                bytes[36..38].copy_from_slice(&[0, 0]);
                let length = u16::try_from(transport.len()).unwrap();
                let sum = Sum::new().add_bytes(&bytes[12..]).add_u16(6).add_u16(length);
                bytes[36..38].copy_from_slice(&sum.finish().to_be_bytes());
            }
            let captured = if kind == 3 { bytes.len().saturating_sub(1).max(20) } else { bytes.len() };
            let packet = Packet::parse_snapped(&bytes[..captured], bytes.len()).unwrap();
            let plain = packet.plain_tcp();
            let expected = kind > 2 && captured == bytes.len() && transport.len() >= 20;
            prop_assert_eq!(plain.is_some(), expected);
            if let Some(plain) = plain {
                prop_assert_eq!(plain.segment(), TcpSegment::parse(packet.transport(), packet.transport_len()).ok());
                prop_assert_eq!(plain.checksum_ok(), packet.transport_checksum_ok());
                prop_assert!(!right || plain.checksum_ok());
                prop_assert!(packet.checksum_unnecessary().plain_tcp().unwrap().checksum_ok());
            }
        }
    }
}
