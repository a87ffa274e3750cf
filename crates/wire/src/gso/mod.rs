//! Many segments of one TCP stream as one datagram, which Linux carries about to be cut where it leaves (GSO): how long they will be, and the cutting itself.
mod gro;

pub use gro::GroAggregator;

use crate::packet::protocol;
use crate::tcp::TcpFlags;
use crate::{Family, Packet, rewrite, tcp};
use alloc::vec::Vec;

/// A datagram that stands for many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GsoPacket {
    /// Octets of all headers.
    header_len: usize,
    /// Where TCP's begins.
    transport_at: usize,
    /// Octets of data in each segment but the last.
    gso_size: u16,
}

impl GsoPacket {
    /// Of a whole TCP segment with more data than `size` octets; `None` if it is none.
    ///
    /// ```
    /// use keepstate_wire::{Packet, segment::Train};
    /// let mut long = vec![0x45, 0, 0, 50, 0, 7, 0, 0, 64, 6, 0x66, 0xbd, 10, 0, 0, 1, 10, 0, 0, 2];
    /// long.extend([0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0]);
    /// long.extend(b"ten octets");
    /// let train = Train::of(&long, 4).unwrap();
    /// assert_eq!(train.longest(), 44);
    /// let segments: Vec<_> = train.segments(&long).collect();
    /// let lengths = segments.iter().map(|segment| Packet::parse(segment).map(|packet| packet.total_len()));
    /// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [44, 44, 42]);
    /// # Ok::<(), keepstate_wire::ParseError>(())
    /// ```
    pub fn parse(datagram: &[u8], size: u16) -> Option<GsoPacket> {
        let packet = Packet::parse(datagram).ok().filter(|packet| packet.fragment().is_none())?;
        if packet.protocol() != protocol::TCP || size == 0 {
            return None;
        }
        let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
        let headers = packet.bytes().len() - segment.data.len();
        (segment.data.len() > usize::from(size)).then(|| GsoPacket {
            header_len: headers,
            transport_at: packet.transport_at(),
            gso_size: size,
        })
    }

    /// Octets of the longest datagram it will be cut into.
    pub fn max_segment_len(&self) -> usize {
        self.header_len + usize::from(self.gso_size)
    }

    /// Octets of data in each segment but the last.
    pub fn gso_size(&self) -> u16 {
        self.gso_size
    }

    /// The segments, each with its numbers, its flags and its checksums: FIN and PSH with the last, CWR with the first.
    pub fn segments<'a>(&self, datagram: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
        let GsoPacket { header_len: headers, transport_at, gso_size: size } = *self;
        let (headers, data) = datagram.split_at_checked(headers).unwrap_or((datagram, &[]));
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

/// What differs from the headers of the first: length, IPv4's number, TCP's number and flags, checksums.
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
        let check = crate::checksum::internet(segment.get(..ihl(segment))?);
        segment.get_mut(10..)?.first_chunk_mut::<2>().map(|field| *field = check.to_be_bytes())?;
    }
    let (from, at) = rewrite::set_partial_checksum(segment)?;
    rewrite::finish_partial_checksum(segment, from, at).then_some(())
}

/// Octets of an IPv4 header.
fn ihl(segment: &[u8]) -> usize {
    segment.first().map_or(0, |first| usize::from(first & 0x0f) * 4)
}
