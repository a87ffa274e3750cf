//! Partial checksums for checksum offload, as network cards and virtio use them (Linux: CHECKSUM_PARTIAL). A partial checksum field
//! holds the sum of the pseudo-header only; the driver or the card adds the rest.
use crate::checksum::Sum;
use crate::protocol;
use crate::{Family, Packet};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;

/// Completes a partial checksum: the field is at offset `from + at`, and it covers everything from `from` on. False, and nothing is
/// changed, if the packet is too short.
///
/// ```
/// use keepstate_wire::{Packet, rewrite::{finish_partial_checksum, set_partial_checksum}};
/// let mut segment = vec![
///     0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
///     0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0, b'o', b'n', b'e', // TCP
/// ];
/// let (from, at) = set_partial_checksum(&mut segment).unwrap();
/// assert!(!Packet::parse(&segment)?.transport_checksum_ok());
/// assert!(finish_partial_checksum(&mut segment, from, at));
/// assert!(Packet::parse(&segment)?.transport_checksum_ok());
/// # Ok::<(), keepstate_wire::ParseError>(())
/// ```
pub fn finish_partial_checksum(bytes: &mut [u8], from: usize, at: usize) -> bool {
    let check = bytes.get(from..).map(|covered| Sum::new().add_bytes(covered).finish());
    let field = from.checked_add(at).and_then(|at| bytes.get_mut(at..)).and_then(<[u8]>::first_chunk_mut::<2>);
    let (Some(check), Some(field)) = (check, field) else { return false };
    // Zero is written as all ones: to UDP zero means no checksum, and the sum is the same.
    *field = if check == 0 { [0xff; 2] } else { check.to_be_bytes() };
    true
}

/// Sets the checksum of a TCP segment to a partial one. Returns the offset from which it covers, and the offset of the field from
/// there: virtio's `csum_start` and `csum_offset`. `None`, and nothing is changed, if this is no TCP segment.
pub fn set_partial_checksum(bytes: &mut [u8]) -> Option<(usize, usize)> {
    let packet = Packet::parse(bytes).ok().filter(|packet| packet.protocol() == protocol::TCP)?;
    let (from, length) = (packet.transport_at(), u16::try_from(packet.transport_len()).ok()?);
    let addresses = if packet.family() == Family::V4 { 12..20 } else { 8..40 };
    let sum =
        Sum::new().add_bytes(bytes.get(addresses)?).add_bytes(&[0, protocol::TCP]).add_bytes(&length.to_be_bytes());
    let field = bytes.get_mut(from + TCP_CHECKSUM..)?.first_chunk_mut::<2>()?;
    *field = (!sum.finish()).to_be_bytes();
    Some((from, TCP_CHECKSUM))
}
