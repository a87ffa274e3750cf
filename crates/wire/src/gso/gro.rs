//! [`GroAggregator`]: consecutive segments of one TCP flow merged into one large packet (generic receive offload).
//!
//! Segments are merged only if cutting gives them back byte for byte: equal headers, consecutive sequence numbers, correct checksums,
//! and the same data length in all but the last. So merging is invisible to the receiver.
use super::gso_packet::GsoPacket;
use crate::checksum::{Sum, internet};
use crate::tcp::TcpFlags;
use crate::{Family, protocol, rewrite};
use alloc::vec::Vec;

/// Maximum length of the large packet: that of IPv4's length field.
const MAX_PACKET_LEN: usize = 65_535;
/// A segment with less data than this is not merged.
const MIN_DATA_LEN: usize = 256;

/// A large packet under construction.
#[derive(Debug)]
pub struct GroAggregator {
    /// The whole first segment, then the data of the others.
    bytes: Vec<u8>,
    header_len: usize,
    transport_at: usize,
    /// Data bytes in the first segment.
    gso_size: usize,
    /// Segments so far.
    segment_count: u16,
    /// Nothing can be merged after the last segment so far.
    is_last: bool,
}

/// The parts of a segment.
struct SegmentView<'a> {
    family: Family,
    ip: &'a [u8],
    tcp: &'a [u8],
    data: &'a [u8],
}

impl<'a> SegmentView<'a> {
    /// A TCP segment with data and no unusual header fields; `None` for any other packet.
    fn parse(segment: &'a [u8]) -> Option<SegmentView<'a>> {
        let first = *segment.first()?;
        let (family, at, end) = match first {
            0x45 => {
                let [_, _, a, b, _, _, c, d, _, protocol::TCP] = *segment.first_chunk::<10>()? else { return None };
                if c & 0x3f != 0 || d != 0 {
                    return None;
                }
                (Family::V4, 20, usize::from(u16::from_be_bytes([a, b])))
            }
            first if first >> 4 == 6 => {
                let [_, _, _, _, a, b, protocol::TCP] = *segment.first_chunk::<7>()? else { return None };
                (Family::V6, 40, usize::from(u16::from_be_bytes([a, b])) + 40)
            }
            _ => return None,
        };
        // Link padding is cut off.
        let (ip, transport) = segment.get(..end)?.split_at_checked(at)?;
        let offset = usize::from(*transport.get(12)? >> 4) * 4;
        let (tcp, data) = transport.split_at_checked(offset).filter(|_| offset >= 20)?;
        let plain = *tcp.get(13)? & !TcpFlags::PSH == TcpFlags::ACK;
        (plain && !data.is_empty()).then_some(SegmentView { family, ip, tcp, data })
    }

    fn checksums_ok(&self) -> bool {
        let addresses = if self.family == Family::V4 { self.ip.get(12..20) } else { self.ip.get(8..40) };
        let length = (self.tcp.len() + self.data.len()) as u32;
        let sum = Sum::new().add_bytes(addresses.unwrap_or_default()).add_u32(length + u32::from(protocol::TCP));
        // The header has an even length, so header and data can be summed one after the other.
        (self.family == Family::V6 || internet(self.ip) == 0) && sum.add_bytes(self.tcp).add_bytes(self.data).is_valid()
    }

    fn seq(&self) -> u32 {
        self.tcp.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// The IPv4 identification.
    fn ipv4_id(&self) -> u16 {
        self.ip.get(4..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
    }

    fn has_psh(&self) -> bool {
        self.tcp.get(13).is_some_and(|flags| flags & TcpFlags::PSH != 0)
    }

    /// Whether the headers are equal, except for the fields that differ from segment to segment.
    fn headers_match(&self, other: &SegmentView<'_>) -> bool {
        fn same(one: &[u8], other: &[u8], fields: &[core::ops::Range<usize>]) -> bool {
            fields.iter().all(|field| one.get(field.clone()) == other.get(field.clone()))
        }
        let ip: &[_] = if self.family == Family::V4 { &[0..2, 6..10, 12..20] } else { &[0..4, 6..40] };
        self.ip.len() == other.ip.len()
            && self.tcp.len() == other.tcp.len()
            && same(self.ip, other.ip, ip)
            // Ports; acknowledgement and data offset; window; urgent pointer and options.
            && same(self.tcp, other.tcp, &[0..4, 8..13, 14..16, 18..self.tcp.len()])
    }
}

impl GroAggregator {
    /// Starts a large packet with `segment`, in `buffer` (whose contents are replaced).
    ///
    /// # Errors
    /// Returns `buffer` if the segment cannot be merged with others.
    pub fn start(segment: &[u8], mut buffer: Vec<u8>) -> Result<GroAggregator, Vec<u8>> {
        let Some(parts) =
            SegmentView::parse(segment).filter(|parts| parts.data.len() >= MIN_DATA_LEN && !parts.has_psh())
        else {
            return Err(buffer);
        };
        buffer.clear();
        for part in [parts.ip, parts.tcp, parts.data] {
            buffer.extend_from_slice(part);
        }
        Ok(GroAggregator {
            bytes: buffer,
            header_len: parts.ip.len() + parts.tcp.len(),
            transport_at: parts.ip.len(),
            gso_size: parts.data.len(),
            segment_count: 1,
            is_last: false,
        })
    }

    /// Whether `segment` is, or may be, of the same flow: it must then not overtake this packet.
    pub fn same_flow(&self, segment: &[u8]) -> bool {
        match (self.bytes.first(), segment.first()) {
            (Some(a), Some(b)) if a >> 4 != b >> 4 => false,
            (Some(a), _) if a >> 4 == 4 => {
                self.bytes.get(12..20) == segment.get(12..20)
                    && (segment.first() != Some(&0x45) || self.bytes.get(20..24) == segment.get(20..24))
            }
            _ => {
                self.bytes.get(8..40) == segment.get(8..40)
                    && (segment.get(6) != Some(&protocol::TCP) || self.bytes.get(40..44) == segment.get(40..44))
            }
        }
    }

    /// Appends the next segment of the flow. False, and nothing is changed, if `segment` is not that or cannot be merged.
    ///
    /// ```
    /// use keepstate_wire::gso::GroAggregator;
    /// # use keepstate_wire::rewrite;
    /// # let segment = |number: u32| {
    /// #     let mut segment = vec![0x60, 0, 0, 0, 1, 20, 6, 64];
    /// #     segment.extend([0xfd; 32]);
    /// #     segment.extend([0, 7, 0, 9]);
    /// #     segment.extend(number.to_be_bytes());
    /// #     segment.extend([0, 0, 0, 1, 0x50, 0x10, 9, 9, 0, 0, 0, 0]);
    /// #     segment.resize(60 + 256, 1);
    /// #     let (from, at) = rewrite::set_partial_checksum(&mut segment).unwrap();
    /// #     rewrite::finish_partial_checksum(&mut segment, from, at);
    /// #     segment
    /// # };
    /// let (first, second) = (segment(1), segment(257));
    /// let mut gro = GroAggregator::start(&first, Vec::new()).unwrap();
    /// assert!(gro.merge(&second) && !gro.merge(&second));
    /// let (bytes, gso) = gro.finish();
    /// assert_eq!(gso.unwrap().segments(&bytes).collect::<Vec<_>>(), [first, second]);
    /// ```
    pub fn merge(&mut self, segment: &[u8]) -> bool {
        if self.is_last || self.bytes.len() + self.gso_size > MAX_PACKET_LEN {
            return false;
        }
        let Some(next) = SegmentView::parse(segment) else { return false };
        let Some(first) = self.first_segment() else { return false };
        let follows = next.data.len() <= self.gso_size
            && next.family == first.family
            && next.headers_match(&first)
            && next.seq() == first.seq().wrapping_add((self.bytes.len() - self.header_len) as u32)
            && (next.family == Family::V6 || next.ipv4_id() == first.ipv4_id().wrapping_add(self.segment_count));
        if !follows || !next.checksums_ok() || (self.segment_count == 1 && !first.checksums_ok()) {
            return false;
        }
        let is_last = next.has_psh() || next.data.len() < self.gso_size;
        let pushes = next.has_psh();
        self.bytes.extend_from_slice(next.data);
        self.segment_count += 1;
        self.is_last = is_last;
        if pushes && let Some(flags) = self.bytes.get_mut(self.transport_at + 13) {
            *flags |= TcpFlags::PSH;
        }
        true
    }

    fn first_segment(&self) -> Option<SegmentView<'_>> {
        let (headers, data) = self.bytes.split_at_checked(self.header_len)?;
        let (ip, tcp) = headers.split_at_checked(self.transport_at)?;
        let family = if self.transport_at == 20 { Family::V4 } else { Family::V6 };
        Some(SegmentView { family, ip, tcp, data: data.get(..self.gso_size)? })
    }

    /// The large packet, with a [partial checksum](rewrite::set_partial_checksum) and its segmentation; or the only segment as it came.
    pub fn finish(self) -> (Vec<u8>, Option<GsoPacket>) {
        let mut bytes = self.bytes;
        if self.segment_count == 1 {
            return (bytes, None);
        }
        let length = bytes.len();
        let (at, value) = if self.transport_at == 20 { (2, length) } else { (4, length - 40) };
        // At most `MAX_PACKET_LEN`.
        let value = (value as u16).to_be_bytes();
        if let Some(field) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *field = value;
        }
        if self.transport_at == 20
            && let Some(header) = bytes.get_mut(..20)
        {
            header[10..12].fill(0);
            let check = internet(header).to_be_bytes();
            header[10..12].copy_from_slice(&check);
        }
        rewrite::set_partial_checksum(&mut bytes);
        let gso = GsoPacket::parse(&bytes, self.gso_size as u16);
        (bytes, gso)
    }
}
