//! Checksums left open for whoever sends a datagram on: checksum offload, as network cards and `virtio` know it. An open field holds the sum of the pseudo-header alone.
use crate::checksum::Sum;
use crate::packet::protocol;
use crate::{Family, Packet};

/// Where a TCP segment keeps its checksum.
const TCP_CHECKSUM: usize = 16;

/// Closes the checksum that stands `at` octets behind `from`, and covers everything from there on. False, and nothing is changed, when the datagram is shorter than that.
///
/// ```
/// use keepstate_wire::{Packet, edit::{close, open}};
/// let mut segment = vec![
///     0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, // IPv4
///     0, 21, 0x9c, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0, 9, 0, 0, 0, 0, b'o', b'n', b'e', // TCP
/// ];
/// let (from, at) = open(&mut segment).unwrap();
/// assert!(!Packet::parse(&segment)?.transport_checksum_ok());
/// assert!(close(&mut segment, from, at));
/// assert!(Packet::parse(&segment)?.transport_checksum_ok());
/// # Ok::<(), keepstate_wire::ParseError>(())
/// ```
pub fn finish_partial_checksum(datagram: &mut [u8], from: usize, at: usize) -> bool {
    let check = datagram.get(from..).map(|covered| Sum::new().add_bytes(covered).finish());
    let field = from.checked_add(at).and_then(|at| datagram.get_mut(at..)).and_then(<[u8]>::first_chunk_mut::<2>);
    let (Some(check), Some(field)) = (check, field) else { return false };
    // To those whose zero means that there is none, its other writing.
    *field = if check == 0 { [0xff; 2] } else { check.to_be_bytes() };
    true
}

/// Opens the checksum of a TCP segment: where what it covers begins, and where it stands from there. `None`, and nothing is changed, if this is none.
pub fn set_partial_checksum(datagram: &mut [u8]) -> Option<(usize, usize)> {
    let packet = Packet::parse(datagram).ok().filter(|packet| packet.protocol() == protocol::TCP)?;
    let (from, length) = (packet.transport_at(), u16::try_from(packet.transport_len()).ok()?);
    let addresses = if packet.family() == Family::V4 { 12..20 } else { 8..40 };
    let sum =
        Sum::new().add_bytes(datagram.get(addresses)?).add_bytes(&[0, protocol::TCP]).add_bytes(&length.to_be_bytes());
    let field = datagram.get_mut(from + TCP_CHECKSUM..)?.first_chunk_mut::<2>()?;
    *field = (!sum.finish()).to_be_bytes();
    Some((from, TCP_CHECKSUM))
}
