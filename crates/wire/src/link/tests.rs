use super::*;
use alloc::vec;
use alloc::vec::Vec;

const V4: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
const V6: [u8; 40] = [0x60; 40];

fn framed(header: &[u8], datagram: &[u8]) -> Vec<u8> {
    [header, datagram].concat()
}

fn ethernet(ethertypes: &[u16], datagram: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; 12];
    for (n, ethertype) in ethertypes.iter().enumerate() {
        if n > 0 {
            frame.extend([0, 7]);
        }
        frame.extend(ethertype.to_be_bytes());
    }
    framed(&frame, datagram)
}

#[test]
fn ethernet_with_and_without_tags() {
    for (ethertypes, offset) in [(&[0x0800][..], 14), (&[0x8100, 0x0800], 18), (&[0x88a8, 0x8100, 0x0800], 22)] {
        let frame = ethernet(ethertypes, &V4);
        assert_eq!(datagram(LinkType::ETHERNET, &frame), Ok(Network { family: Family::V4, datagram: &V4, offset }));
    }
    let frame = ethernet(&[0x86dd], &V6);
    assert_eq!(datagram(LinkType::ETHERNET, &frame).map(|n| n.family), Ok(Family::V6));
}

#[test]
fn frames_that_carry_no_ip_say_so() {
    let frame = ethernet(&[0x0806], &[0; 28]);
    assert_eq!(datagram(LinkType::ETHERNET, &frame), Err(Refusal::NotIp));
    let frame = ethernet(&[0x8100; 6], &V4);
    assert_eq!(datagram(LinkType::ETHERNET, &frame), Err(Refusal::LinkTags));
    let frame = ethernet(&[0x8100], &[0, 7, 8]);
    assert_eq!(datagram(LinkType::ETHERNET, &frame), Err(Refusal::LinkTruncated));
    let frame = ethernet(&[0x0800], &V6);
    assert_eq!(datagram(LinkType::ETHERNET, &frame), Err(Refusal::LinkFamily));
    assert_eq!(datagram(LinkType(147), &V4), Err(Refusal::LinkUnknown));
}

#[test]
fn loopback_in_both_byte_orders() {
    for word in [[2, 0, 0, 0], [0, 0, 0, 2]] {
        let frame = framed(&word, &V4);
        assert_eq!(datagram(LinkType::NULL, &frame), Ok(Network { family: Family::V4, datagram: &V4, offset: 4 }));
    }
    for number in [10u32, 24, 28, 30] {
        for word in [number.to_be_bytes(), number.to_le_bytes()] {
            let frame = framed(&word, &V6);
            assert_eq!(datagram(LinkType::NULL, &frame).map(|n| n.family), Ok(Family::V6));
        }
    }
    let frame = framed(&[2, 0, 0, 0], &V4);
    assert_eq!(datagram(LinkType::LOOP, &frame), Err(Refusal::NotIp));
    assert_eq!(datagram(LinkType::NULL, &frame[..3]), Err(Refusal::LinkTruncated));
}

#[test]
fn cooked_captures_of_both_versions() {
    let mut sll = [0; 16];
    sll[14..].copy_from_slice(&[0x08, 0x00]);
    let frame = framed(&sll, &V4);
    assert_eq!(datagram(LinkType::LINUX_SLL, &frame).map(|n| n.offset), Ok(16));
    let mut sll2 = [0; 20];
    sll2[..2].copy_from_slice(&[0x86, 0xdd]);
    let frame = framed(&sll2, &V6);
    assert_eq!(datagram(LinkType::LINUX_SLL2, &frame).map(|n| n.offset), Ok(20));
    assert_eq!(datagram(LinkType::LINUX_SLL2, &frame[..19]), Err(Refusal::LinkTruncated));
}

#[test]
fn raw_ip_is_told_by_its_first_nibble_or_by_the_link_type() {
    assert_eq!(datagram(LinkType::RAW, &V6).map(|n| n.family), Ok(Family::V6));
    assert_eq!(datagram(LinkType(12), &V4).map(|n| n.family), Ok(Family::V4));
    assert_eq!(datagram(LinkType::IPV6, &V4), Err(Refusal::LinkFamily));
    assert_eq!(datagram(LinkType::RAW, &[0x50]), Err(Refusal::Version));
    assert_eq!(datagram(LinkType::RAW, &[]), Err(Refusal::Empty));
}
