use super::*;
use crate::{icmp, tcp, udp};
use alloc::vec::Vec;
use etherparse::PacketBuilder;

fn tcp_v4() -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ipv4([10, 1, 0, 2], [10, 2, 0, 9], 64)
        .tcp(40000, 1883, 100, 64240)
        .syn()
        .write(&mut bytes, b"hello")
        .unwrap();
    bytes
}

#[test]
fn parses_ipv4_tcp_segment() {
    let bytes = tcp_v4();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.family(), Family::V4);
    assert_eq!(packet.addresses(), Addresses::V4 { source: [10, 1, 0, 2], destination: [10, 2, 0, 9] });
    assert_eq!(packet.protocol(), 6);
    assert_eq!(packet.total_len(), 45);
    assert_eq!(packet.transport_len(), 25);
    assert_eq!(packet.ports(), Some((40000, 1883)));
    assert_eq!(packet.fragment(), None);
    assert!(packet.transport_checksum_ok());
    let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
    assert_eq!((segment.seq, segment.window, segment.flags.0), (100, 64240, tcp::TcpFlags::SYN));
    assert_eq!((segment.data, segment.data_len), (&b"hello"[..], 5));
}

#[test]
fn any_flipped_byte_breaks_the_transport_checksum() {
    let bytes = tcp_v4();
    for at in 20..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        assert!(!Packet::parse(&broken).unwrap().transport_checksum_ok(), "byte {at}");
    }
}

#[test]
fn udp_and_icmp_checksums_verify_in_ipv4_and_ipv6() {
    let mut v4 = Vec::new();
    PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(53, 5353).write(&mut v4, b"odd").unwrap();
    let packet = Packet::parse(&v4).unwrap();
    assert!(packet.transport_checksum_ok());
    assert_eq!(udp::UdpHeader::parse(packet.transport(), packet.transport_len()).unwrap().length, 11);
    let mut v6 = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(7, 1).write(&mut v6, b"ping!").unwrap();
    let packet = Packet::parse(&v6).unwrap();
    assert!(packet.transport_checksum_ok());
    assert_eq!(icmp::IcmpMessage::parse(packet.transport()).unwrap().id, 7);
    v6[50] ^= 1;
    assert!(!Packet::parse(&v6).unwrap().transport_checksum_ok());
}

#[test]
fn link_padding_is_trimmed() {
    let mut bytes = tcp_v4();
    bytes.extend([0xaa; 6]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.bytes().len(), 45);
    assert!(packet.transport_checksum_ok());
}

/// An IPv4 header of `len` bytes in all, with a right checksum, and what follows it.
fn v4(edit: impl Fn(&mut [u8]), header_len: usize, total: u16, after: &[u8]) -> Vec<u8> {
    let mut bytes = [0x45, 0, 0, 0, 0, 1, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2].to_vec();
    bytes.resize(header_len, 1);
    bytes[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    edit(&mut bytes);
    let check = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend(after);
    bytes
}

fn v6(next: u8, after: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0x60, 0, 0, 0], &u16::try_from(after.len()).unwrap().to_be_bytes()[..], &[next, 64]].concat();
    bytes.extend([0xfd; 32]);
    bytes.extend(after);
    bytes
}

fn parse_error(bytes: &[u8]) -> Option<ParseError> {
    Packet::parse(bytes).err()
}

#[test]
fn each_malformed_ipv4_header_gives_its_own_error() {
    assert_eq!(parse_error(&[]), Some(ParseError::Empty));
    assert_eq!(parse_error(&[0x50; 40]), Some(ParseError::Version));
    assert_eq!(parse_error(&v4(|_| (), 20, 20, &[])[..19]), Some(ParseError::HeaderTruncated));
    assert_eq!(parse_error(&v4(|_| (), 24, 24, &[])[..23]), Some(ParseError::HeaderTruncated));
    assert_eq!(parse_error(&v4(|h| h[0] = 0x44, 20, 20, &[])), Some(ParseError::HeaderLength));
    assert_eq!(parse_error(&v4(|_| (), 24, 23, &[])), Some(ParseError::TotalLength));
    assert_eq!(parse_error(&v4(|_| (), 20, 21, &[])), Some(ParseError::Truncated));
    let mut bytes = v4(|_| (), 60, 64, &[1, 2, 3, 4]);
    assert_eq!(parse_error(&bytes), None);
    bytes[59] ^= 1;
    assert_eq!(parse_error(&bytes), Some(ParseError::HeaderChecksum));
}

#[test]
fn ipv4_options_shift_the_transport_offset() {
    let bytes = v4(|h| h[20..24].copy_from_slice(&[148, 4, 0, 0]), 24, 26, &[8, 9]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.transport(), packet.transport_at(), packet.transport_len()), (&[8, 9][..], 24, 2));
    assert_eq!(packet.options().map(|option| option.kind).collect::<Vec<_>>(), [148]);
    assert_eq!(packet.ports(), None);
}

#[test]
fn ipv4_fragment_is_detected_by_offset_or_more_fragments() {
    let fields = |word: u16| {
        let bytes = v4(|h| h[6..8].copy_from_slice(&word.to_be_bytes()), 20, 28, &[1, 2, 3, 4, 5, 6, 7, 8]);
        let packet = Packet::parse(&bytes).unwrap();
        (packet.fragment().map(|fragment| (fragment.id, fragment.offset, fragment.more)), packet.ports().is_some())
    };
    assert_eq!(fields(0xc000), (None, true), "neither the reserved bit nor don't-fragment");
    assert_eq!(fields(0x2000), (Some((1, 0, true)), true));
    assert_eq!(fields(0x2003), (Some((1, 24, true)), false));
    assert_eq!(fields(0x1fff), (Some((1, 65_528, false)), false));
}

#[test]
fn ipv6_extension_headers_are_skipped() {
    let skipped = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [&[6, 4][..], &[0; 22]].concat();
    let chain = [&skipped(60)[..], &skipped(43), &skipped(51), &authentication, &[1, 2, 3, 4]].concat();
    let bytes = v6(0, &chain);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.transport(), packet.ports()), (6, &[1, 2, 3, 4][..], Some((258, 772))));
    for len in 40..bytes.len() - 4 {
        let mut cut = bytes[..len].to_vec();
        cut[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
        let expected = if len < 48 { ParseError::HopByHopOptions } else { ParseError::ExtensionTruncated };
        assert_eq!(parse_error(&cut), Some(expected), "{len}");
    }
    assert_eq!(Packet::parse(&v6(60, &skipped(253))).map(|packet| packet.protocol()), Ok(253));
    let nothing_behind = v6(60, &skipped(59));
    assert_eq!(Packet::parse(&nothing_behind).map(|packet| packet.protocol()), Ok(59));
    assert_eq!(Packet::parse(&v6(59, &[])).map(|packet| packet.protocol()), Ok(59));
    assert_eq!(Packet::parse(&v6(50, &[0; 8])).map(|packet| packet.protocol()), Ok(50));
    assert_eq!(parse_error(&v6(0, &[])), Some(ParseError::HopByHopOptions));
    assert_eq!(parse_error(&v6(6, &[0; 8])[..47]), Some(ParseError::Truncated));
    assert_eq!(parse_error(&v6(6, &[])[..39]), Some(ParseError::HeaderTruncated));
}

/// Each was observed on Linux 6.18.
#[test]
fn ipv6_hop_by_hop_options_are_checked() {
    let packet = |options: &[u8]| {
        let length = u8::try_from((options.len() + 2) / 8 - 1).unwrap();
        v6(0, &[&[253, length], options, &[1, 2, 3, 4]].concat())
    };
    for good in [
        &[1, 4, 0, 0, 0, 0][..],
        &[0, 0, 0, 0, 0, 0],
        &[5, 2, 0, 0, 1, 0],
        &[0x1e, 4, 9, 9, 9, 9],
        &[0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0, 0x1e, 0],
    ] {
        assert_eq!(parse_error(&packet(good)), None, "{good:?}");
    }
    for malformed in [
        &[1, 4, 0, 0, 0, 1][..],
        &[1, 5, 0, 0, 0, 0],
        &[1, 3, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0],
        &[5, 3, 0, 0, 0, 0],
        &[0x5e, 4, 0, 0, 0, 0],
        &[0x9e, 4, 0, 0, 0, 0],
        &[0xde, 4, 0, 0, 0, 0],
        &[[0x1e, 0].repeat(9), [1, 2, 0, 0].to_vec()].concat(),
    ] {
        assert_eq!(parse_error(&packet(malformed)), Some(ParseError::HopByHopOptions), "{malformed:?}");
        // Linux tracks a packet with such options inside of its fragments.
        assert!(Packet::parse_reassembled(&packet(malformed)).is_ok(), "{malformed:?}");
    }
    assert_eq!(parse_error(&packet(&[194, 4, 0, 1, 0, 0])), Some(ParseError::Jumbogram));
    // A payload length of zero without that option: the length is the frame's.
    let mut unsized_packet = packet(&[1, 4, 0, 0, 0, 0]);
    unsized_packet[4..6].fill(0);
    assert_eq!(Packet::parse(&unsized_packet).map(|packet| (packet.total_len(), packet.transport_len())), Ok((52, 4)));
    assert_eq!(Packet::parse_snapped(&unsized_packet[..46], 52).err(), Some(ParseError::NotCaptured));
}

#[test]
fn what_is_left_to_the_network_card_is_not_an_error_in_an_unfinished_packet() {
    let mut bytes = tcp_v4();
    bytes[10..12].fill(0);
    assert_eq!(parse_error(&bytes), Some(ParseError::HeaderChecksum));
    let whole = |bytes: &[u8]| Packet::parse_unfinished(bytes, bytes.len()).map(|packet| packet.total_len());
    assert_eq!(whole(&bytes), Ok(45));
    bytes[2..4].fill(0);
    assert_eq!(whole(&bytes), Ok(45));
    let large = v6(6, &[0; 40]);
    let mut bytes = large.clone();
    bytes[4..6].fill(0);
    assert_eq!((Packet::parse(&bytes).map(|packet| packet.total_len()), whole(&bytes)), (Ok(40), Ok(80)));
}

#[test]
fn partial_checksums_are_recognized() {
    let mut bytes = tcp_v4();
    let partial = |bytes: &[u8]| Packet::parse(bytes).unwrap().has_partial_checksum();
    assert!(!partial(&bytes));
    // 10.1.0.2, 10.2.0.9, protocol 6, 25 bytes; and without the length.
    for sum in [0x0a01u16 + 2 + 0x0a02 + 9 + 6 + 25, 0x0a01 + 2 + 0x0a02 + 9 + 6] {
        bytes[36..38].copy_from_slice(&sum.to_be_bytes());
        assert!(partial(&bytes) && !Packet::parse(&bytes).unwrap().transport_checksum_ok());
        bytes[36..38].copy_from_slice(&(sum + 1).to_be_bytes());
        assert!(!partial(&bytes));
    }
}

#[test]
fn ipv6_fragment_is_detected_by_its_header_even_if_atomic() {
    let bytes = v6(60, &[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0x19, 0, 1, 0, 2, 9, 9]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.fragment(), Some(FragmentHeader { id: 0x10002, offset: 24, more: true }));
    assert_eq!((packet.protocol(), packet.transport()), (17, &[9, 9][..]));
    let atomic = v6(44, &[17, 0, 0, 0, 0, 0, 0, 7, 1, 2, 3, 4]);
    assert_eq!(Packet::parse(&atomic).unwrap().fragment(), Some(FragmentHeader { id: 7, offset: 0, more: false }));
    assert_eq!(Packet::parse_reassembled(&atomic).unwrap().fragment(), None);
}

#[test]
fn snapped_packet_keeps_its_wire_lengths() {
    let bytes = tcp_v4();
    let packet = Packet::parse_snapped(&bytes[..40], 45).unwrap();
    assert!(packet.is_snapped() && packet.transport_checksum_ok());
    assert_eq!((packet.total_len(), packet.transport_len(), packet.transport().len()), (45, 25, 20));
    let segment = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
    assert_eq!((segment.data_len, segment.data.len()), (5, 0));
    assert_eq!(Packet::parse_snapped(&bytes[..40], 44).err(), Some(ParseError::Truncated));
    assert_eq!(Packet::parse_snapped(&bytes[..19], 45).err(), Some(ParseError::NotCaptured));
}

/// Each line was observed on Linux 6.18, except for UDP-Lite: there the kernel sums UDP's number into the pseudo-header and finds
/// every packet that follows RFC 3828 wrong.
#[test]
fn udp_and_udp_lite_checksum_coverage() {
    let checksum_ok = |protocol: u8, transport: &[u8]| {
        let total = u16::try_from(20 + transport.len()).unwrap();
        Packet::parse(&v4(|h| h[9] = protocol, 20, total, transport)).unwrap().transport_checksum_ok()
    };
    let summed = |protocol: u8, length: u8, covered: usize| {
        let mut udp = [0, 1, 0, 2, 0, length, 0, 0, b'd', b'a', b't', b'a'];
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, protocol, 0, 12];
        let check = Sum::new().add_bytes(&pseudo).add_bytes(&udp[..covered]).finish();
        udp[6..8].copy_from_slice(&check.to_be_bytes());
        udp
    };
    assert!(checksum_ok(17, &summed(17, 12, 12)));
    // The pseudo-header has the length by the IP header, and the sum goes to the packet's end.
    assert!(checksum_ok(17, &summed(17, 10, 12)));
    assert!(!checksum_ok(17, &summed(17, 10, 10)));
    let mut unsummed = summed(17, 12, 12);
    unsummed[6..8].copy_from_slice(&[0, 0]);
    assert!(checksum_ok(17, &unsummed));
    assert!(checksum_ok(136, &summed(136, 0, 12)) && checksum_ok(136, &summed(136, 9, 9)));
    let mut uncovered = summed(136, 8, 8);
    uncovered[9] ^= 0xff;
    assert!(checksum_ok(136, &uncovered));
    uncovered[1] ^= 1;
    assert!(!checksum_ok(136, &uncovered));
}

#[test]
fn udp_over_ipv6_without_checksum_is_accepted_as_in_linux() {
    let mut bytes = v6(17, &[0, 1, 0, 2, 0, 8, 0, 0]);
    assert!(Packet::parse(&bytes).unwrap().transport_checksum_ok());
    bytes[47] = 1;
    assert!(!Packet::parse(&bytes).unwrap().transport_checksum_ok());
}

#[test]
fn display_is_one_line_with_ports_protocol_and_fragment() {
    let shown = |bytes: &[u8]| alloc::format!("{}", Packet::parse(bytes).unwrap());
    assert_eq!(shown(&tcp_v4()), "IPv4 TCP 10.1.0.2:40000 > 10.2.0.9:1883 length 45");
    let later_fragment = v4(|h| (h[6], h[7], h[9]) = (0x20, 2, 17), 20, 28, &[0; 8]);
    assert_eq!(shown(&later_fragment), "IPv4 UDP 10.0.0.1 > 10.0.0.2 length 28 fragment id 1 offset 16+");
    assert_eq!(
        shown(&v6(17, &[0, 7, 0, 9, 0, 8, 0, 0])),
        "IPv6 UDP [fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:7 > [fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:9 length 48"
    );
    assert_eq!(
        shown(&v6(253, &[1])),
        "IPv6 protocol 253 fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd > fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd length 41"
    );
}

#[test]
fn addresses_have_one_family_and_are_given_as_ip_addresses() {
    let (one, other) = ("10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    assert_eq!(Addresses::new(one, other), None);
    for address in [one, other] {
        let pair = Addresses::new(address, address).unwrap();
        assert_eq!(
            (pair.source(), pair.destination(), pair.family() == Family::V4),
            (address, address, address.is_ipv4())
        );
    }
}

/// The common cases have code of their own: it equals the sum over pseudo-header and transport, for every length and family.
#[test]
fn transport_checksum_equals_the_sum_over_everything() {
    for length in 0..200usize {
        for (protocol, at, ipv6) in [(6u8, 16, false), (6, 16, true), (17, 6, false), (17, 6, true)] {
            let mut transport: Vec<u8> = (0..length).map(|byte| (byte * 37 + 11) as u8).collect();
            let addresses: Vec<u8> = (0..if ipv6 { 32 } else { 8 }).map(|byte| (byte * 29 + 200) as u8).collect();
            let total = u16::try_from(length).unwrap();
            let pseudo = Sum::new().add_bytes(&addresses).add_u16(protocol.into()).add_u16(total);
            if length >= at + 2 {
                transport[at..at + 2].fill(0);
                let check = pseudo.add_bytes(&transport).finish();
                transport[at..at + 2].copy_from_slice(&check.to_be_bytes());
            }
            for broken in [None, Some(length.saturating_sub(1)), Some(length / 2)] {
                let mut transport = transport.clone();
                if let Some(byte) = broken.and_then(|at| transport.get_mut(at)) {
                    *byte ^= 0x10;
                }
                let [high, low] = total.to_be_bytes();
                let mut bytes = if ipv6 {
                    [&[0x60, 0, 0, 0, high, low, protocol, 64][..], &addresses].concat()
                } else {
                    let [high, low] = (20 + total).to_be_bytes();
                    [&[0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0][..], &addresses].concat()
                };
                if !ipv6 {
                    let check = checksum::internet(&bytes).to_be_bytes();
                    bytes[10..12].copy_from_slice(&check);
                }
                bytes.extend(&transport);
                let short = length < if protocol == 6 { 20 } else { 8 };
                let without = protocol == 17 && transport.get(6..8) == Some(&[0, 0]);
                let expected = short || without || pseudo.add_bytes(&transport).is_valid();
                let packet = Packet::parse(&bytes).unwrap();
                assert_eq!(packet.transport_checksum_ok(), expected, "{protocol} {length} {ipv6} {broken:?}");
            }
        }
    }
}
