//! Properties for arbitrary bytes: nothing panics, and views stay within their input.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
use keepstate_wire::gso::GsoPacket;
use keepstate_wire::link::{self, LinkType};
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::rewrite::{self, PacketMut};
use keepstate_wire::{Addresses, Family, InnerPacket, Packet, ParseError, checksum, gre, icmp, sctp, tcp, udp};
use proptest::collection::vec;
use proptest::prelude::*;

/// Reads every view of a packet.
fn check_packet_views(packet: &Packet<'_>) {
    let transport = packet.transport();
    let len = packet.transport_len();
    assert!(transport.len() <= len, "{packet:?}");
    assert!(packet.bytes().len() <= packet.total_len());
    let _ = (packet.addresses(), packet.protocol(), packet.fragment(), packet.ports(), packet.transport_checksum_ok());
    check_transport_views(transport, len);
}

fn check_transport_views(transport: &[u8], len: usize) {
    if let Ok(segment) = tcp::TcpSegment::parse(transport, len) {
        assert!(segment.data.len() <= segment.data_len);
        assert!(segment.syn_options().window_scale.is_none_or(|scale| scale <= 14));
        segment.highest_sack(segment.ack);
        assert!(segment.options().count() <= 40);
    }
    let _ = (udp::UdpHeader::parse(transport, len), udp::UdpHeader::parse_lite(transport, len));
    let _ = (gre::GreHeader::parse(transport), gre::key(transport));
    if let Ok(header) = sctp::SctpHeader::parse(transport) {
        let chunks: Vec<_> = header.chunks().collect();
        let refused = chunks.iter().position(Result::is_err);
        assert!(refused.is_none_or(|at| at + 1 == chunks.len()));
    }
    if let Ok(message) = icmp::IcmpMessage::parse(transport) {
        for family in [Family::V4, Family::V6] {
            let _ = InnerPacket::parse(message.body, family).map(|inner| inner.ports());
        }
    }
}

/// Fixes checksum and length of an IPv4 header, so that it is parsed.
fn fix_ipv4_header(bytes: &mut [u8]) {
    if bytes.len() < 20 || bytes[0] >> 4 != 4 {
        return;
    }
    let header_len = usize::from(bytes[0] & 15) * 4;
    if !(20..=bytes.len()).contains(&header_len) {
        return;
    }
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes[10..12].copy_from_slice(&[0, 0]);
    let check = checksum::internet(&bytes[..header_len]);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Bytes that look like IP at the start.
fn ip_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    (
        vec(any::<u8>(), 0..200),
        prop_oneof![Just(0x45u8), 0x45..0x50u8, Just(0x60u8), any::<u8>()],
        any::<u8>(),
        any::<bool>(),
    )
        .prop_map(|(mut bytes, first, protocol, whole)| {
            const PROTOCOLS: [u8; 16] = [1, 6, 17, 47, 58, 132, 136, 0, 43, 44, 51, 60, 59, 50, 6, 17];
            let protocol = PROTOCOLS[usize::from(protocol) % PROTOCOLS.len()];
            let len = bytes.len();
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if len >= 40 && first >> 4 == 6 {
                bytes[4..6].copy_from_slice(&u16::try_from(len - 40).unwrap().to_be_bytes());
                bytes[6] = protocol;
            } else if len >= 20 && first >> 4 == 4 {
                bytes[9] = protocol;
                if whole {
                    bytes[6..8].copy_from_slice(&[0, 0]);
                }
            }
            fix_ipv4_header(&mut bytes);
            bytes
        })
}

proptest! {
    #[test]
    fn parsers_do_not_panic_on_random_bytes(bytes in vec(any::<u8>(), 0..300), more in 0usize..100, link in 0u32..300) {
        let _ = Packet::parse(&bytes).map(|packet| check_packet_views(&packet));
        let _ = Packet::parse_snapped(&bytes, bytes.len() + more).map(|packet| check_packet_views(&packet));
        check_transport_views(&bytes, bytes.len() + more);
        if let Ok(network) = link::strip_link_header(LinkType(link), &bytes) {
            prop_assert_eq!(network.offset + network.packet.len(), bytes.len());
        }
    }

    #[test]
    fn parsers_do_not_panic_on_ip_like_bytes(bytes in ip_like_bytes(), more in 0usize..100) {
        let _ = Packet::parse(&bytes).map(|packet| check_packet_views(&packet));
        let _ = Packet::parse_snapped(&bytes, bytes.len() + more).map(|packet| check_packet_views(&packet));
        let _ = Packet::parse_reassembled(&bytes).map(|packet| check_packet_views(&packet));
    }

    #[test]
    fn flow_key_v4_equals_separate_accessors(bytes in ip_like_bytes(), more in 0usize..100) {
        let Ok(packet) = Packet::parse_snapped(&bytes, bytes.len() + more) else { return Ok(()) };
        let fragments = match (packet.addresses(), packet.ports(), packet.fragment(), packet.protocol()) {
            (Addresses::V4 { source, destination }, Some((from, to)), None, 6 | 17 | 132 | 136) => {
                let word = u64::from(u32::from_be_bytes(source)) << 32 | u64::from(u32::from_be_bytes(destination));
                Some((word, u32::from(from) << 16 | u32::from(to)))
            }
            _ => None,
        };
        prop_assert_eq!(packet.flow_key_v4(), fragments);
    }

    #[test]
    fn rewrite_and_back_restores_the_packet(bytes in ip_like_bytes(), more in 0usize..100, ports in any::<(u16, u16)>()) {
        let mut changed = bytes.clone();
        let Ok(packet) = Packet::parse_snapped(&bytes, bytes.len() + more) else { return Ok(()) };
        let Ok(mut rewrite) = PacketMut::new_snapped(&mut changed, bytes.len() + more) else {
            return Err(TestCaseError::fail("a packet that parses can be rewritten"));
        };
        let before = packet.addresses();
        let other = match before {
            Addresses::V4 { .. } => Addresses::V4 { source: [9; 4], destination: [8; 4] },
            Addresses::V6 { .. } => Addresses::V6 { source: [9; 16], destination: [8; 16] },
        };
        prop_assert!(rewrite.set_addresses(other));
        let has_ports = rewrite.set_ports(ports.0, ports.1);
        rewrite.edit_icmp_inner(|inner| {
            inner.set_addresses(other);
            inner.set_ports(ports.0, ports.1);
            inner.set_icmp_id(ports.0);
        });
        prop_assert_eq!(Packet::parse_snapped(rewrite.bytes(), bytes.len() + more).map(|packet| packet.addresses()), Ok(other));
        if has_ports && packet.protocol() != 132 {
            let (source, destination) = packet.ports().unwrap();
            prop_assert!(rewrite.set_addresses(before) && rewrite.set_ports(source, destination));
            // A checksum that could never be right, of all zeros or all ones, may come back as the other.
            let differing = changed.iter().zip(&bytes).filter(|(after, before)| after != before);
            prop_assert!(differing.clone().count() <= 2 && differing.into_iter().all(|(after, before)| after ^ before == 0xff));
        }
    }

    #[test]
    fn truncated_packet_is_rejected_or_snapped(bytes in ip_like_bytes(), keep in 0usize..200) {
        let Ok(whole) = Packet::parse(&bytes) else { return Ok(()) };
        let kept = &whole.bytes()[..keep.min(whole.bytes().len())];
        if kept.len() < whole.total_len() {
            prop_assert!(Packet::parse(kept).is_err());
        }
        match Packet::parse_snapped(kept, whole.total_len()) {
            Ok(cut) => {
                prop_assert_eq!(cut.total_len(), whole.total_len());
                prop_assert_eq!(cut.protocol(), whole.protocol());
                prop_assert_eq!(cut.transport_len(), whole.transport_len());
            }
            Err(error) => prop_assert!(matches!(error, ParseError::NotCaptured | ParseError::Empty), "{:?}", error),
        }
    }

    #[test]
    fn gso_segments_are_the_stream_in_order(v6 in any::<bool>(), size in 1_u16..400, data in 2_usize..4000) {
        let long = segment(v6, data, 0, 0);
        let Some(gso) = GsoPacket::parse(&long, size) else {
            prop_assert!(data <= size.into());
            return Ok(());
        };
        let headers = long.len() - data;
        let mut stream = Vec::new();
        for (number, segment) in gso.segments(&long).enumerate() {
            let packet = Packet::parse(&segment).unwrap();
            let tcp = tcp::TcpSegment::parse(packet.transport(), packet.transport_len()).unwrap();
            prop_assert!(packet.transport_checksum_ok() && segment.len() <= gso.max_segment_len());
            prop_assert_eq!(tcp.seq, (u32::MAX - 700).wrapping_add(stream.len() as u32));
            if !v6 {
                prop_assert_eq!(&segment[4..6], &(u16::MAX - 1).wrapping_add(number as u16).to_be_bytes());
                prop_assert_eq!(checksum::internet(&segment[..20]), 0);
            }
            stream.extend_from_slice(tcp.data);
        }
        prop_assert_eq!(&stream, &long[headers..]);
    }

    #[test]
    fn reassembly_survives_random_fragments(stream in vec((ip_like_bytes(), 0u16..64, any::<bool>()), 1..40)) {
        let mut reassembler = Reassembler::new((5, 6), ReassemblyLimits { high_thresh: 8192, ..ReassemblyLimits::default() });
        let mut out = Vec::new();
        for (now, (mut bytes, offset, more)) in stream.into_iter().enumerate() {
            if bytes.len() >= 20 && bytes[0] >> 4 == 4 {
                bytes[4..6].copy_from_slice(&[0, 1]);
                bytes[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
                bytes[12..20].copy_from_slice(&[1; 8]);
                bytes[9] = 17;
                fix_ipv4_header(&mut bytes);
            } else if bytes.len() >= 48 {
                bytes[6] = 44;
                bytes[8..40].copy_from_slice(&[1; 32]);
                bytes[42..44].copy_from_slice(&((offset << 3) | u16::from(more)).to_be_bytes());
                bytes[44..48].copy_from_slice(&[0; 4]);
            }
            let Ok(packet) = Packet::parse(&bytes) else { continue };
            let result = reassembler.push(&packet, now as u64, &mut out);
            if let (Ok(Reassembly::Complete(_)), Err(error)) = (result, Packet::parse_reassembled(&out)) {
                // What was inside the fragments may be broken; the header built here may not.
                let inside =
                    matches!(error, ParseError::ExtensionTruncated | ParseError::NoNextHeader | ParseError::FragmentNested);
                prop_assert!(inside, "{error:?}");
            }
        }
        reassembler.poll(u64::MAX);
        prop_assert_eq!(reassembler.queue_count(), 0);
        prop_assert_eq!(reassembler.memory(Family::V4) + reassembler.memory(Family::V6), 0);
        prop_assert_eq!(reassembler.next_wake(), None);
    }

    #[test]
    fn reassembly_restores_the_fragmented_packet(len in 1usize..4000, cut in 1usize..60, seed in any::<u64>()) {
        let data: Vec<u8> = (0..len).map(|i| (i as u64 ^ seed) as u8).collect();
        let mut original = vec![0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 9, 253, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        original.extend(&data);
        fix_ipv4_header(&mut original);
        let mut fragments: Vec<Vec<u8>> = data
            .chunks(cut * 8)
            .enumerate()
            .map(|(n, chunk)| {
                let mut fragment = original[..20].to_vec();
                fragment.extend(chunk);
                let more = if (n + 1) * cut * 8 < len { 0x2000 } else { 0 };
                fragment[6..8].copy_from_slice(&(u16::try_from(n * cut).unwrap() | more).to_be_bytes());
                fix_ipv4_header(&mut fragment);
                fragment
            })
            .collect();
        // A shuffle that needs no more than the seed.
        let mut state = seed | 1;
        for i in (1..fragments.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            fragments.swap(i, (state >> 33) as usize % (i + 1));
        }
        let mut reassembler = Reassembler::new((7, 8), ReassemblyLimits::default());
        let mut out = Vec::new();
        for (n, fragment) in fragments.iter().enumerate() {
            let result = reassembler.push(&Packet::parse(fragment).unwrap(), 0, &mut out);
            let whole = matches!(result, Ok(Reassembly::Complete(_)));
            prop_assert!(whole || result == Ok(Reassembly::Incomplete));
            prop_assert_eq!(whole, n + 1 == fragments.len());
        }
        prop_assert_eq!(out, original);
    }

    #[test]
    fn incremental_checksum_equals_full_checksum(mut bytes in vec(any::<u8>(), 2..100), at in any::<prop::sample::Index>(), new in any::<u32>()) {
        let before = checksum::internet(&bytes);
        let at = at.index(bytes.len() / 2) * 2;
        let span = at..bytes.len().min(at + 4);
        let old = bytes[span.clone()].to_vec();
        bytes[span.clone()].copy_from_slice(&new.to_be_bytes()[..old.len()]);
        let after = checksum::internet(&bytes);
        let updated = checksum::update(before, &old, &bytes[span.clone()]);
        // Ones' complement has two zeros; the sum of all zeros is the only one that the full checksum gives as 0xffff.
        prop_assert!(updated == after || (bytes.iter().all(|&byte| byte == 0) && updated == 0), "{updated:x} {after:x}");
        if let (Ok(old), Ok(new)) = (<[u8; 4]>::try_from(&old[..]), <[u8; 4]>::try_from(&bytes[span])) {
            prop_assert_eq!(checksum::update_u32(before, u32::from_be_bytes(old), u32::from_be_bytes(new)), updated);
        }
    }

    #[test]
    fn split_sum_equals_whole_sum(bytes in vec(any::<u8>(), 0..2000), at in any::<prop::sample::Index>()) {
        let (first, second) = bytes.split_at(at.index(bytes.len() / 2 + 1) * 2);
        prop_assert_eq!(checksum::Sum::new().add_bytes(first).add_bytes(second).finish(), checksum::internet(&bytes));
        let plain = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low))).sum::<u64>();
        let plain = (plain % 0xffff) as u16;
        let expected = if plain == 0 && bytes.iter().any(|&byte| byte != 0) { 0 } else { !plain };
        prop_assert_eq!(checksum::internet(&bytes), expected);
    }

    #[test]
    fn crc32c_equals_bitwise_implementation(bytes in vec(any::<u8>(), 0..100)) {
        let mut crc = !0u32;
        for byte in &bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        prop_assert_eq!(checksum::crc32c(&bytes), !crc);
    }
}

/// A TCP packet with so much data; its sequence number is that of the segment with this number.
fn segment(v6: bool, data: usize, number: u16, size: usize) -> Vec<u8> {
    let length = (20 + data) as u16;
    let mut bytes = if v6 {
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([6, 64]);
        header.extend([7; 32]);
        header
    } else {
        let mut header = vec![0x45, 0];
        header.extend((20 + length).to_be_bytes());
        header.extend(number.wrapping_sub(2).to_be_bytes());
        header.extend([0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        header
    };
    bytes.extend([0, 7, 0, 9]);
    bytes.extend(u32::MAX.wrapping_sub(700).wrapping_add(u32::from(number) * size as u32).to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0x50, 0x10, 9, 9, 0, 0, 0, 0]);
    bytes.extend((0..data).map(|at| (at as u8) ^ number as u8));
    fix_ipv4_header(&mut bytes);
    let (from, at) = rewrite::set_partial_checksum(&mut bytes).unwrap();
    rewrite::finish_partial_checksum(&mut bytes, from, at);
    bytes
}
