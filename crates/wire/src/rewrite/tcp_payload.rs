//! Changes to a TCP stream: payload replaced by more or fewer bytes, and sequence numbers of later segments shifted by the difference,
//! in acknowledgements and SACK blocks (RFC 2018) too.
use super::packet_mut::PacketMut;
use crate::checksum::{self, Sum};
use crate::{Family, Packet, protocol, tcp};
use alloc::vec::Vec;
use core::ops::Range;

/// Replaces the range `at` of a TCP segment's data with `with`. IP length and checksums are updated; the TCP checksum is recomputed.
/// False, and nothing is changed, if there is no such segment or range, or the packet would become too long.
///
/// ```
/// use keepstate_wire::{Packet, rewrite::mangle_tcp_payload};
/// let mut segment = vec![
///     0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
///     0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0, b'o', b'n', b'e', // TCP
/// ];
/// assert!(mangle_tcp_payload(&mut segment, 0..3, b"three"));
/// let packet = Packet::parse(&segment)?;
/// assert_eq!((packet.total_len(), &segment[40..]), (45, &b"three"[..]));
/// assert!(packet.transport_checksum_ok());
/// # Ok::<(), keepstate_wire::ParseError>(())
/// ```
pub fn mangle_tcp_payload(bytes: &mut Vec<u8>, at: Range<usize>, with: &[u8]) -> bool {
    try_mangle_tcp_payload(bytes, at, with).is_some()
}

fn try_mangle_tcp_payload(bytes: &mut Vec<u8>, at: Range<usize>, with: &[u8]) -> Option<()> {
    let packet = Packet::parse(bytes).ok().filter(|packet| packet.fragment().is_none())?;
    if packet.protocol() != protocol::TCP {
        return None;
    }
    let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
    segment.data.get(at.clone())?;
    let (family, transport_at, end) = (packet.family(), packet.transport_at(), packet.bytes().len());
    let data_at = end - segment.data.len();
    let total = end - at.len() + with.len();
    let (length_at, length) = match family {
        Family::V4 => (2, total),
        Family::V6 => (4, total.checked_sub(40)?),
    };
    let length = u16::try_from(length).ok()?.to_be_bytes();
    bytes.truncate(end);
    bytes.splice(data_at + at.start..data_at + at.end, with.iter().copied());
    let field = bytes.get_mut(length_at..)?.first_chunk_mut::<2>()?;
    let before = core::mem::replace(field, length);
    bytes.get_mut(transport_at + 16..)?.first_chunk_mut::<2>().map(|check| *check = [0; 2])?;
    let addresses = if family == Family::V4 { 12..20 } else { 8..40 };
    let transport = bytes.get(transport_at..)?;
    let check = Sum::new()
        .add_bytes(bytes.get(addresses)?)
        .add_bytes(&[0, protocol::TCP])
        .add_bytes(&u16::try_from(transport.len()).ok()?.to_be_bytes())
        .add_bytes(transport)
        .finish();
    bytes.get_mut(transport_at + 16..)?.first_chunk_mut::<2>().map(|field| *field = check.to_be_bytes())?;
    if family == Family::V4 {
        let field = bytes.get_mut(10..)?.first_chunk_mut::<2>()?;
        *field = checksum::update(u16::from_be_bytes(*field), &before, &length).to_be_bytes();
    }
    Some(())
}

impl PacketMut<'_> {
    /// Maps a TCP segment's sequence number with `seq`, and its acknowledgement number and SACK edges with `ack`. False if this is no
    /// TCP segment, or its options are malformed: such a packet must not be forwarded.
    pub fn adjust_seq(&mut self, seq: impl Fn(u32) -> u32, ack: impl Fn(u32) -> u32) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let flags = self.read_bytes::<2>(self.transport_at + 12);
        if !self.adjust_u32(4, &seq) {
            return false;
        }
        let is_ack = tcp::TcpFlags(flags[1]).any(tcp::TcpFlags::ACK);
        !is_ack || self.adjust_u32(8, &ack) && self.adjust_sack(usize::from(flags[0] >> 4) * 4, &ack)
    }

    /// Maps the timestamps of a TCP segment (RFC 7323): the value with `value`, the echo reply with `echo`. A segment without timestamps
    /// stays as it is. False if this is no TCP segment, or its options are malformed.
    pub fn adjust_timestamps(&mut self, value: impl Fn(u32) -> u32, echo: impl Fn(u32) -> u32) -> bool {
        if self.protocol != protocol::TCP || !self.has_transport {
            return false;
        }
        let header = usize::from(self.read_bytes::<1>(self.transport_at + 12)[0] >> 4) * 4;
        self.for_each_tcp_option(header, |segment, kind, at, length| {
            if kind == 8 && length == 10 {
                segment.adjust_u32_unaligned(at + 2, &value);
                segment.adjust_u32_unaligned(at + 6, &echo);
            }
        })
    }

    /// A 32-bit number at an even offset of the segment.
    fn adjust_u32(&mut self, at: usize, change: &impl Fn(u32) -> u32) -> bool {
        let old = u32::from_be_bytes(self.read_bytes(self.transport_at + at));
        let new = change(old);
        new == old || self.replace_transport(at, &new.to_be_bytes())
    }

    /// All SACK edges, in a header of `header` bytes.
    fn adjust_sack(&mut self, header: usize, change: &impl Fn(u32) -> u32) -> bool {
        self.for_each_tcp_option(header, |segment, kind, at, length| {
            if kind == 5 && length >= 10 && (length - 2).is_multiple_of(8) {
                (at + 2..at + length).step_by(4).for_each(|edge| segment.adjust_u32_unaligned(edge, change));
            }
        })
    }

    /// Calls `each` with kind, offset and length of every option in a header of `header` bytes. False if one is malformed.
    fn for_each_tcp_option(&mut self, header: usize, mut each: impl FnMut(&mut Self, u8, usize, usize)) -> bool {
        const FIXED: usize = 20;
        let mut at = FIXED;
        while at < header {
            let [kind, length] = self.read_bytes::<2>(self.transport_at + at);
            match kind {
                0 => return true,
                1 => at += 1,
                _ => {
                    let next = at + usize::from(length);
                    if length < 2 || next > header {
                        return false;
                    }
                    each(self, kind, at, usize::from(length));
                    at = next;
                }
            }
        }
        true
    }

    /// Checksums cover 16-bit words at even offsets: at an odd one, the neighbouring bytes are updated too.
    fn adjust_u32_unaligned(&mut self, at: usize, change: &impl Fn(u32) -> u32) {
        if at.is_multiple_of(2) {
            self.adjust_u32(at, change);
            return;
        }
        let old = self.read_bytes::<6>(self.transport_at + at - 1);
        let [a, b, c, d] = change(u32::from_be_bytes([old[1], old[2], old[3], old[4]])).to_be_bytes();
        self.replace_transport(at - 1, &[old[0], a, b, c, d, old[5]]);
    }
}
