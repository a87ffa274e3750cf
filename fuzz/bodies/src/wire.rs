//! Target `wire`: any bytes as a packet, and every view of it.

use keepstate_wire::{Family, InnerPacket, Packet, checksum, gre, icmp, sctp, tcp, udp};

/// Parses `data` as a packet, complete and truncated, and checks every view of it.
pub fn wire(data: &[u8]) {
    if let Ok(packet) = Packet::parse(data) {
        check_packet(&packet);
        assert!(packet.bytes().len() <= data.len());
        assert_eq!(packet.bytes().len(), packet.total_len(), "a datagram that is not snapped has all its bytes");
        // A packet accepted with trailing bytes must be accepted without them.
        let again = Packet::parse(packet.bytes()).expect("a datagram without its padding");
        assert_eq!(again.transport(), packet.transport());
        check_snapped(&packet);
    }
    if let Ok(packet) = Packet::parse_snapped(data, 65_575) {
        check_packet(&packet);
    }
    for family in [Family::V4, Family::V6] {
        if let Ok(quote) = InnerPacket::parse(data, family) {
            assert!(quote.transport.len() <= data.len());
            let _ = quote.ports();
        }
    }
    check_transport_views(data, data.len());
    check_incremental_checksum(data);
}

/// A truncated packet may show less, never something different.
fn check_snapped(packet: &Packet<'_>) {
    let kept = packet.bytes().len() / 2;
    if let Ok(snapped) = Packet::parse_snapped(&packet.bytes()[..kept], packet.total_len()) {
        check_packet(&snapped);
        assert_eq!(snapped.protocol(), packet.protocol());
        assert_eq!(snapped.addresses(), packet.addresses());
        assert_eq!(snapped.total_len(), packet.total_len());
        assert_eq!(snapped.transport_len(), packet.transport_len());
        assert!(packet.transport().starts_with(snapped.transport()));
    }
}

fn check_packet(packet: &Packet<'_>) {
    assert!(packet.transport().len() <= packet.transport_len());
    assert!(packet.transport_len() <= packet.total_len());
    let _ = (packet.addresses(), packet.family(), packet.ports(), packet.fragment(), packet.transport_checksum_ok());
    check_transport_views(packet.transport(), packet.transport_len());
    let quoted = packet.transport().get(8..).unwrap_or(&[]);
    let _ = InnerPacket::parse(quoted, packet.family());
}

/// `transport` parsed as each protocol, whatever the IP header's protocol is.
fn check_transport_views(transport: &[u8], transport_len: usize) {
    if let Ok(segment) = tcp::TcpSegment::parse(transport, transport_len) {
        assert!(segment.data.len() <= segment.data_len);
        let _ = (segment.syn_options(), segment.highest_sack(segment.ack));
    }
    if let Ok(header) = udp::UdpHeader::parse(transport, transport_len) {
        assert!(usize::from(header.length) <= transport_len);
    }
    let _ = udp::UdpHeader::parse_lite(transport, transport_len);
    let _ = icmp::IcmpMessage::parse(transport);
    let _ = gre::GreHeader::parse(transport);
    if let Ok(header) = sctp::SctpHeader::parse(transport) {
        let taken: usize = header.chunks().flatten().map(|chunk| 4 + chunk.value.len()).sum();
        assert!(taken <= header.chunks.len(), "chunks larger than what they were read from");
    }
}

/// An incremental update must equal a full checksum.
fn check_incremental_checksum(data: &[u8]) {
    let Some((&[a, b, c, d], rest)) = data.split_first_chunk::<4>() else { return };
    let (old, new) = ([a, b], [c, d]);
    let before = checksum::internet(&[&old, rest].concat());
    let after = checksum::internet(&[&new, rest].concat());
    let updated = checksum::update(before, &old, &new);
    // Ones' complement has two zeros; the checksum of bytes that are not all zero always uses the same one.
    if rest.iter().chain(&old).any(|&byte| byte != 0) && rest.iter().chain(&new).any(|&byte| byte != 0) {
        assert_eq!(updated, after, "update of {before:04x}");
    }
}
