//! Reading bits, integers and addresses from a packet's headers.
use crate::ast::{BitRange, Endpoint};
use keepstate_wire::{Addresses, Packet};
use std::net::IpAddr;

/// Source or destination address of a packet.
pub(super) fn packet_address(packet: &Packet<'_>, end: Endpoint) -> IpAddr {
    match (packet.addresses(), end) {
        (Addresses::V4 { source, .. }, Endpoint::Source) => IpAddr::from(source),
        (Addresses::V4 { destination, .. }, Endpoint::Destination) => IpAddr::from(destination),
        (Addresses::V6 { source, .. }, Endpoint::Source) => IpAddr::from(source),
        (Addresses::V6 { destination, .. }, Endpoint::Destination) => IpAddr::from(destination),
    }
}

pub(super) fn address_value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// A range of at most 128 bits as a number; `None` beyond the end of the bytes.
pub(super) fn extract_bits(bytes: &[u8], bits: BitRange) -> Option<u128> {
    let (from, count) = (usize::from(bits.offset), usize::from(bits.count));
    let end = from + count;
    let covered = bytes.get(from / 8..end.div_ceil(8))?;
    let (first, rest) = covered.split_first()?;
    // Bits before the range in its first byte do not belong to it.
    let first = u128::from(*first) & 0xff >> (from % 8);
    let (last, middle) = match rest.split_last() {
        None => return Some(first >> (end.div_ceil(8) * 8 - end)),
        Some((last, middle)) => (u128::from(*last), middle),
    };
    let whole = middle.iter().try_fold(first, |sum, byte| sum.checked_mul(256).map(|sum| sum | u128::from(*byte)))?;
    let behind = end.div_ceil(8) * 8 - end;
    // Of the last byte, only the higher bits may belong to it.
    whole.checked_mul(1 << (8 - behind)).map(|sum| sum | last >> behind)
}

pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..)?.first_chunk().map(|bytes| u128::from(u16::from_be_bytes(*bytes)))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u128> {
    bytes.get(at..)?.first_chunk().map(|bytes| u128::from(u32::from_be_bytes(*bytes)))
}
