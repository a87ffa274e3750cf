use super::*;
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

fn is_right(bytes: &[u8]) -> bool {
    Packet::parse(bytes).is_ok_and(|packet| packet.transport_checksum_ok())
}

/// Datagrams with right checksums, by way of an implementation that is not ours.
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
fn checksums_follow_every_change_and_go_back_with_it() {
    for original in samples() {
        assert!(is_right(&original));
        let before = Packet::parse(&original).unwrap();
        let (new, ports, id) = match before.family() {
            Family::V4 => (NEW_V4, before.ports().unwrap(), 0xffff),
            Family::V6 => (NEW_V6, before.ports().unwrap(), 0),
        };
        let mut bytes = original.clone();
        let mut rewrite = Rewrite::new(&mut bytes).unwrap();
        assert!(rewrite.addresses(new));
        let has_ports = rewrite.ports(1024, 65535);
        assert_eq!(rewrite.icmp_id(id), !has_ports);
        let after = Packet::parse(&bytes).unwrap();
        assert_eq!(after.addresses(), new);
        assert!(after.transport_checksum_ok(), "{bytes:?}");
        assert!(!has_ports || after.ports() == Some((1024, 65535)));

        let mut rewrite = Rewrite::new(&mut bytes).unwrap();
        rewrite.addresses(before.addresses());
        if has_ports {
            rewrite.ports(ports.0, ports.1);
        } else {
            rewrite.icmp_id(7);
        }
        assert_eq!(bytes, original);
    }
}

#[test]
fn a_wrong_checksum_is_not_made_right() {
    for mut bytes in samples() {
        *bytes.last_mut().unwrap() ^= 0x40;
        let mut rewrite = Rewrite::new(&mut bytes).unwrap();
        rewrite.addresses(NEW_V4);
        rewrite.addresses(NEW_V6);
        rewrite.ports(9, 10);
        assert!(!is_right(&bytes));
    }
}

#[test]
fn udp_without_a_checksum_stays_without_and_a_computed_zero_is_written_as_ones() {
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"data").unwrap();
    bytes[26..28].copy_from_slice(&[0, 0]);
    Rewrite::new(&mut bytes).unwrap().ports(3, 4);
    assert_eq!(bytes[26..28], [0, 0]);

    // Of all source ports one makes the sum come out as zero.
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"data").unwrap();
    let mut ones = 0;
    for port in 0..=u16::MAX {
        Rewrite::new(&mut bytes).unwrap().ports(port, 2);
        assert_ne!(bytes[26..28], [0, 0], "port {port}");
        assert!(is_right(&bytes));
        ones += u32::from(bytes[26..28] == [0xff, 0xff]);
    }
    assert!(ones > 0);
}

#[test]
fn sctp_is_summed_anew() {
    let mut bytes = Vec::new();
    let sctp = [0, 1, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0, 4];
    v4().write(&mut bytes, ip_number::SCTP, &sctp).unwrap();
    assert!(!is_right(&bytes));
    assert!(Rewrite::new(&mut bytes).unwrap().ports(5, 6));
    assert!(is_right(&bytes));
    let whole = bytes.len();
    assert!(!Rewrite::snapped(&mut bytes[..whole - 1], whole).unwrap().ports(7, 8), "not without all of it");
    assert!(Rewrite::new(&mut bytes).unwrap().addresses(NEW_V4));
    assert!(is_right(&bytes));
}

#[test]
fn a_later_fragment_has_only_addresses_to_change() {
    let mut bytes = Vec::new();
    v4().udp(1, 2).write(&mut bytes, b"datadata").unwrap();
    bytes[7] = 1;
    bytes[10..12].copy_from_slice(&[0, 0]);
    let check = checksum::internet(&bytes[..20]);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    let behind = bytes[20..].to_vec();
    let mut rewrite = Rewrite::new(&mut bytes).unwrap();
    assert!(rewrite.addresses(NEW_V4));
    assert!(!rewrite.ports(9, 9) && !rewrite.icmp_id(9) && !rewrite.addresses(NEW_V6));
    assert_eq!(bytes[20..], behind);
    assert_eq!(Packet::parse(&bytes).unwrap().addresses(), NEW_V4);
}

/// An ICMP error that quotes `len` octets of `quoted`, with a right checksum.
fn error_about(quoted: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let quote = &quoted[..len.min(quoted.len())];
    if quoted[0] >> 4 == 4 {
        v4().icmpv4_raw(3, 1, [0; 4]).write(&mut bytes, quote).unwrap();
    } else {
        v6().icmpv6_raw(1, 0, [0; 4]).write(&mut bytes, quote).unwrap();
    }
    bytes
}

#[test]
fn a_quote_is_changed_with_all_checksums_that_cover_it() {
    for inner in samples() {
        let is_v4 = inner[0] >> 4 == 4;
        let (new, header, outer) = if is_v4 { (NEW_V4, 20, 28) } else { (NEW_V6, 40, 48) };
        for len in [header, header + 4, header + 7, header + 8, inner.len()] {
            let mut bytes = error_about(&inner, len);
            assert!(is_right(&bytes));
            let before = Packet::parse(&inner).unwrap();
            let is_icmp = matches!(before.protocol(), 1 | 58);
            let changed = Rewrite::new(&mut bytes).unwrap().quoted(|quote| {
                assert!(quote.addresses(new));
                let has_room = len >= header + if is_icmp { 6 } else { 4 };
                assert_eq!(if is_icmp { quote.icmp_id(99) } else { quote.ports(1024, 9) }, has_room);
            });
            assert!(changed && is_right(&bytes), "{len} octets of {inner:?}");
            if len == inner.len() {
                let after = Packet::parse(&bytes[outer..]).unwrap();
                assert_eq!(after.addresses(), new);
                assert!(after.transport_checksum_ok(), "{inner:?}");
            }
        }
    }
}

#[test]
fn what_is_no_error_or_quotes_nothing_is_left_alone() {
    let mut plain = samples().swap_remove(0);
    let before = plain.clone();
    assert!(!Rewrite::new(&mut plain).unwrap().quoted(|_| unreachable!()));
    assert_eq!(plain, before);
    let mut short = error_about(&before, 19);
    assert!(!Rewrite::new(&mut short).unwrap().quoted(|_| unreachable!()));
    assert!(is_right(&short));
}

#[test]
fn a_stream_is_changed_and_its_numbers_follow() {
    let builders = [v4().tcp(21, 4000, 7, 9).ack(9), v6().tcp(21, 4000, 7, 9).ack(9)];
    for builder in builders {
        let mut sent = Vec::new();
        builder.ack(9).write(&mut sent, b"PORT 1,2 now").unwrap();
        for with in [&b"longer than before"[..], b"1", b"", b"odd"] {
            let mut segment = sent.clone();
            segment.extend([0; 3]);
            assert!(exchange(&mut segment, 5..8, with));
            let packet = Packet::parse(&segment).unwrap();
            assert_eq!(packet.total_len(), sent.len() - 3 + with.len());
            assert!(is_right(&segment) && (packet.family() == Family::V6 || checksum::internet(&segment[..20]) == 0));
            assert_eq!(&segment[segment.len() - with.len() - 4..], [with, &b" now"[..]].concat());
        }
        let (mut segment, before) = (sent.clone(), sent.clone());
        assert!(!exchange(&mut segment, 5..13, b"beyond") && segment == before);
        assert!(!exchange(&mut segment, 5..8, &[0; 65_535]) && segment == before);
        let mut rewrite = Rewrite::new(&mut segment).unwrap();
        assert!(rewrite.renumber(|seq| seq + 0x1_0000, |ack| ack.wrapping_sub(10)));
        assert!(is_right(&segment));
        let packet = Packet::parse(&segment).unwrap();
        let view = crate::tcp::Segment::parse(packet.transport(), packet.transport_len()).unwrap();
        assert_eq!((view.seq, view.ack), (0x1_0007, u32::MAX));
    }
}

#[test]
fn blocks_of_selective_acknowledgements_are_renumbered_wherever_they_stand() {
    use etherparse::TcpOptionElement::{Noop, SelectiveAcknowledgement, Timestamp};
    let blocks = SelectiveAcknowledgement((100, 200), [Some((300, 400)), None, None]);
    for options in [&[Noop, Noop, blocks.clone()][..], &[Noop, blocks.clone()], &[Timestamp(1, 2), blocks.clone()]] {
        let mut segment = Vec::new();
        v4().tcp(21, 4000, 7, 50).ack(50).options(options).unwrap().write(&mut segment, b"").unwrap();
        assert!(Rewrite::new(&mut segment).unwrap().renumber(|seq| seq, |ack| ack + 5));
        assert!(is_right(&segment));
        let packet = Packet::parse(&segment).unwrap();
        let view = crate::tcp::Segment::parse(packet.transport(), packet.transport_len()).unwrap();
        let read: Vec<_> = view
            .options()
            .filter_map(|option| match option {
                crate::tcp::Choice::Sack(blocks) => Some(blocks.collect::<Vec<_>>()),
                _ => None,
            })
            .collect();
        assert_eq!((view.ack, read), (55, alloc::vec![alloc::vec![(105, 205), (305, 405)]]));
    }
    // An option that ends nowhere.
    let mut segment = Vec::new();
    v4().tcp(21, 4000, 7, 50).ack(50).options_raw(&[1, 1, 5, 30]).unwrap().write(&mut segment, b"").unwrap();
    assert!(!Rewrite::new(&mut segment).unwrap().renumber(|seq| seq, |ack| ack + 5));
}
