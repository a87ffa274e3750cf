//! [`GsoPacket`]: one large TCP packet that is cut into segments where it leaves (generic segmentation offload).
use crate::tcp::TcpFlags;
use crate::{Family, Packet, checksum, protocol, rewrite, tcp};
use alloc::vec::Vec;

/// The segmentation of a large TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GsoPacket {
    /// Length of all headers.
    header_len: usize,
    /// Offset of the TCP header.
    transport_at: usize,
    /// Data bytes in each segment but the last.
    gso_size: u16,
}

impl GsoPacket {
    /// The segmentation of `bytes` into segments of `gso_size` data bytes. `None` if this is no TCP packet, is a fragment, or has no more
    /// data than one segment.
    ///
    /// ```
    /// use keepstate_wire::{Packet, gso::GsoPacket};
    /// let mut long = vec![0x45, 0, 0, 50, 0, 7, 0, 0, 64, 6, 0x66, 0xbd, 10, 0, 0, 1, 10, 0, 0, 2];
    /// long.extend([0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0]);
    /// long.extend(b"ten bytes!");
    /// let gso = GsoPacket::parse(&long, 4).unwrap();
    /// assert_eq!(gso.max_segment_len(), 44);
    /// let segments: Vec<_> = gso.segments(&long).collect();
    /// let lengths = segments.iter().map(|segment| Packet::parse(segment).map(|packet| packet.total_len()));
    /// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [44, 44, 42]);
    /// # Ok::<(), keepstate_wire::ParseError>(())
    /// ```
    pub fn parse(bytes: &[u8], gso_size: u16) -> Option<GsoPacket> {
        let packet = Packet::parse(bytes).ok().filter(|packet| packet.fragment().is_none())?;
        if packet.protocol() != protocol::TCP || gso_size == 0 {
            return None;
        }
        let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
        (segment.data.len() > usize::from(gso_size)).then(|| GsoPacket {
            header_len: packet.bytes().len() - segment.data.len(),
            transport_at: packet.transport_at(),
            gso_size,
        })
    }

    /// Length of the longest segment, with headers, in bytes.
    pub fn max_segment_len(&self) -> usize {
        self.header_len + usize::from(self.gso_size)
    }

    /// Data bytes in each segment but the last.
    pub fn gso_size(&self) -> u16 {
        self.gso_size
    }

    /// The segments of the packet in `bytes`, each with its own lengths, numbers and checksums. FIN and PSH are set on the last only, CWR on
    /// the first only.
    pub fn segments<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let GsoPacket { header_len: headers, transport_at, gso_size: size } = *self;
        let (headers, data) = bytes.split_at_checked(headers).unwrap_or((bytes, &[]));
        let last = data.len().div_ceil(size.max(1).into()).saturating_sub(1);
        data.chunks(size.max(1).into()).enumerate().filter_map(move |(number, data)| {
            let mut segment = Vec::with_capacity(headers.len() + data.len());
            segment.extend_from_slice(headers);
            segment.extend_from_slice(data);
            let at = u32::try_from(number * usize::from(size)).ok()?;
            let cleared = if number == last { 0 } else { TcpFlags::FIN | TcpFlags::PSH }
                | if number == 0 { 0 } else { TcpFlags::CWR };
            write_segment_header(&mut segment, transport_at, number as u16, at, cleared)?;
            Some(segment)
        })
    }
}

/// Writes what differs from the headers of the large packet: lengths, IPv4 identification, TCP sequence number, flags, checksums.
fn write_segment_header(segment: &mut [u8], transport_at: usize, number: u16, at: u32, cleared: u8) -> Option<()> {
    let length = segment.len();
    let family = if segment.first()? >> 4 == 6 { Family::V6 } else { Family::V4 };
    let mut put = |at: usize, change: &dyn Fn(u16) -> u16| {
        let field = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>)?;
        *field = change(u16::from_be_bytes(*field)).to_be_bytes();
        Some(())
    };
    match family {
        Family::V6 => {
            let length = u16::try_from(length.checked_sub(40)?).ok()?;
            put(4, &|_| length)?;
        }
        Family::V4 => {
            let length = u16::try_from(length).ok()?;
            put(2, &|_| length)?;
            put(4, &|id| id.wrapping_add(number))?;
            put(10, &|_| 0)?;
        }
    }
    let seq = segment.get_mut(transport_at + 4..)?.first_chunk_mut::<4>()?;
    *seq = u32::from_be_bytes(*seq).wrapping_add(at).to_be_bytes();
    *segment.get_mut(transport_at + 13)? &= !cleared;
    if family == Family::V4 {
        let check = checksum::internet(segment.get(..ihl(segment))?);
        segment.get_mut(10..)?.first_chunk_mut::<2>().map(|field| *field = check.to_be_bytes())?;
    }
    let (from, at) = rewrite::set_partial_checksum(segment)?;
    rewrite::finish_partial_checksum(segment, from, at).then_some(())
}

/// Length of an IPv4 header.
fn ihl(segment: &[u8]) -> usize {
    segment.first().map_or(0, |first| usize::from(first & 0x0f) * 4)
}
