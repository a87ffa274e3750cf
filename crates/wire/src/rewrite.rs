//! Changes in place: other addresses, ports or identifiers, with every checksum brought along.
//!
//! A [`Rewrite`] borrows one datagram for as long as it is changed. Checksums are updated from what changed, not computed
//! anew (RFC 1624): a checksum that was wrong before stays wrong by as much, and a NAT does not hide damage. The one
//! exception is SCTP, whose CRC32c is computed over the packet. Lengths and positions never change, but by [`exchange`].
mod csum_offload;
mod tcp_payload;

pub use csum_offload::{finish_partial_checksum, set_partial_checksum};
pub use tcp_payload::mangle_tcp_payload;

use crate::checksum::Sum;
use crate::packet::protocol;
use crate::{Addresses, Family, InnerPacket, Layout, Packet, ParseError, checksum};
use core::net::IpAddr;
use core::ops::Range;

/// A datagram that is being changed.
#[derive(Debug)]
pub struct PacketMut<'a> {
    bytes: &'a mut [u8],
    family: Family,
    protocol: u8,
    transport_at: usize,
    /// A transport header begins at `transport_at`: this is not a later fragment.
    has_transport: bool,
    /// What is known of the transport part.
    extent: TransportExtent,
}

impl<'a> PacketMut<'a> {
    /// Checks the datagram as [`Packet::parse`] does and makes it ready for changes.
    pub fn new(bytes: &'a mut [u8]) -> Result<Self, ParseError> {
        let len = bytes.len();
        Self::new_snapped(bytes, len)
    }

    /// As [`Rewrite::new`], for a capture that kept only the first part of a datagram of `wire_len` octets.
    pub fn new_snapped(bytes: &'a mut [u8], wire_len: usize) -> Result<Self, ParseError> {
        let packet = Packet::parse_snapped(bytes, wire_len)?;
        let (len, ready) = Self::prepare(&packet);
        // Padding behind the datagram is not part of it, and an SCTP checksum must not cover it.
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        Ok(PacketMut { bytes, ..ready })
    }

    /// As [`Rewrite::new`], for a datagram that was checked before; `None` if these octets are not as many.
    #[inline]
    pub fn from_layout(bytes: &'a mut [u8], layout: Layout) -> Option<Self> {
        let (_, ready) = Self::prepare(&layout.view(bytes)?);
        Some(PacketMut { bytes, ..ready })
    }

    /// All but the octets, and how many they are.
    #[inline(always)]
    fn prepare(packet: &Packet<'_>) -> (usize, PacketMut<'a>) {
        let fragment = packet.fragment();
        let (family, protocol) = (packet.family(), packet.protocol());
        let transport_at = packet.transport_at();
        let has_transport = fragment.is_none_or(|fragment| fragment.offset == 0);
        let is_whole = !packet.is_snapped() && fragment.is_none_or(|fragment| fragment.offset == 0 && !fragment.more);
        let extent = if is_whole { TransportExtent::Complete } else { TransportExtent::Partial };
        let len = packet.bytes().len();
        (len, PacketMut { bytes: &mut [], family, protocol, transport_at, has_transport, extent })
    }

    /// The datagram as it is now.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Changes both addresses. False, and nothing is changed, when the family is not the datagram's.
    pub fn set_addresses(&mut self, new: Addresses) -> bool {
        match (self.family, new) {
            (Family::V4, Addresses::V4 { source, destination }) => {
                let mut both = [0; 8];
                both[..4].copy_from_slice(&source);
                both[4..].copy_from_slice(&destination);
                self.replace_addresses(12, &both)
            }
            (Family::V6, Addresses::V6 { source, destination }) => {
                let mut both = [0; 32];
                both[..16].copy_from_slice(&source);
                both[16..].copy_from_slice(&destination);
                self.replace_addresses(8, &both)
            }
            _ => false,
        }
    }

    /// Changes the source address. False, and nothing is changed, when the family is not the datagram's.
    pub fn set_source(&mut self, new: IpAddr) -> bool {
        match (self.family, new) {
            (Family::V4, IpAddr::V4(new)) => self.replace_addresses(12, &new.octets()),
            (Family::V6, IpAddr::V6(new)) => self.replace_addresses(8, &new.octets()),
            _ => false,
        }
    }

    /// Changes the destination address. False, and nothing is changed, when the family is not the datagram's.
    pub fn set_destination(&mut self, new: IpAddr) -> bool {
        match (self.family, new) {
            (Family::V4, IpAddr::V4(new)) => self.replace_addresses(16, &new.octets()),
            (Family::V6, IpAddr::V6(new)) => self.replace_addresses(24, &new.octets()),
            _ => false,
        }
    }

    fn replace_addresses<const N: usize>(&mut self, at: usize, new: &[u8; N]) -> bool {
        let Some(field) = self.bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) else { return false };
        let old = *field;
        *field = *new;
        if self.family == Family::V4 {
            self.update_checksum(10, ZeroChecksum::Valid, &old, new);
        }
        // ICMPv4 and SCTP do not cover the addresses.
        if let Some((at, zero)) = self.checksum_field()
            && self.protocol != protocol::ICMP
        {
            self.update_checksum(at, zero, &old, new);
        }
        true
    }

    /// Changes both ports of TCP, UDP, UDP-Lite or SCTP. False, and nothing is changed, when there are none to change:
    /// another protocol, a later fragment, or an SCTP packet of which a part is missing.
    pub fn set_ports(&mut self, source: u16, destination: u16) -> bool {
        let is_sctp = self.protocol == protocol::SCTP;
        let covers_all = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::UDPLITE);
        if !self.has_transport || !(covers_all || is_sctp && self.extent != TransportExtent::Partial) {
            return false;
        }
        let [a, b] = source.to_be_bytes();
        let [c, d] = destination.to_be_bytes();
        let is_summed = is_sctp && self.extent == TransportExtent::Complete;
        self.replace_transport(0, &[a, b, c, d]) && (!is_summed || self.update_sctp_checksum())
    }

    /// As [`Rewrite::ports`], for the source alone.
    pub fn set_source_port(&mut self, port: u16) -> bool {
        self.set_port_at(0, port)
    }

    /// As [`Rewrite::ports`], for the destination alone.
    pub fn set_destination_port(&mut self, port: u16) -> bool {
        self.set_port_at(2, port)
    }

    fn set_port_at(&mut self, at: usize, port: u16) -> bool {
        let is_sctp = self.protocol == protocol::SCTP;
        let covers_all = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::UDPLITE);
        if !self.has_transport || !(covers_all || is_sctp && self.extent != TransportExtent::Partial) {
            return false;
        }
        let is_summed = is_sctp && self.extent == TransportExtent::Complete;
        self.replace_transport(at, &port.to_be_bytes()) && (!is_summed || self.update_sctp_checksum())
    }

    /// Changes the call id of PPTP's GRE (RFC 2637). False, and nothing is changed, when this is no such packet.
    pub fn set_gre_call_id(&mut self, id: u16) -> bool {
        let is_enhanced = self.bytes.get(self.transport_at + 1).is_some_and(|version| version & 7 == 1);
        self.protocol == protocol::GRE
            && self.has_transport
            && is_enhanced
            && self.replace_transport(6, &id.to_be_bytes())
    }

    /// Changes the identifier of an ICMP or ICMPv6 query. False, and nothing is changed, when this is no ICMP.
    pub fn set_icmp_id(&mut self, id: u16) -> bool {
        self.icmp_checksum_field().is_some() && self.replace_transport(4, &id.to_be_bytes())
    }

    /// Changes the packet that an ICMP error quotes: `change` is given the quote, whose own checksums follow as far as the
    /// quote reaches, and the error's checksum follows the quote. False, and nothing is changed, when this is no ICMP or
    /// the quote cannot be read. Only for errors: what else ICMP carries is not a quote.
    pub fn edit_icmp_inner(&mut self, change: impl FnOnce(&mut PacketMut<'_>)) -> bool {
        let (family, Some((check_at, zero))) = (self.family, self.icmp_checksum_field()) else { return false };
        let Some(body) = self.bytes.get_mut(self.transport_at + 8..) else { return false };
        let Ok(quote) = InnerPacket::parse(body, family) else { return false };
        let (protocol, transport_at) = (quote.protocol, body.len() - quote.transport.len());
        let before = Sum::new().add_bytes(body).finish();
        let extent = TransportExtent::IcmpInner;
        change(&mut PacketMut { bytes: body, family, protocol, transport_at, has_transport: true, extent });
        let after = Sum::new().add_bytes(body).finish();
        // The two sums are complements: exchanged, they are what was there and what is there now.
        self.update_checksum(check_at, zero, &after.to_be_bytes(), &before.to_be_bytes());
        true
    }

    /// Sets the six bits of the class of service (DSCP).
    pub fn set_dscp(&mut self, class: u8) {
        match self.family {
            Family::V4 => {
                let old = self.read_bytes::<2>(0);
                let new = [old[0], class << 2 | old[1] & 3];
                self.replace_header(0, &old, &new);
            }
            Family::V6 => {
                let old = self.read_bytes::<2>(0);
                let new = [old[0] & 0xf0 | class >> 2 & 0x0f, class << 6 | old[1] & 0x3f];
                self.replace_header(0, &old, &new);
            }
        }
    }

    /// Sets how many routers it may still pass.
    pub fn set_hop_limit(&mut self, hops: u8) {
        match self.family {
            Family::V4 => {
                let old = self.read_bytes::<2>(8);
                self.replace_header(8, &old, &[hops, old[1]]);
            }
            Family::V6 => {
                let old = self.read_bytes::<2>(6);
                self.replace_header(6, &old, &[old[0], hops]);
            }
        }
    }

    /// Lowers the greatest segment that a SYN announces to `most`. False where it announces none, or one that is no greater.
    pub fn clamp_mss(&mut self, most: u16) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let segment = self.bytes.get(self.transport_at..).unwrap_or_default();
        match find_mss_option(segment) {
            // The checksum sums words that begin at even places: an odd one takes its neighbour along.
            Some((at, size)) if size > most => match at % 2 {
                0 => self.replace_transport(at, &most.to_be_bytes()),
                _ => {
                    let old = self.read_bytes::<4>(self.transport_at + at - 1);
                    let [high, low] = most.to_be_bytes();
                    self.replace_transport(at - 1, &[old[0], high, low, old[3]])
                }
            },
            _ => false,
        }
    }

    /// Sets bits of the IP header or, with `transport`, of what it carries: `count` of them (at most 128) from bit `from` on. With `summed`, checksums that cover
    /// them are brought along. False, and nothing is changed, where they are not there.
    pub fn set_bits(&mut self, transport: bool, from: usize, count: usize, value: u128, summed: bool) -> bool {
        // What 128 bits cover at most, with a neighbour on each side so that checksums see whole words.
        const MOST: usize = 20;
        if transport && !self.has_transport || !(1..=128).contains(&count) {
            return false;
        }
        let base = if transport { self.transport_at } else { 0 };
        let (first, end) = (from / 16 * 2, (from + count).div_ceil(8));
        let there = self.bytes.len().saturating_sub(base);
        let covered = first..end.next_multiple_of(2).min(there);
        if end > there {
            return false;
        }
        let (mut old, mut new) = ([0; MOST], [0; MOST]);
        let Some(field) = self.bytes.get_mut(base + covered.start..base + covered.end) else { return false };
        let (Some(before), Some(after)) = (old.get_mut(..field.len()), new.get_mut(..field.len())) else {
            return false;
        };
        before.copy_from_slice(field);
        after.copy_from_slice(field);
        for bit in 0..count {
            let at = from + bit - first * 8;
            let Some(octet) = after.get_mut(at / 8) else { return false };
            let mask = 0x80 >> (at % 8);
            *octet = if value >> (count - 1 - bit) & 1 == 1 { *octet | mask } else { *octet & !mask };
        }
        field.copy_from_slice(after);
        if !summed {
            return true;
        }
        match self.checksum_field() {
            Some((at, zero)) if transport => self.update_checksum(at, zero, before, after),
            None if transport && self.protocol == protocol::SCTP && self.extent == TransportExtent::Complete => {
                return self.update_sctp_checksum();
            }
            _ if !transport && self.family == Family::V4 => {
                self.update_checksum(10, ZeroChecksum::Valid, before, after)
            }
            _ => (),
        }
        true
    }

    /// Makes no-operations of each TCP option of this kind. False where there is none.
    pub fn strip_tcp_option(&mut self, kind: u8) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let mut found = false;
        let mut from = 0;
        loop {
            let segment = self.bytes.get(self.transport_at..).unwrap_or_default();
            let Some(option) = find_tcp_option(segment, kind, from).filter(|option| option.end <= segment.len()) else {
                return found;
            };
            from = option.end;
            found = true;
            for octet in option {
                self.set_bits(true, octet * 8, 8, 1, true);
            }
        }
    }

    fn read_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    fn replace_header(&mut self, at: usize, old: &[u8; 2], new: &[u8; 2]) {
        if let Some(field) = self.bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
            *field = *new;
            if self.family == Family::V4 {
                self.update_checksum(10, ZeroChecksum::Valid, old, new);
            }
        }
    }

    fn icmp_checksum_field(&self) -> Option<(usize, ZeroChecksum)> {
        let is_icmp = matches!(self.protocol, protocol::ICMP | protocol::ICMPV6);
        if is_icmp { self.checksum_field() } else { None }
    }

    fn replace_transport<const N: usize>(&mut self, at: usize, new: &[u8; N]) -> bool {
        let field = self.bytes.get_mut(self.transport_at + at..).and_then(<[u8]>::first_chunk_mut::<N>);
        let Some(field) = field else { return false };
        let old = *field;
        *field = *new;
        if let Some((at, zero)) = self.checksum_field() {
            self.update_checksum(at, zero, &old, new);
        }
        true
    }

    /// Where the transport's Internet checksum stands, if it has one.
    fn checksum_field(&self) -> Option<(usize, ZeroChecksum)> {
        if !self.has_transport {
            return None;
        }
        let (offset, zero) = match (self.protocol, self.family) {
            (protocol::TCP, _) => (16, ZeroChecksum::Valid),
            (protocol::UDP, _) => (6, ZeroChecksum::Absent),
            (protocol::UDPLITE, _) => (6, ZeroChecksum::Absent),
            (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => (2, ZeroChecksum::Valid),
            _ => return None,
        };
        Some((self.transport_at + offset, zero))
    }

    /// Updates the checksum at `at` for octets that went from `old` to `new`.
    fn update_checksum(&mut self, at: usize, zero: ZeroChecksum, old: &[u8], new: &[u8]) {
        let Some(field) = self.bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
        let before = u16::from_be_bytes(*field);
        if zero == ZeroChecksum::Absent && before == 0 {
            return;
        }
        let after = match (checksum::update(before, old, new), zero) {
            (0, ZeroChecksum::Absent) => 0xffff,
            (after, _) => after,
        };
        *field = after.to_be_bytes();
    }

    fn update_sctp_checksum(&mut self) -> bool {
        let Some(packet) = self.bytes.get_mut(self.transport_at..) else { return false };
        let Some(crc) = checksum::sctp_crc32c(packet) else { return false };
        let Some(field) = packet.get_mut(8..12) else { return false };
        field.copy_from_slice(&crc.to_le_bytes());
        true
    }
}

/// Where in a segment the first option of this kind lies that begins at `from` or behind. As Linux's rules look for it: what ends the list (0) ends nothing,
/// and an option without a length is one octet long. It may reach beyond the header.
pub fn find_tcp_option(segment: &[u8], kind: u8, from: usize) -> Option<Range<usize>> {
    const FIXED: usize = 20;
    let length = usize::from(segment.get(12)? >> 4) * 4;
    let header = segment.get(..length)?;
    let mut at = FIXED;
    loop {
        // The last octet alone is no option.
        let &[here, behind, ..] = header.get(at..)? else { return None };
        let end = at + if here <= 1 || behind == 0 { 1 } else { usize::from(behind) };
        if here == kind && at >= from {
            return Some(at..end);
        }
        at = end;
    }
}

/// Where in a segment the size of the greatest one stands that it announces, and what it says (RFC 9293, 3.2).
pub fn find_mss_option(segment: &[u8]) -> Option<(usize, u16)> {
    let option = find_tcp_option(segment, 2, 0)?;
    let length = usize::from(segment.get(12)? >> 4) * 4;
    match segment.get(option.start..option.end.min(length))? {
        [_, _, high, low, ..] if option.end <= length => Some((option.start + 2, u16::from_be_bytes([*high, *low]))),
        _ => None,
    }
}

/// How much of the transport part there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransportExtent {
    /// All of it.
    Complete,
    /// A fragment, or what a capture kept: the rest exists elsewhere.
    Partial,
    /// What an ICMP error quotes. Nobody can check it, so that an SCTP checksum is left alone.
    IcmpInner,
}

/// What a checksum field of zero says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroChecksum {
    /// A checksum like any other.
    Valid,
    /// That there is none; a computed zero is written as all ones (RFC 768).
    Absent,
}

#[cfg(test)]
mod tests;
