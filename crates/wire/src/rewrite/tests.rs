use super::*;
use crate::{Addresses, Family, Packet, checksum};
use alloc::vec::Vec;
use etherparse::{PacketBuilder, PacketBuilderStep, ip_number};

const NEW_V4: Addresses = Addresses::V4 { source: [198, 51, 100, 7], destination: [203, 0, 113, 255] };
const NEW_V6: Addresses = Addresses::V6 { source: [0x20; 16], destination: [0xff; 16] };

fn v4() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
}

fn v6() -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ipv6([1; 16], [2; 16], 64)
}

fn checksum_ok(bytes: &[u8]) -> bool {
    Packet::parse(bytes).is_ok_and(|packet| packet.transport_checksum_ok())
}

/// Packets with correct checksums, built by another implementation (etherparse).
fn samples() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for data in [&b""[..], b"x", b"odd", b"some data"] {
        let mut out = [const { Vec::new() }; 6];
        v4().tcp(40000, 80, 1, 2).syn().write(&mut out[0], data).unwrap();
        v6().tcp(40000, 80, 1, 2).syn().write(&mut out[1], data).unwrap();
        v4().udp(40000, 53).write(&mut out[2], data).unwrap();
        v6().udp(40000, 53).write(&mut out[3], data).unwrap();
        v4().icmpv4_echo_request(7, 8).write(&mut out[4], data).unwrap();
        v6().icmpv6_echo_request(7, 8).write(&mut out[5], data).unwrap();
        all.extend(out);
    }
    all
}

#[test]
fn checksums_are_updated_and_rewriting_back_restores_the_packet() {
    for original in samples() {
        assert!(checksum_ok(&original));
        let before = Packet::parse(&original).unwrap();
        let (new, ports, id) = match before.family() {
            Family::V4 => (NEW_V4, before.ports().unwrap(), 0xffff),
            Family::V6 => (NEW_V6, before.ports().unwrap(), 0),
        };
        let mut bytes = original.clone();
        let mut rewrite = PacketMut::new(&mut bytes).unwrap();
        assert!(rewrite.set_addresses(new));
        let has_ports = rewrite.set_ports(1024, 65535);
        assert_eq!(rewrite.set_icmp_id(id), !has_ports);
        let after = Packet::parse(&bytes).unwrap();
        assert_eq!(after.addresses(), new);
        assert!(after.transport_checksum_ok(), "{bytes:?}");
        assert!(!has_ports || after.ports() == Some((1024, 65535)));

        let mut rewrite = PacketMut::new(&mut bytes).unwrap();
        rewrite.set_addresses(before.addresses());
        if has_ports {
            rewrite.set_ports(ports.0, ports.1);
        } else {
            rewrite.set_icmp_id(7);
        }
        assert_eq!(bytes, original);
    }
}

#[test]
fn wrong_checksum_stays_wrong_after_rewrite() {
    for mut bytes in samples() {
        *bytes.last_mut().unwrap() ^= 0x40;
        let mut rewrite = PacketMut::new(&mut bytes).unwrap();
        rewrite.set_addresses(NEW_V4);
        rewrite.set_addresses(NEW_V6);
        rewrite.set_ports(9, 10);
        assert!(!checksum_ok(&bytes));
    }
}

#[test]
fn udp_zero_checksum_is_kept_and_computed_zero_is_written_as_ffff() {
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"data").unwrap();
    bytes[26..28].copy_from_slice(&[0, 0]);
    PacketMut::new(&mut bytes).unwrap().set_ports(3, 4);
    assert_eq!(bytes[26..28], [0, 0]);

    // Of all source ports one makes the sum come out as zero.
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"data").unwrap();
    let mut ones = 0;
    for port in 0..=u16::MAX {
        PacketMut::new(&mut bytes).unwrap().set_ports(port, 2);
        assert_ne!(bytes[26..28], [0, 0], "port {port}");
        assert!(checksum_ok(&bytes));
        ones += u32::from(bytes[26..28] == [0xff, 0xff]);
    }
    assert!(ones > 0);
}

#[test]
fn sctp_crc32c_is_recomputed() {
    let mut bytes = Vec::new();
    let sctp = [0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0, 4];
    v4().write(&mut bytes, ip_number::SCTP, &sctp).unwrap();
    assert!(!checksum_ok(&bytes));
    assert!(PacketMut::new(&mut bytes).unwrap().set_ports(5, 6));
    assert!(checksum_ok(&bytes));
    let whole = bytes.len();
    assert!(!PacketMut::new_snapped(&mut bytes[..whole - 1], whole).unwrap().set_ports(7, 8), "not without all of it");
    assert!(PacketMut::new(&mut bytes).unwrap().set_addresses(NEW_V4));
    assert!(checksum_ok(&bytes));
}

#[test]
fn later_fragment_allows_only_address_rewrite() {
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"datadata").unwrap();
    bytes[7] = 1;
    bytes[10..12].copy_from_slice(&[0, 0]);
    let check = checksum::internet(&bytes[..20]);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    let payload = bytes[20..].to_vec();
    let mut rewrite = PacketMut::new(&mut bytes).unwrap();
    assert!(rewrite.set_addresses(NEW_V4));
    assert!(!rewrite.set_ports(9, 9) && !rewrite.set_icmp_id(9) && !rewrite.set_addresses(NEW_V6));
    assert_eq!(bytes[20..], payload);
    assert_eq!(Packet::parse(&bytes).unwrap().addresses(), NEW_V4);
}

/// An ICMP error with `len` bytes of `original` inside, and a correct checksum.
fn icmp_error(original: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let inner = &original[..len.min(original.len())];
    if original[0] >> 4 == 4 {
        v4().icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, inner).unwrap();
    } else {
        v6().icmpv6_raw(1, 0, [0; 4]).write(&mut bytes, inner).unwrap();
    }
    bytes
}

#[test]
fn icmp_inner_rewrite_updates_inner_and_outer_checksums() {
    for inner in samples() {
        let is_v4 = inner[0] >> 4 == 4;
        let (new, header, outer) = if is_v4 { (NEW_V4, 20, 28) } else { (NEW_V6, 40, 48) };
        for len in [header, header + 4, header + 7, header + 8, inner.len()] {
            let mut bytes = icmp_error(&inner, len);
            assert!(checksum_ok(&bytes));
            let before = Packet::parse(&inner).unwrap();
            let is_icmp = matches!(before.protocol(), 1 | 58);
            let changed = PacketMut::new(&mut bytes).unwrap().edit_icmp_inner(|inner| {
                assert!(inner.set_addresses(new));
                let has_room = len >= header + if is_icmp { 6 } else { 4 };
                assert_eq!(if is_icmp { inner.set_icmp_id(99) } else { inner.set_ports(1024, 9) }, has_room);
            });
            assert!(changed && checksum_ok(&bytes), "{len} bytes of {inner:?}");
            if len == inner.len() {
                let after = Packet::parse(&bytes[outer..]).unwrap();
                assert_eq!(after.addresses(), new);
                assert!(after.transport_checksum_ok(), "{inner:?}");
            }
        }
    }
}

#[test]
fn packet_without_icmp_inner_is_left_unchanged() {
    let mut plain = samples().swap_remove(0);
    let before = plain.clone();
    assert!(!PacketMut::new(&mut plain).unwrap().edit_icmp_inner(|_| unreachable!()));
    assert_eq!(plain, before);
    let mut short = icmp_error(&before, 19);
    assert!(!PacketMut::new(&mut short).unwrap().edit_icmp_inner(|_| unreachable!()));
    assert!(checksum_ok(&short));
}

#[test]
fn mangle_tcp_payload_and_adjust_seq_keep_checksums_valid() {
    let builders = [v4().tcp(21, 4000, 7, 9).ack(9), v6().tcp(21, 4000, 7, 9).ack(9)];
    for builder in builders {
        let mut sent = Vec::new();
        builder.ack(9).write(&mut sent, b"PORT 1,2 now").unwrap();
        for with in [&b"longer than before"[..], b"1", b"", b"odd"] {
            let mut segment = sent.clone();
            segment.extend([0; 3]);
            assert!(mangle_tcp_payload(&mut segment, 5..8, with));
            let packet = Packet::parse(&segment).unwrap();
            assert_eq!(packet.total_len(), sent.len() - 3 + with.len());
            assert!(
                checksum_ok(&segment) && (packet.family() == Family::V6 || checksum::internet(&segment[..20]) == 0)
            );
            assert_eq!(&segment[segment.len() - with.len() - 4..], [with, &b" now"[..]].concat());
        }
        let (mut segment, before) = (sent.clone(), sent.clone());
        assert!(!mangle_tcp_payload(&mut segment, 5..13, b"beyond") && segment == before);
        assert!(!mangle_tcp_payload(&mut segment, 5..8, &[0; 65_535]) && segment == before);
        let mut rewrite = PacketMut::new(&mut segment).unwrap();
        assert!(rewrite.adjust_seq(|seq| seq + 0x1_0000, |ack| ack.wrapping_sub(10)));
        assert!(checksum_ok(&segment));
        let packet = Packet::parse(&segment).unwrap();
        let view = crate::tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
        assert_eq!((view.seq, view.ack), (0x1_0007, u32::MAX));
    }
}

#[test]
fn sack_blocks_are_adjusted_at_any_alignment() {
    use etherparse::TcpOptionElement::{Noop, SelectiveAcknowledgement, Timestamp};
    let blocks = SelectiveAcknowledgement((100, 200), [Some((300, 400)), None, None]);
    for options in [&[Noop, Noop, blocks.clone()][..], &[Noop, blocks.clone()], &[Timestamp(1, 2), blocks.clone()]] {
        let mut segment = Vec::new();
        v4().tcp(21, 4000, 7, 50).ack(50).options(options).unwrap().write(&mut segment, b"").unwrap();
        assert!(PacketMut::new(&mut segment).unwrap().adjust_seq(|seq| seq, |ack| ack + 5));
        assert!(checksum_ok(&segment));
        let packet = Packet::parse(&segment).unwrap();
        let view = crate::tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
        let read: Vec<_> = view
            .options()
            .filter_map(|option| match option {
                crate::tcp::TcpOption::Sack(blocks) => Some(blocks.collect::<Vec<_>>()),
                _ => None,
            })
            .collect();
        assert_eq!((view.ack, read), (55, alloc::vec![alloc::vec![(105, 205), (305, 405)]]));
    }
    // An option that ends nowhere.
    let mut segment = Vec::new();
    v4().tcp(21, 4000, 7, 50).ack(50).options_raw(&[1, 1, 5, 30]).unwrap().write(&mut segment, b"").unwrap();
    assert!(!PacketMut::new(&mut segment).unwrap().adjust_seq(|seq| seq, |ack| ack + 5));
}
