//! Reading the packet inside of a tunnel's packet (nft_inner): its headers are found anew for each field, and a packet that does not have them does not match.
use super::header_bits::{be16, extract_bits};
use super::header_fields::{eval_ip4, eval_ip6, eval_transport_bits, gre_header_length};
use crate::ast::{Endpoint, Tunnel, TunnelField, TunnelPart};
use keepstate_wire::{Family, Packet};

/// Length of an Ethernet header, and of a VLAN tag behind it.
const LINK_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// Type of a frame with a VLAN tag.
const VLAN_TYPE: u128 = 0x8100;
/// Where a frame has its type.
const TYPE_AT: usize = 12;
const UDP_HEADER: usize = 8;
/// Length of VXLAN's header, and of Geneve's without its options.
const TUNNEL_HEADER: usize = 8;

/// The value of the field; `None` where the packet does not have it.
pub(super) fn eval_tunnel(field: TunnelField, packet: &Packet<'_>) -> Option<u128> {
    let (header, inside) = tunnel_parts(field.tunnel, packet)?;
    if let TunnelPart::Header(bits, _) = field.part {
        return extract_bits(header, bits);
    }
    if let TunnelPart::Link(bits, _) = field.part {
        let is_tag = usize::from(bits.offset) >= LINK_HEADER * 8;
        return if is_tag && be16(inside, TYPE_AT)? != VLAN_TYPE { None } else { extract_bits(inside, bits) };
    }
    let inner = Packet::parse(network_header(field.tunnel, inside)?).ok()?;
    match field.part {
        TunnelPart::Ip(of) if inner.family() == Family::V4 => eval_ip4(&inner, of),
        TunnelPart::Ip6(of) if inner.family() == Family::V6 => eval_ip6(&inner, of),
        TunnelPart::Port(protocol, end) if protocol.is_none_or(|one| one == inner.protocol()) => {
            be16(inner.transport(), if end == Endpoint::Source { 0 } else { 2 })
        }
        TunnelPart::Transport(of) => eval_transport_bits(&of, &inner),
        _ => None,
    }
}

/// The tunnel's header, and what it carries.
fn tunnel_parts<'a>(tunnel: Tunnel, packet: &Packet<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let transport = packet.transport();
    if tunnel.is_udp() {
        let header = transport.get(UDP_HEADER..).filter(|_| packet.protocol() == 17)?;
        // The low six bits of Geneve's first byte count words of options (RFC 8926, 3.4).
        let options = if tunnel == Tunnel::Geneve { usize::from(header.first()? & 0x3f) * 4 } else { 0 };
        return Some((header, header.get(TUNNEL_HEADER + options..)?));
    }
    Some((transport, transport.get(gre_header_length(transport).filter(|_| packet.protocol() == 47)?..)?))
}

/// The IP packet in what the tunnel carries.
fn network_header(tunnel: Tunnel, inside: &[u8]) -> Option<&[u8]> {
    if !tunnel.carries_frames() {
        return Some(inside);
    }
    let tagged = be16(inside, TYPE_AT)? == VLAN_TYPE;
    let at = LINK_HEADER + if tagged { VLAN_TAG } else { 0 };
    matches!(be16(inside, at - 2)?, 0x0800 | 0x86dd).then(|| inside.get(at..)).flatten()
}
