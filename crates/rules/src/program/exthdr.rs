//! Searching options, extension headers and chunks.
use super::header_bits::extract_bits;
use crate::ast::{ExthdrField, ExthdrOp};
use keepstate_wire::{Family, Packet, rewrite};

/// Whether it exists (0 or 1), or bits of it; `None` where the rule does not match.
pub(super) fn eval_exthdr(piece: ExthdrField, packet: &Packet<'_>) -> Option<u128> {
    let found = match piece.op {
        ExthdrOp::TcpOptions => {
            (packet.protocol() == 6).then(|| tcp_option(packet.transport(), piece.number)).flatten()
        }
        ExthdrOp::SctpChunks => {
            (packet.protocol() == 132).then(|| sctp_chunk(packet.transport(), piece.number)).flatten()
        }
        ExthdrOp::DccpOptions => {
            (packet.protocol() == 33).then(|| dccp_option(packet.transport(), piece.number)).flatten()
        }
        ExthdrOp::Ip4Options if packet.family() == Family::V4 => ip4_option(packet, piece.number),
        ExthdrOp::Ipv6ExtHeaders if packet.family() == Family::V6 => packet.find_exthdr(piece.number),
        ExthdrOp::Ip4Options | ExthdrOp::Ipv6ExtHeaders => return None,
    };
    match piece.bits {
        None => Some(found.is_some().into()),
        // As in Linux: a truncated chunk exists, but has no readable fields.
        Some(_) if piece.op == ExthdrOp::SctpChunks && found?.len() < sctp_chunk_length(found?) => None,
        Some(bits) => extract_bits(found?, bits),
    }
}

/// A TCP option including kind and length; `None` if it is missing or exceeds the header.
fn tcp_option(segment: &[u8], number: u8) -> Option<&[u8]> {
    let length = usize::from(segment.get(12)? >> 4) * 4;
    segment.get(..length)?.get(rewrite::find_tcp_option(segment, number, 0)?)
}

/// A DCCP option, from its type on (RFC 4340, 5.1, 5.3 and 5.8).
fn dccp_option(packet: &[u8], number: u8) -> Option<&[u8]> {
    let &[doff, _, _, _, kind] = packet.get(4..)?.first_chunk()?;
    let extended = kind & 1 == 1;
    let acknowledgement = if extended { 8 } else { 4 };
    let fields = match kind >> 1 & 15 {
        // Request, Response, Data, Reset; all others have an acknowledgement number alone.
        0 => 4,
        1 | 7 => acknowledgement + 4,
        2 => 0,
        _ => acknowledgement,
    };
    let mut rest = packet.get(if extended { 16 } else { 12 } + fields..usize::from(doff) * 4)?;
    loop {
        let kind = *rest.first()?;
        if kind == number {
            return Some(rest);
        }
        // Options below 32 have one byte.
        let length = if kind < 32 { 1 } else { usize::from(*rest.get(1)?).max(2) };
        rest = rest.get(length..)?;
    }
}

/// Are all options of this number complete, so that they can be removed?
pub(super) fn can_be_stripped(segment: &[u8], number: u8) -> bool {
    let length = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let mut from = 0;
    while let Some(option) = rewrite::find_tcp_option(segment, number, from) {
        if option.end > length {
            return false;
        }
        from = option.end;
    }
    true
}

/// An SCTP chunk including its header.
fn sctp_chunk(packet: &[u8], number: u8) -> Option<&[u8]> {
    let mut rest = packet.get(12..)?;
    loop {
        let &[kind, _, high, low] = rest.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 {
            return None;
        }
        if kind == number {
            return Some(rest.get(..length).unwrap_or(rest));
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// The length field of a chunk.
fn sctp_chunk_length(chunk: &[u8]) -> usize {
    chunk.first_chunk().map_or(usize::MAX, |&[_, _, high, low]| u16::from_be_bytes([high, low]).into())
}

/// An IPv4 option including type and length.
fn ip4_option<'a>(packet: &Packet<'a>, number: u8) -> Option<&'a [u8]> {
    let header = packet.bytes();
    let length = usize::from(header.first()? & 15) * 4;
    let mut rest = header.get(20..length)?;
    loop {
        let length = match *rest {
            [1, ..] => 1,
            [kind, length, ..] if kind >= 2 && length >= 2 => usize::from(length),
            _ => return None,
        };
        let (option, behind) = rest.split_at_checked(length)?;
        if option.first() == Some(&number) {
            return Some(option);
        }
        rest = behind;
    }
}
