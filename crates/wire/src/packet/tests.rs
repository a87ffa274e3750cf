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
fn a_plain_segment_is_read() {
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
    let segment = tcp::Segment::parse(packet.transport(), packet.transport_len()).unwrap();
    assert_eq!((segment.seq, segment.window, segment.flags.0), (100, 64240, tcp::Flags::SYN));
    assert_eq!((segment.data, segment.data_len), (&b"hello"[..], 5));
}

#[test]
fn every_flipped_octet_behind_the_header_breaks_the_checksum() {
    let bytes = tcp_v4();
    for at in 20..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        assert!(!Packet::parse(&broken).unwrap().transport_checksum_ok(), "octet {at}");
    }
}

#[test]
fn udp_and_icmp_over_both_families_hold_their_checksums() {
    let mut v4 = Vec::new();
    PacketBuilder::ipv4([1, 2, 3, 4], [5, 6, 7, 8], 9).udp(53, 5353).write(&mut v4, b"odd").unwrap();
    let packet = Packet::parse(&v4).unwrap();
    assert!(packet.transport_checksum_ok());
    assert_eq!(udp::Header::parse(packet.transport(), packet.transport_len()).unwrap().length, 11);
    let mut v6 = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 9).icmpv6_echo_request(7, 1).write(&mut v6, b"ping!").unwrap();
    let packet = Packet::parse(&v6).unwrap();
    assert!(packet.transport_checksum_ok());
    assert_eq!(icmp::Message::parse(packet.transport()).unwrap().id, 7);
    v6[50] ^= 1;
    assert!(!Packet::parse(&v6).unwrap().transport_checksum_ok());
}

#[test]
fn link_padding_is_left_out() {
    let mut bytes = tcp_v4();
    bytes.extend([0xaa; 6]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.bytes().len(), 45);
    assert!(packet.transport_checksum_ok());
}
