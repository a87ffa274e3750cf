//! [`PacketMut`]: fields of a packet changed in place, with incremental checksums.
use super::tcp_options::{find_mss_option, find_tcp_option};
use crate::checksum::Sum;
use crate::{Addresses, Family, InnerPacket, Layout, Packet, ParseError, checksum, protocol};
use core::net::IpAddr;
use core::ops::Range;

/// A packet whose fields can be changed. Every setter updates the checksums that cover the field.
#[derive(Debug)]
pub struct PacketMut<'a> {
    bytes: &'a mut [u8],
    family: Family,
    pub(super) protocol: u8,
    pub(super) transport_at: usize,
    /// A transport header begins at `transport_at`: this is not a later fragment.
    pub(super) has_transport: bool,
    /// How much of the transport part is present.
    extent: TransportExtent,
}

impl<'a> PacketMut<'a> {
    /// Parses the packet as [`Packet::parse`] does.
    ///
    /// # Errors
    /// As [`Packet::parse`].
    pub fn new(bytes: &'a mut [u8]) -> Result<Self, ParseError> {
        let len = bytes.len();
        Self::new_snapped(bytes, len)
    }

    /// Like [`PacketMut::new`], for a capture that kept only the first part of a packet of `wire_len` bytes.
    ///
    /// # Errors
    /// As [`Packet::parse_snapped`].
    pub fn new_snapped(bytes: &'a mut [u8], wire_len: usize) -> Result<Self, ParseError> {
        let packet = Packet::parse_snapped(bytes, wire_len)?;
        let (len, fields) = Self::prepare(&packet);
        // Padding after the packet is not part of it, and an SCTP checksum must not cover it.
        let bytes = bytes.get_mut(..len).unwrap_or_default();
        Ok(PacketMut { bytes, ..fields })
    }

    /// Like [`PacketMut::new`], for a packet that was parsed before; `None` if `bytes` has another length.
    #[inline]
    pub fn from_layout(bytes: &'a mut [u8], layout: Layout) -> Option<Self> {
        let (_, fields) = Self::prepare(&layout.view(bytes)?);
        Some(PacketMut { bytes, ..fields })
    }

    /// All fields but the bytes, and the length of those.
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

    /// The current bytes of the packet.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Sets both addresses. False, and nothing is changed, if they are of the other family.
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

    /// Sets the source address. False, and nothing is changed, if it is of the other family.
    pub fn set_source(&mut self, new: IpAddr) -> bool {
        match (self.family, new) {
            (Family::V4, IpAddr::V4(new)) => self.replace_addresses(12, &new.octets()),
            (Family::V6, IpAddr::V6(new)) => self.replace_addresses(8, &new.octets()),
            _ => false,
        }
    }

    /// Sets the destination address. False, and nothing is changed, if it is of the other family.
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

    /// Sets both ports of TCP, UDP, UDP-Lite or SCTP. False, and nothing is changed, if the packet has none: another protocol, a
    /// later fragment, or an SCTP packet that is incomplete.
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

    /// Like [`PacketMut::set_ports`], for the source port.
    pub fn set_source_port(&mut self, port: u16) -> bool {
        self.set_port_at(0, port)
    }

    /// Like [`PacketMut::set_ports`], for the destination port.
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

    /// Sets the call id of enhanced GRE (RFC 2637). False, and nothing is changed, if this is no such packet.
    pub fn set_gre_call_id(&mut self, id: u16) -> bool {
        let is_enhanced = self.bytes.get(self.transport_at + 1).is_some_and(|version| version & 7 == 1);
        self.protocol == protocol::GRE
            && self.has_transport
            && is_enhanced
            && self.replace_transport(6, &id.to_be_bytes())
    }

    /// Sets the identifier of an ICMP or ICMPv6 query. False, and nothing is changed, if this is no ICMP.
    pub fn set_icmp_id(&mut self, id: u16) -> bool {
        self.icmp_checksum_field().is_some() && self.replace_transport(4, &id.to_be_bytes())
    }

    /// Changes the inner packet of an ICMP error with `change`. Checksums of the inner packet are updated as far as it is present, and
    /// then the checksum of the error. False, and nothing is changed, if this is no ICMP or the inner packet cannot be
    /// parsed. Only for ICMP errors: other messages carry no packet.
    pub fn edit_icmp_inner(&mut self, change: impl FnOnce(&mut PacketMut<'_>)) -> bool {
        let (family, Some((check_at, zero))) = (self.family, self.icmp_checksum_field()) else { return false };
        let Some(body) = self.bytes.get_mut(self.transport_at + 8..) else { return false };
        let Ok(inner) = InnerPacket::parse(body, family) else { return false };
        let (protocol, transport_at) = (inner.protocol, body.len() - inner.transport.len());
        let before = Sum::new().add_bytes(body).finish();
        let extent = TransportExtent::IcmpInner;
        change(&mut PacketMut { bytes: body, family, protocol, transport_at, has_transport: true, extent });
        let after = Sum::new().add_bytes(body).finish();
        // Both are complements of sums: swapped, they stand for the old and the new bytes.
        self.update_checksum(check_at, zero, &after.to_be_bytes(), &before.to_be_bytes());
        true
    }

    /// Sets the DSCP (RFC 2474), the six bits above ECN.
    pub fn set_dscp(&mut self, dscp: u8) {
        match self.family {
            Family::V4 => {
                let old = self.read_bytes::<2>(0);
                let new = [old[0], dscp << 2 | old[1] & 3];
                self.replace_header(0, &old, &new);
            }
            Family::V6 => {
                let old = self.read_bytes::<2>(0);
                let new = [old[0] & 0xf0 | dscp >> 2 & 0x0f, dscp << 6 | old[1] & 0x3f];
                self.replace_header(0, &old, &new);
            }
        }
    }

    /// Sets the hop limit, or the time to live.
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

    /// Lowers the maximum segment size option to `max`. False if there is no such option, or its value is not above `max`.
    pub fn clamp_mss(&mut self, max: u16) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let segment = self.bytes.get(self.transport_at..).unwrap_or_default();
        match find_mss_option(segment) {
            // Checksums cover 16-bit words at even offsets: at an odd one, the neighbouring bytes are updated too.
            Some((at, size)) if size > max => match at % 2 {
                0 => self.replace_transport(at, &max.to_be_bytes()),
                _ => {
                    let old = self.read_bytes::<4>(self.transport_at + at - 1);
                    let [high, low] = max.to_be_bytes();
                    self.replace_transport(at - 1, &[old[0], high, low, old[3]])
                }
            },
            _ => false,
        }
    }

    /// Sets up to 128 bits, counted from the start of the IP or the transport header, to the low bits of `value`. False, and nothing is
    /// changed, if they are not all present.
    pub fn set_bits(&mut self, base: HeaderBase, bits: Range<usize>, value: u128, checksums: ChecksumMode) -> bool {
        // 128 bits touch 17 bytes at most; one more on each side makes whole words for the checksum.
        const MAX: usize = 20;
        let (from, count) = (bits.start, bits.len());
        let transport = base == HeaderBase::Transport;
        if transport && !self.has_transport || !(1..=128).contains(&count) {
            return false;
        }
        let base_at = if transport { self.transport_at } else { 0 };
        let (first, end) = (from / 16 * 2, (from + count).div_ceil(8));
        let present = self.bytes.len().saturating_sub(base_at);
        let covered = first..end.next_multiple_of(2).min(present);
        if end > present {
            return false;
        }
        let (mut old, mut new) = ([0; MAX], [0; MAX]);
        let Some(field) = self.bytes.get_mut(base_at + covered.start..base_at + covered.end) else { return false };
        let (Some(before), Some(after)) = (old.get_mut(..field.len()), new.get_mut(..field.len())) else {
            return false;
        };
        before.copy_from_slice(field);
        after.copy_from_slice(field);
        for bit in 0..count {
            let at = from + bit - first * 8;
            let Some(byte) = after.get_mut(at / 8) else { return false };
            let mask = 0x80 >> (at % 8);
            *byte = if value >> (count - 1 - bit) & 1 == 1 { *byte | mask } else { *byte & !mask };
        }
        field.copy_from_slice(after);
        if checksums == ChecksumMode::Keep {
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

    /// Sets bits of the first TCP option of this kind, counted from its kind on. False, and nothing is changed, if it ends before them or goes past the header; a segment without such an
    /// option stays as it is. As Linux's rules do (nft_exthdr_tcp_set_eval).
    pub fn set_tcp_option_bits(&mut self, kind: u8, bits: Range<usize>, value: u32) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let segment = self.bytes.get(self.transport_at..).unwrap_or_default();
        let length = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
        let Some(option) = find_tcp_option(segment, kind, 0) else { return true };
        if option.end > length || option.start + bits.end.div_ceil(8) > option.end {
            return false;
        }
        let from = option.start * 8;
        self.set_bits(HeaderBase::Transport, from + bits.start..from + bits.end, value.into(), ChecksumMode::Update)
    }

    /// Replaces every TCP option of this kind with no-operations. False if there is none.
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
            for at in option {
                self.set_bits(HeaderBase::Transport, at * 8..at * 8 + 8, 1, ChecksumMode::Update);
            }
        }
    }

    pub(super) fn read_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
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

    pub(super) fn replace_transport<const N: usize>(&mut self, at: usize, new: &[u8; N]) -> bool {
        let field = self.bytes.get_mut(self.transport_at + at..).and_then(<[u8]>::first_chunk_mut::<N>);
        let Some(field) = field else { return false };
        let old = *field;
        *field = *new;
        if let Some((at, zero)) = self.checksum_field() {
            self.update_checksum(at, zero, &old, new);
        }
        true
    }

    /// Offset of the transport protocol's Internet checksum, if it has one.
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

    /// Updates the checksum at `at` for bytes that changed from `old` to `new`.
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

/// The header that a position is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeaderBase {
    /// The IP header.
    Network,
    /// The transport header.
    Transport,
}

/// Whether a change updates the checksums that cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumMode {
    /// Update them.
    Update,
    /// Leave them as they are.
    Keep,
}

/// How much of the transport part is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TransportExtent {
    /// All of it.
    Complete,
    /// A fragment or a truncated capture.
    Partial,
    /// The inner packet of an ICMP error. It cannot be verified, so an SCTP checksum stays as it is.
    IcmpInner,
}

/// The meaning of a checksum field of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ZeroChecksum {
    /// A checksum like any other.
    Valid,
    /// There is no checksum; a computed zero is written as all ones (RFC 768).
    Absent,
}
