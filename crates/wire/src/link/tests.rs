use super::*;
use alloc::vec;
use alloc::vec::Vec;

const V4: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
const V6: [u8; 40] = [0x60; 40];

fn framed(header: &[u8], packet: &[u8]) -> Vec<u8> {
    [header, packet].concat()
}

fn ethernet(ethertypes: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; 12];
    for (n, ethertype) in ethertypes.iter().enumerate() {
        if n > 0 {
            frame.extend([0, 7]);
        }
        frame.extend(ethertype.to_be_bytes());
    }
    framed(&frame, packet)
}

#[test]
fn ethernet_with_and_without_vlan_tags() {
    for (ethertypes, offset) in [(&[0x0800][..], 14), (&[0x8100, 0x0800], 18), (&[0x88a8, 0x8100, 0x0800], 22)] {
        let frame = ethernet(ethertypes, &V4);
        assert_eq!(
            strip_link_header(LinkType::ETHERNET, &frame),
            Ok(LinkPayload { family: Family::V4, packet: &V4, offset })
        );
    }
    let frame = ethernet(&[0x86dd], &V6);
    assert_eq!(strip_link_header(LinkType::ETHERNET, &frame).map(|n| n.family), Ok(Family::V6));
}

#[test]
fn non_ip_frames_give_an_error() {
    let frame = ethernet(&[0x0806], &[0; 28]);
    assert_eq!(strip_link_header(LinkType::ETHERNET, &frame), Err(ParseError::NotIp));
    let frame = ethernet(&[0x8100; 6], &V4);
    assert_eq!(strip_link_header(LinkType::ETHERNET, &frame), Err(ParseError::VlanTags));
    let frame = ethernet(&[0x8100], &[0, 7, 8]);
    assert_eq!(strip_link_header(LinkType::ETHERNET, &frame), Err(ParseError::LinkTruncated));
    let frame = ethernet(&[0x0800], &V6);
    assert_eq!(strip_link_header(LinkType::ETHERNET, &frame), Err(ParseError::LinkFamily));
    assert_eq!(strip_link_header(LinkType(147), &V4), Err(ParseError::LinkUnknown));
}

#[test]
fn bsd_loopback_in_both_byte_orders() {
    for word in [[2, 0, 0, 0], [0, 0, 0, 2]] {
        let frame = framed(&word, &V4);
        assert_eq!(
            strip_link_header(LinkType::NULL, &frame),
            Ok(LinkPayload { family: Family::V4, packet: &V4, offset: 4 })
        );
    }
    for number in [10u32, 24, 28, 30] {
        for word in [number.to_be_bytes(), number.to_le_bytes()] {
            let frame = framed(&word, &V6);
            assert_eq!(strip_link_header(LinkType::NULL, &frame).map(|n| n.family), Ok(Family::V6));
        }
    }
    let frame = framed(&[2, 0, 0, 0], &V4);
    assert_eq!(strip_link_header(LinkType::LOOP, &frame), Err(ParseError::NotIp));
    assert_eq!(strip_link_header(LinkType::NULL, &frame[..3]), Err(ParseError::LinkTruncated));
}

#[test]
fn linux_sll_and_sll2_frames() {
    let mut sll = [0; 16];
    sll[14..].copy_from_slice(&[0x08, 0x00]);
    let frame = framed(&sll, &V4);
    assert_eq!(strip_link_header(LinkType::LINUX_SLL, &frame).map(|n| n.offset), Ok(16));
    let mut sll2 = [0; 20];
    sll2[..2].copy_from_slice(&[0x86, 0xdd]);
    let frame = framed(&sll2, &V6);
    assert_eq!(strip_link_header(LinkType::LINUX_SLL2, &frame).map(|n| n.offset), Ok(20));
    assert_eq!(strip_link_header(LinkType::LINUX_SLL2, &frame[..19]), Err(ParseError::LinkTruncated));
}

#[test]
fn raw_ip_family_comes_from_version_nibble_or_link_type() {
    assert_eq!(strip_link_header(LinkType::RAW, &V6).map(|n| n.family), Ok(Family::V6));
    assert_eq!(strip_link_header(LinkType(12), &V4).map(|n| n.family), Ok(Family::V4));
    assert_eq!(strip_link_header(LinkType::IPV6, &V4), Err(ParseError::LinkFamily));
    assert_eq!(strip_link_header(LinkType::RAW, &[0x50]), Err(ParseError::Version));
    assert_eq!(strip_link_header(LinkType::RAW, &[]), Err(ParseError::Empty));
}
