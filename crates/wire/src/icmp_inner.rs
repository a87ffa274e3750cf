//! The packet inside an ICMP error: the one that caused it.
//!
//! The sender of the error has cut it short, and routers may have changed it before. So its length fields, checksums and
//! version are not checked, as in Linux. It is read for a tuple only: addresses, protocol, the first bytes of the transport header.
use crate::ipv6_ext::{self, SkipMode};
use crate::packet::read_addresses;
use crate::{Addresses, Family, ParseError};

/// The packet inside an ICMP error: an IP header and the beginning of what follows it. Its lengths are not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InnerPacket<'a> {
    /// Source and destination of the inner packet.
    pub addresses: Addresses,
    /// Its transport protocol.
    pub protocol: u8,
    /// As much of its transport header and payload as the error carries.
    pub transport: &'a [u8],
}

impl<'a> InnerPacket<'a> {
    /// Parses the inner packet in `bytes`, the body of an ICMP error of that family.
    ///
    /// # Errors
    /// [`ParseError::InnerTruncated`] or [`ParseError::InnerFragment`].
    pub fn parse(bytes: &'a [u8], family: Family) -> Result<Self, ParseError> {
        match family {
            Family::V4 => Self::parse_v4(bytes),
            Family::V6 => Self::parse_v6(bytes),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some(h) = bytes.first_chunk::<20>() else {
            return Err(ParseError::InnerTruncated);
        };
        // Linux accepts even a header length under five words, and then reads in the middle of the header.
        let header_len = usize::from(h[0] & 15) * 4;
        if u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0 {
            return Err(ParseError::InnerFragment);
        }
        let transport = bytes.get(header_len..).ok_or(ParseError::InnerTruncated)?;
        Ok(InnerPacket { addresses: read_addresses(bytes, Family::V4), protocol: h[9], transport })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let Some(header) = bytes.first_chunk::<40>() else {
            return Err(ParseError::InnerTruncated);
        };
        let end = ipv6_ext::skip_exthdrs(bytes, 40, header[6], SkipMode::IcmpInner)
            .map_err(|_| ParseError::InnerTruncated)?;
        if end.fragment_at.is_some() {
            return Err(ParseError::InnerFragment);
        }
        // The last extension header may end past the end: a protocol without ports needs no bytes after it.
        let transport = bytes.get(end.transport_at..).unwrap_or_default();
        Ok(InnerPacket { addresses: read_addresses(bytes, Family::V6), protocol: end.protocol, transport })
    }

    /// Source and destination port: the first four bytes of the transport header. `None` if they are missing.
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        let &[a, b, c, d] = self.transport.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn udp_v4() -> Vec<u8> {
        let mut bytes = [0x45, 0, 0, 99, 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2].to_vec();
        bytes.extend([0x27, 0x0f, 0x1e, 0x61, 0, 79, 0, 0]);
        bytes
    }

    /// Each line was observed on Linux 6.18: whether an ICMP error with this inner packet found its connection.
    #[test]
    fn ipv4_inner_packet_needs_only_4_transport_bytes_and_ignores_other_fields() {
        for (at, byte) in [(0, 0x65), (0, 0x05), (3, 0), (3, 20), (10, 1), (6, 0x20)] {
            let mut bytes = udp_v4();
            bytes[at] = byte;
            let inner = InnerPacket::parse(&bytes[..24], Family::V4).unwrap();
            assert_eq!((inner.protocol, inner.ports()), (17, Some((9999, 7777))), "byte {at} is {byte:#x}");
        }
        assert_eq!(InnerPacket::parse(&udp_v4()[..23], Family::V4).unwrap().ports(), None);
        assert_eq!(InnerPacket::parse(&udp_v4()[..19], Family::V4).err(), Some(ParseError::InnerTruncated));
        let mut bytes = udp_v4();
        bytes[7] = 1;
        assert_eq!(InnerPacket::parse(&bytes, Family::V4).err(), Some(ParseError::InnerFragment));
        // A header length under five words is accepted too: Linux 6.18 finds the connection of such an inner packet.
        (bytes[0], bytes[7]) = (0x44, 0);
        assert!(InnerPacket::parse(&bytes, Family::V4).is_ok_and(|inner| inner.transport.len() == bytes.len() - 16));
    }

    #[test]
    fn ipv6_inner_packet_extension_headers_are_skipped() {
        let mut bytes = [0; 40].to_vec();
        bytes[6] = 60;
        bytes.extend([44, 0, 1, 4, 0, 0, 0, 0]);
        bytes.extend([17, 0, 0, 1, 0, 0, 0, 9]);
        bytes.extend([0x27, 0x0f, 0x1e, 0x61]);
        let inner = InnerPacket::parse(&bytes, Family::V6).unwrap();
        assert_eq!((inner.protocol, inner.ports()), (17, Some((9999, 7777))));
        // The last extension header may be incomplete, and nothing need follow it: Linux 6.18 goes by its length field.
        assert!(
            InnerPacket::parse(&bytes[..50], Family::V6)
                .is_ok_and(|inner| inner.protocol == 17 && inner.ports().is_none())
        );
        assert_eq!(InnerPacket::parse(&bytes[..49], Family::V6).err(), Some(ParseError::InnerTruncated));
        bytes[51] = 9;
        assert_eq!(InnerPacket::parse(&bytes, Family::V6).err(), Some(ParseError::InnerFragment));
    }
}
