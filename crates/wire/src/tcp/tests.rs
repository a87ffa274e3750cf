use super::*;
use alloc::vec;
use alloc::vec::Vec;

fn segment(options: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let mut bytes = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, words << 4, 0x10, 0xfa, 0xf0, 0, 0, 0, 0];
    bytes.extend(options);
    bytes
}

fn parsed(bytes: &[u8]) -> TcpSegment<'_> {
    TcpSegment::parse(bytes, bytes.len()).unwrap()
}

fn sack_block(left: u32, right: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&left.to_be_bytes());
    bytes[4..].copy_from_slice(&right.to_be_bytes());
    bytes
}

#[test]
fn header_must_fit_the_segment() {
    let bytes = segment(&[1; 4]);
    assert_eq!(TcpSegment::parse(&bytes[..19], 19).err(), Some(ParseError::TcpTruncated));
    assert_eq!(TcpSegment::parse(&bytes[..19], 24).err(), Some(ParseError::NotCaptured));
    assert_eq!(TcpSegment::parse(&bytes[..23], 23).err(), Some(ParseError::TcpOffsetBeyond));
    let mut small = bytes.clone();
    small[12] = 0x40;
    assert_eq!(TcpSegment::parse(&small, 24).err(), Some(ParseError::TcpOffsetSmall));
    let cut = TcpSegment::parse(&bytes[..22], 30).unwrap();
    assert_eq!((cut.options, cut.data, cut.data_len), (&[1, 1][..], &[][..], 6));
}

#[test]
fn parses_syn_options() {
    let bytes = segment(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7]);
    let handshake = parsed(&bytes).syn_options();
    assert_eq!(handshake, SynOptions { window_scale: Some(7), sack_permitted: true, mss: Some(1460) });
    let all: Vec<_> = parsed(&bytes).options().collect();
    assert_eq!(all[2], TcpOption::Timestamps(9, 0));
    assert_eq!(parsed(&segment(&[3, 3, 15, 0])).syn_options().window_scale, Some(14));
}

#[test]
fn wrong_size_option_is_skipped_and_malformed_option_stops_parsing() {
    // A window scale of four bytes is not one; what follows still counts.
    assert!(parsed(&segment(&[3, 4, 7, 0, 4, 2, 0, 0])).syn_options().sack_permitted);
    assert_eq!(parsed(&segment(&[3, 4, 7, 0, 4, 2, 0, 0])).syn_options().window_scale, None);
    for broken in [[30, 1, 4, 2], [30, 0, 4, 2], [30, 9, 4, 2], [0, 1, 4, 2]] {
        assert_eq!(parsed(&segment(&broken)).syn_options(), SynOptions::default(), "{broken:?}");
    }
}

#[test]
fn highest_sack_compares_modulo_2_32() {
    let two = [&[1, 1, 5, 18][..], &sack_block(10, 30), &sack_block(40, 50)].concat();
    assert_eq!(parsed(&segment(&two)).highest_sack(20), 50);
    assert_eq!(parsed(&segment(&two)).highest_sack(50), 50);
    assert_eq!(parsed(&segment(&two)).highest_sack(60), 60);
    let round = [&[1, 1, 5, 10][..], &sack_block(u32::MAX - 5, 3)].concat();
    assert_eq!(parsed(&segment(&round)).highest_sack(u32::MAX - 10), 3);
    let timestamps = [&[1, 1, 8, 10][..], &sack_block(90, 95)].concat();
    assert_eq!(parsed(&segment(&timestamps)).highest_sack(20), 20);
}

/// Each line was observed on Linux 6.18: whether a right edge that acknowledges the future made the segment invalid.
#[test]
fn only_the_first_well_formed_sack_option_is_read() {
    let (near, far) = (sack_block(10, 30), sack_block(1000, 2000));
    let seen: [(Vec<u8>, bool); 7] = [
        ([&[1, 1, 5, 10][..], &near, &[1, 1, 5, 10], &far].concat(), false),
        ([&[1, 1, 5, 10][..], &far, &[1, 1, 5, 10], &near].concat(), true),
        ([&[5, 11][..], &far, &[1, 0]].concat(), false),
        ([&[5, 2, 5, 10][..], &far].concat(), true),
        ([&[30, 4, 0, 0, 5, 10][..], &far, &[0, 0]].concat(), true),
        ([&[1, 1, 8, 10][..], &[7; 8], &[1, 1, 5, 10], &far].concat(), true),
        ([&[5, 18][..], &far, &[0, 0]].concat(), false),
    ];
    for (options, reads_far) in seen {
        assert_eq!(parsed(&segment(&options)).highest_sack(20) == 2000, reads_far, "{options:?}");
    }
}
