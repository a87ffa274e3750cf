//! Fields of a packet's headers: IP, transport, and where what they carry begins.
use super::header_bits::{be16, be32, extract_bits};
use crate::ast::{IpField, PayloadField};
use keepstate_wire::{Family, Packet};

pub(super) fn eval_ip4(packet: &Packet<'_>, field: IpField) -> Option<u128> {
    let bytes = packet.bytes();
    let byte = |at: usize| bytes.get(at).map(|byte| u128::from(*byte));
    match field {
        IpField::Source => be32(bytes, 12),
        IpField::Destination => be32(bytes, 16),
        IpField::Protocol => byte(9),
        IpField::Dscp => byte(1).map(|class| class >> 2),
        IpField::Ecn => byte(1).map(|class| class & 3),
        IpField::Length => be16(bytes, 2),
        IpField::Ttl => byte(8),
        IpField::Id => be16(bytes, 4),
        IpField::Checksum => be16(bytes, 10),
        IpField::Fragment => be16(bytes, 6),
        IpField::Version => Some(4),
        IpField::HeaderLength => byte(0).map(|first| first & 15),
        IpField::FlowLabel => None,
    }
}

pub(super) fn eval_ip6(packet: &Packet<'_>, field: IpField) -> Option<u128> {
    let bytes = packet.bytes();
    let address = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u128::from_be_bytes(*bytes));
    let byte = |at: usize| bytes.get(at).map(|byte| u128::from(*byte));
    match field {
        IpField::Source => address(8),
        IpField::Destination => address(24),
        IpField::Protocol => byte(6),
        IpField::Dscp => be16(bytes, 0).map(|word| word >> 6 & 0x3f),
        IpField::Ecn => be16(bytes, 0).map(|word| word >> 4 & 3),
        IpField::Length => be16(bytes, 4),
        IpField::Ttl => byte(7),
        IpField::FlowLabel => be32(bytes, 0).map(|word| word & 0xf_ffff),
        IpField::Version => Some(6),
        IpField::Id | IpField::Fragment | IpField::HeaderLength | IpField::Checksum => None,
    }
}

/// A field of the transport header, if the packet has it.
pub(super) fn eval_transport_bits(field: &PayloadField, packet: &Packet<'_>) -> Option<u128> {
    let v6 = packet.family() == Family::V6;
    let fits = field.protocol == Some(packet.protocol()) && field.v6.is_none_or(|six| six == v6);
    fits.then(|| bits_of_header(field, packet.transport())).flatten()
}

pub(super) fn bits_of_header(field: &PayloadField, header: &[u8]) -> Option<u128> {
    if !field.icmp_types.is_empty() && !field.icmp_types.contains(header.first()?) {
        return None;
    }
    extract_bits(header, field.bits)
}

/// Where the payload of the transport protocol begins, from the start of its header.
pub(super) fn inner_offset(packet: &Packet<'_>) -> Option<usize> {
    let transport = packet.transport();
    Some(match packet.protocol() {
        6 => usize::from(transport.get(12)? >> 4) * 4,
        17 => 8,
        47 => gre_header_length(transport)?,
        4 => 0,
        _ => return None,
    })
}

/// Of GRE version 0 without a source route (RFC 2784, RFC 2890): a checksum, a key and a sequence number may follow.
pub(super) fn gre_header_length(header: &[u8]) -> Option<usize> {
    match (header.first()?, header.get(1)? & 7) {
        (flags, 0) if flags & 0x40 == 0 => Some(4 + 4 * (flags & 0xb0).count_ones() as usize),
        _ => None,
    }
}
