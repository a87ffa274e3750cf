//! The checksum in a packet's transport header: right, left open for the network card, or wrong.
use super::Packet;
use crate::checksum::{self, Sum};
use crate::{Family, protocol};

impl Packet<'_> {
    /// Whether the transport checksum is right. Also true where it cannot be verified (truncated capture, fragment, incomplete
    /// header) and where the protocol has none.
    #[inline(always)]
    pub fn transport_checksum_ok(&self) -> bool {
        if self.checksum_unnecessary {
            return true;
        }
        // The common cases first: TCP and UDP, whole and not fragmented.
        if self.fragment_at == 0 && !self.is_snapped() {
            let transport = self.transport();
            let length = self.total_len.saturating_sub(self.transport_at);
            match self.protocol {
                protocol::TCP => {
                    let Some((header, rest)) = transport.split_first_chunk::<20>() else { return true };
                    let sum = self.address_sum().add_u32(length + u32::from(protocol::TCP)).add_20_bytes(header);
                    return if rest.is_empty() { sum } else { sum.add_bytes(rest) }.is_valid();
                }
                protocol::UDP => {
                    let Some((header, rest)) = transport.split_first_chunk::<8>() else { return true };
                    let [.., 0, 0] = header else {
                        let sum = self.address_sum().add_u32(length + u32::from(protocol::UDP));
                        return sum.add_word(u64::from_ne_bytes(*header)).add_bytes(rest).is_valid();
                    };
                    return true;
                }
                _ => (),
            }
        }
        self.transport_checksum_ok_slow()
    }

    /// The sum of both addresses.
    #[inline(always)]
    fn address_sum(&self) -> Sum {
        match self.family {
            Family::V4 => {
                let addresses = self.bytes.get(12..20).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
                Sum::from_word(u64::from_ne_bytes(addresses))
            }
            Family::V6 => {
                let addresses: [u8; 32] =
                    self.bytes.get(8..40).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
                let (words, _) = addresses.as_chunks::<8>();
                words.iter().fold(Sum::new(), |sum, word| sum.add_word(u64::from_ne_bytes(*word)))
            }
        }
    }

    #[inline(never)]
    fn transport_checksum_ok_slow(&self) -> bool {
        if self.is_snapped() || self.fragment_at != 0 {
            return true;
        }
        let transport = self.transport();
        match self.protocol {
            protocol::UDPLITE => self.udp_lite_checksum_ok(self.pseudo_header()),
            protocol::ICMP if self.family == Family::V4 => {
                transport.len() < 8 || Sum::new().add_bytes(transport).is_valid()
            }
            protocol::ICMPV6 if self.family == Family::V6 => {
                transport.len() < 8 || self.pseudo_header().add_bytes(transport).is_valid()
            }
            protocol::SCTP => match (transport.first_chunk::<12>(), checksum::sctp_crc32c(transport)) {
                (Some(&[.., a, b, c, d]), Some(crc)) => u32::from_le_bytes([a, b, c, d]) == crc,
                _ => true,
            },
            _ => true,
        }
    }

    /// Whether a UDP-Lite checksum is right as Linux 6.18 verifies it: with UDP's protocol number in the pseudo-header, and over
    /// IPv4 with only the low byte of the length. A checksum made by RFC 3828 is wrong by that rule. Also true where
    /// [`Packet::transport_checksum_ok`] cannot verify the checksum.
    pub fn udp_lite_checksum_ok_as_udp(&self) -> bool {
        let unverifiable = self.checksum_unnecessary || self.is_snapped() || self.fragment_at != 0;
        unverifiable || self.udp_lite_checksum_ok(self.linux_udp_lite_pseudo_header())
    }

    /// Whether the TCP or UDP checksum is a partial one, left for the network card to finish: the field holds the sum of the
    /// pseudo-header alone, with the packet's length or, as some systems do for a segment that the card will cut, with length zero.
    /// A packet captured where it was sent often has one. False in a fragment.
    ///
    /// ```
    /// use keepstate_wire::{Packet, rewrite::set_partial_checksum};
    /// let mut segment = vec![
    ///     0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
    ///     0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0, b'o', b'n', b'e', // TCP
    /// ];
    /// assert!(!Packet::parse(&segment)?.has_partial_checksum());
    /// set_partial_checksum(&mut segment);
    /// assert!(Packet::parse(&segment)?.has_partial_checksum());
    /// # Ok::<(), keepstate_wire::ParseError>(())
    /// ```
    pub fn has_partial_checksum(&self) -> bool {
        let at = match self.protocol {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return false,
        };
        let field = self.transport().get(at..).and_then(<[u8]>::first_chunk::<2>);
        let Some(field) = field.filter(|_| self.fragment_at == 0).map(|field| u16::from_be_bytes(*field)) else {
            return false;
        };
        let length = self.total_len.saturating_sub(self.transport_at);
        [length, 0].into_iter().any(|length| !self.pseudo_header_with(length, self.protocol).finish() == field)
    }

    fn udp_lite_checksum_ok(&self, sum: Sum) -> bool {
        let transport = self.transport();
        let Some(&[.., a, b, check_a, check_b]) = transport.first_chunk::<8>() else { return true };
        let coverage = usize::from(u16::from_be_bytes([a, b]));
        let covered = if coverage == 0 { Some(transport) } else { transport.get(..coverage) };
        [check_a, check_b] == [0, 0] || covered.is_none_or(|covered| sum.add_bytes(covered).is_valid())
    }

    /// The sum over the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1).
    #[inline]
    fn pseudo_header(&self) -> Sum {
        let length = self.total_len.saturating_sub(self.transport_at);
        self.pseudo_header_with(length, self.protocol)
    }

    /// The pseudo-header that Linux takes for UDP-Lite.
    fn linux_udp_lite_pseudo_header(&self) -> Sum {
        let length = self.total_len.saturating_sub(self.transport_at);
        let length = if self.family == Family::V4 { length & 0xff } else { length };
        self.pseudo_header_with(length, protocol::UDP)
    }

    #[inline]
    fn pseudo_header_with(&self, length: u32, number: u8) -> Sum {
        let addresses = match self.family {
            Family::V4 => self.bytes.get(12..20),
            Family::V6 => self.bytes.get(8..40),
        };
        Sum::new().add_bytes(addresses.unwrap_or(&[])).add_u32(length).add_u16(u16::from(number))
    }
}
