//! What a router answers to a dropped packet: ICMP errors (RFC 1812, 4.3; RFC 4443, 2.4) and TCP resets (RFC 9293, 3.5.2).
use keepstate_wire::checksum::{Sum, internet, update_u16};
use keepstate_wire::{Addresses, Family, Packet, tcp::TcpFlags, tcp::TcpSegment};
use std::net::IpAddr;

/// The longest ICMPv4 error (RFC 1812, 4.3.2.3).
const MAX_ICMPV4_LEN: usize = 576;
/// The longest ICMPv6 error: the minimum MTU (RFC 4443, 2.4 (c)).
const MAX_ICMPV6_LEN: usize = 1280;
/// The TTL or hop limit of packets we send.
const DEFAULT_TTL: u8 = 64;

/// An ICMP error about `packet`, from `us`. `word` is the second word of the ICMP header: a path's MTU, or 0. `None` where no error may be sent: about an ICMP error, about a fragment
/// that is not the first, to an unspecified source, or about a packet to several hosts.
pub(crate) fn build_icmp_error(packet: &Packet<'_>, us: IpAddr, kind: u8, code: u8, word: u32) -> Option<Vec<u8>> {
    let (to, at) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
        Addresses::V6 { source, destination } => (IpAddr::from(source), IpAddr::from(destination)),
    };
    let too_big = packet.family() == Family::V6 && kind == 2;
    let bad_source = to.is_unspecified() || to.is_multicast() || matches!(to, IpAddr::V4(to) if to.is_broadcast());
    let multiple = (at.is_multicast() || matches!(at, IpAddr::V4(at) if at.is_broadcast())) && !too_big;
    if bad_source || multiple || packet.fragment().is_some_and(|fragment| fragment.offset != 0) || is_icmp_error(packet)
    {
        return None;
    }
    let (header, most) = if packet.family() == Family::V4 { (20, MAX_ICMPV4_LEN) } else { (40, MAX_ICMPV6_LEN) };
    let quote = packet.bytes();
    let quote = quote.get(..quote.len().min(most - header - 8))?;
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quote);
    let protocol = if packet.family() == Family::V4 { 1 } else { 58 };
    finish_ip_packet(us, to, protocol, message, 2, icmp_error_tos(packet))
}

/// The TOS of an ICMP error: over IPv4 it has the precedence of internetwork control.
fn icmp_error_tos(packet: &Packet<'_>) -> u8 {
    match packet.family() {
        Family::V4 => packet.bytes().get(1).map_or(0, |class| class & 0x1e) | 0xc0,
        Family::V6 => 0,
    }
}

/// The answer to an ICMP or ICMPv6 echo request (RFC 1122, 3.2.2.6; RFC 4443, 4.2). `None` for any other message, and with a wrong checksum.
pub(crate) fn build_echo_reply(packet: &Packet<'_>, us: IpAddr) -> Option<Vec<u8>> {
    let (request, reply) = if packet.family() == Family::V4 { (8, 0) } else { (128, 129) };
    let bytes = packet.bytes();
    let to = match packet.addresses() {
        Addresses::V4 { source, .. } => IpAddr::from(source),
        Addresses::V6 { source, .. } => IpAddr::from(source),
    };
    let mut message = packet.transport().to_vec();
    if message.len() < 8 || message.first() != Some(&request) || !packet.transport_checksum_ok() {
        return None;
    }
    *message.first_mut()? = reply;
    message.get_mut(2..4)?.fill(0);
    let class = match packet.family() {
        Family::V4 => *bytes.get(1)?,
        Family::V6 => bytes.first()? << 4 | bytes.get(1)? >> 4,
    };
    finish_ip_packet(us, to, packet.protocol(), message, 2, class)
}

fn is_icmp_error(packet: &Packet<'_>) -> bool {
    let kind = packet.transport().first().copied();
    match (packet.protocol(), kind) {
        // Queries and their answers; every other type is, or may be, an error.
        (1, Some(kind)) => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        (58, Some(kind)) => kind < 128,
        (1 | 58, None) => true,
        _ => false,
    }
}

/// Is the transport checksum correct? Linux checks protocols it does not know as if they had such a checksum too, and drops without an answer
/// what does not pass.
pub(crate) fn checksum_ok(packet: &Packet<'_>) -> bool {
    match packet.protocol() {
        // Optional, partial, or another kind of checksum.
        33 | 47 | 50 | 51 | 132 | 136 => true,
        6 | 17 | 1 | 58 => packet.transport_checksum_ok(),
        protocol => {
            let mut sum = Sum::new();
            if packet.family() == Family::V6 {
                let length = u16::try_from(packet.transport_len()).unwrap_or(u16::MAX);
                sum = sum
                    .add_bytes(packet.bytes().get(8..40).unwrap_or_default())
                    .add_bytes(&length.to_be_bytes())
                    .add_bytes(&[0, protocol]);
            }
            sum.add_bytes(packet.transport()).finish() == 0
        }
    }
}

/// A TCP reset for the connection of `packet`, as the other end would send it. `None` where none may be sent.
pub(crate) fn build_tcp_reset(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let segment = TcpSegment::parse(packet.transport(), packet.transport_len()).ok()?;
    if segment.flags.any(TcpFlags::RST) || !packet.transport_checksum_ok() {
        return None;
    }
    let (us, to) = match packet.addresses() {
        Addresses::V4 { source, destination } => (IpAddr::from(destination), IpAddr::from(source)),
        Addresses::V6 { source, destination } => (IpAddr::from(destination), IpAddr::from(source)),
    };
    // As in Linux (nf_send_reset, nf_send_reset6): of one host to one host.
    let is_unicast = |address: IpAddr| {
        !(address.is_unspecified()
            || address.is_multicast()
            || matches!(address, IpAddr::V4(address) if address.is_broadcast()))
    };
    if !is_unicast(us) || !is_unicast(to) {
        return None;
    }
    let (seq, ack, flags) = if segment.flags.any(TcpFlags::ACK) {
        (segment.ack, 0, TcpFlags::RST)
    } else {
        let length = segment.data_len
            + usize::from(segment.flags.any(TcpFlags::SYN))
            + usize::from(segment.flags.any(TcpFlags::FIN));
        // Sequence numbers are counted modulo 2^32.
        (0, segment.seq.wrapping_add(length as u32), TcpFlags::RST | TcpFlags::ACK)
    };
    let mut message = Vec::with_capacity(20);
    message.extend(segment.destination.to_be_bytes());
    message.extend(segment.source.to_be_bytes());
    message.extend(seq.to_be_bytes());
    message.extend(ack.to_be_bytes());
    message.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    build_tcp_segment(us, to, message)
}

/// A packet of our own with this TCP segment, whose checksum is filled in. It must not be fragmented.
pub(crate) fn build_tcp_segment(from: IpAddr, to: IpAddr, segment: Vec<u8>) -> Option<Vec<u8>> {
    const DONT_FRAGMENT: u16 = 0x4000;
    let mut packet = finish_ip_packet(from, to, 6, segment, 16, 0)?;
    if from.is_ipv4() {
        packet.get_mut(6..8)?.copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        let check = u16::from_be_bytes([*packet.get(10)?, *packet.get(11)?]);
        packet.get_mut(10..12)?.copy_from_slice(&update_u16(check, 0, DONT_FRAGMENT).to_be_bytes());
    }
    Some(packet)
}

/// Adds the IP header and the checksums; the message's checksum field is at `check_at`.
fn finish_ip_packet(
    us: IpAddr,
    to: IpAddr,
    protocol: u8,
    mut message: Vec<u8>,
    check_at: usize,
    class: u8,
) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    let mut packet = match (us, to) {
        (IpAddr::V4(us), IpAddr::V4(to)) => {
            let mut header = vec![0x45, class];
            header.extend(length.checked_add(20)?.to_be_bytes());
            header.extend([0, 0, 0, 0, DEFAULT_TTL, protocol, 0, 0]);
            header.extend(us.octets());
            header.extend(to.octets());
            let sum = internet(&header);
            header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(us), IpAddr::V6(to)) => {
            let mut header = vec![0x60 | class >> 4, class << 4, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, DEFAULT_TTL]);
            header.extend(us.octets());
            header.extend(to.octets());
            header
        }
        _ => return None,
    };
    let mut sum = Sum::new();
    if protocol != 1 {
        let addresses = if packet.len() == 20 { 12..20 } else { 8..40 };
        sum = sum.add_bytes(packet.get(addresses)?).add_bytes(&[0, protocol]).add_bytes(&length.to_be_bytes());
    }
    let check = sum.add_bytes(&message).finish();
    message.get_mut(check_at..check_at + 2)?.copy_from_slice(&check.to_be_bytes());
    packet.extend(message);
    Some(packet)
}
