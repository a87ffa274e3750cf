//! Sequences of fragments. Each outcome was observed on Linux 6.18 with the same bytes, unless noted.
use super::*;
use crate::checksum;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// First byte, end, more fragments.
type FragmentSpec = (usize, usize, bool);

const M: bool = true;
const L: bool = false;

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

fn v4(id: u16, (start, end, more): FragmentSpec, tos: u8, flags: u16, options: &[u8], data: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options.len() / 4).unwrap();
    let total = u16::try_from(20 + options.len() + data.len()).unwrap();
    let word = u16::try_from(start / 8).unwrap() | flags | if more { 0x2000 } else { 0 };
    assert_eq!(data.len(), end - start);
    let mut bytes = vec![0x40 | words, tos];
    bytes.extend(total.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(word.to_be_bytes());
    bytes.extend([64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]);
    bytes.extend(options);
    let check = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend(data);
    bytes
}

fn v6(id: u32, (start, end, more): FragmentSpec, before: &[u8], next: u8, data: &[u8]) -> Vec<u8> {
    assert_eq!(data.len(), end - start);
    let length = u16::try_from(before.len() + 8 + data.len()).unwrap();
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([if before.is_empty() { 44 } else { 0 }, 64]);
    bytes.extend([[0xfd; 16], [0xfe; 16]].concat());
    bytes.extend(before);
    bytes.extend([next, 0]);
    bytes.extend((u16::try_from(start).unwrap() | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(data);
    bytes
}

fn fragment(family: Family, spec: FragmentSpec) -> Vec<u8> {
    let whole = content(spec.1);
    match family {
        Family::V4 => v4(7, spec, 0, 0, &[], &whole[spec.0..]),
        Family::V6 => v6(7, spec, &[], 17, &whole[spec.0..]),
    }
}

fn reassembler() -> Reassembler {
    Reassembler::new((1, 2), ReassemblyLimits::default())
}

fn push(to: &mut Reassembler, bytes: &[u8], out: &mut Vec<u8>) -> Result<Reassembly, ParseError> {
    to.push(&Packet::parse(bytes).unwrap(), 0, out)
}

/// Reassembles a sequence. Returns the lengths of the packets and the errors; the data is checked.
fn run_fragments(family: Family, sequence: &[FragmentSpec]) -> (Vec<usize>, Vec<ParseError>) {
    let mut reassembler = reassembler();
    let mut out = Vec::new();
    let (mut whole, mut errors) = (Vec::new(), Vec::new());
    for spec in sequence {
        match push(&mut reassembler, &fragment(family, *spec), &mut out) {
            Ok(Reassembly::Complete(_)) => {
                let packet = Packet::parse_reassembled(&out).unwrap();
                assert_eq!(packet.fragment(), None);
                assert_eq!(packet.protocol(), 17);
                assert_eq!(packet.transport(), content(packet.transport_len()));
                whole.push(packet.transport_len());
            }
            Ok(Reassembly::Incomplete) => {}
            Err(error) => errors.push(error),
        }
    }
    if reassembler.queue_count() == 0 {
        assert_eq!((reassembler.memory(Family::V4), reassembler.memory(Family::V6)), (0, 0));
    }
    (whole, errors)
}

fn assert_both_families(sequence: &[FragmentSpec], whole: &[usize], errors: &[ParseError]) {
    for family in [Family::V4, Family::V6] {
        assert_eq!(run_fragments(family, sequence), (whole.to_vec(), errors.to_vec()), "{family:?} {sequence:?}");
    }
}

fn assert_family(family: Family, sequence: &[FragmentSpec], whole: &[usize], errors: &[ParseError]) {
    assert_eq!(run_fragments(family, sequence), (whole.to_vec(), errors.to_vec()), "{family:?} {sequence:?}");
}

#[test]
fn fragments_arrive_in_any_order() {
    assert_both_families(&[(0, 48, M), (48, 100, L)], &[100], &[]);
    assert_both_families(&[(48, 100, L), (0, 48, M)], &[100], &[]);
    assert_both_families(&[(48, 100, L), (0, 24, M), (24, 48, M)], &[100], &[]);
    assert_both_families(&[(0, 8, M), (8, 100, L)], &[100], &[]);
    assert_both_families(&[(0, 96, M), (96, 97, L)], &[97], &[]);
}

#[test]
fn duplicate_fragments_are_ignored() {
    let duplicate = &[ParseError::FragmentDuplicate];
    assert_both_families(&[(0, 48, M), (0, 48, M), (48, 100, L)], &[100], duplicate);
    assert_both_families(&[(48, 100, L), (48, 100, L), (0, 48, M)], &[100], duplicate);
    assert_both_families(&[(0, 48, M), (0, 40, M), (48, 100, L)], &[100], duplicate);
    assert_both_families(&[(0, 48, M), (8, 16, M), (48, 100, L)], &[100], duplicate);
    assert_both_families(&[(48, 100, L), (48, 96, M), (0, 48, M)], &[100], duplicate);
    // A run that was made longer at its end counts as one; runs that came to touch otherwise do not.
    assert_both_families(&[(0, 24, M), (24, 48, M), (16, 32, M), (48, 100, L)], &[100], duplicate);
    assert_both_families(&[(16, 24, M), (0, 16, M), (24, 32, M), (16, 32, M), (32, 100, L)], &[100], duplicate);
    assert_both_families(&[(24, 48, M), (0, 24, M), (16, 32, M), (48, 100, L)], &[], &[ParseError::FragmentOverlap]);
}

#[test]
fn overlap_drops_the_queue() {
    let overlap = &[ParseError::FragmentOverlap];
    assert_both_families(&[(8, 16, M), (0, 48, M), (48, 100, L)], &[], overlap);
    assert_both_families(&[(0, 48, M), (40, 64, M), (64, 100, L)], &[], overlap);
    assert_both_families(&[(0, 48, M), (40, 64, M), (0, 48, M), (48, 100, L)], &[100], overlap);
    assert_both_families(&[(48, 100, L), (40, 56, M), (0, 48, M)], &[], overlap);
    assert_both_families(&[(0, 48, M), (40, 100, L), (0, 48, M), (48, 100, L)], &[100], overlap);
    assert_both_families(&[(0, 24, M), (48, 100, L), (24, 40, M), (16, 32, M), (40, 48, M)], &[], overlap);
}

#[test]
fn conflicting_end_drops_the_queue_in_ipv4_and_the_fragment_in_ipv6() {
    let end = &[ParseError::FragmentEnd];
    let sequence = [(0, 48, M), (48, 64, M), (16, 40, L), (64, 100, L)];
    assert_family(Family::V4, &sequence, &[], end);
    assert_family(Family::V6, &sequence, &[100], end);
    let sequence = [(48, 64, L), (64, 100, L), (0, 48, M), (48, 100, L)];
    assert_family(Family::V4, &sequence, &[100], end);
    assert_eq!(run_fragments(Family::V6, &sequence).0, [64]);
    for sequence in [[(48, 100, L), (96, 112, M), (0, 48, M)], [(48, 100, L), (120, 128, M), (0, 48, M)]] {
        assert_family(Family::V4, &sequence, &[], end);
        assert_family(Family::V6, &sequence, &[100], end);
    }
    assert_family(Family::V4, &[(48, 100, L), (96, 112, M), (0, 48, M), (48, 100, L)], &[100], end);
}

#[test]
fn length_not_multiple_of_8_is_trimmed_in_ipv4_and_drops_the_queue_in_ipv6() {
    assert_family(Family::V4, &[(0, 45, M), (40, 48, M), (48, 100, L)], &[100], &[]);
    assert_family(Family::V4, &[(0, 45, M), (0, 48, M), (48, 100, L)], &[], &[ParseError::FragmentOverlap]);
    assert_family(
        Family::V4,
        &[(0, 40, M), (40, 45, M), (0, 40, M), (40, 100, L)],
        &[100],
        &[ParseError::FragmentEmpty],
    );
    let length = &[ParseError::FragmentLength];
    assert_family(Family::V6, &[(0, 45, M), (0, 48, M), (48, 100, L)], &[100], length);
    assert_family(Family::V6, &[(0, 40, M), (40, 45, M), (40, 100, L)], &[], length);
    assert_family(Family::V6, &[(0, 40, M), (40, 45, M), (0, 40, M), (40, 100, L)], &[100], length);
}

#[test]
fn empty_last_fragment_sets_the_end_in_ipv6() {
    let empty = &[ParseError::FragmentEmpty];
    assert_family(Family::V4, &[(0, 48, M), (48, 48, M), (48, 100, L)], &[], empty);
    assert_family(Family::V4, &[(0, 48, M), (48, 48, M), (0, 48, M), (48, 100, L)], &[100], empty);
    assert_family(Family::V4, &[(104, 104, L), (0, 104, M)], &[], empty);
    assert_family(Family::V6, &[(0, 48, M), (48, 48, M), (48, 100, L)], &[100], empty);
    assert_family(Family::V6, &[(104, 104, L), (0, 104, M)], &[104], empty);
    assert_family(Family::V6, &[(0, 104, M), (104, 104, L)], &[], empty);
    let both_refusals = &[ParseError::FragmentEmpty, ParseError::FragmentEnd];
    assert_family(Family::V6, &[(0, 48, M), (104, 104, M), (48, 96, L), (48, 104, L)], &[104], both_refusals);
}

#[test]
fn atomic_fragment_is_complete_unless_its_id_has_a_queue() {
    assert_family(Family::V6, &[(0, 100, L), (0, 100, L)], &[100, 100], &[]);
    assert_family(Family::V6, &[(0, 104, M), (0, 104, L)], &[], &[ParseError::FragmentDuplicate]);
    let sequence = [(48, 56, M), (0, 100, L), (0, 48, M), (48, 100, L)];
    assert_family(Family::V6, &sequence, &[100], &[ParseError::FragmentOverlap]);
}

#[test]
fn maximum_packet_length() {
    fn fragments(total: usize) -> Vec<FragmentSpec> {
        (0..total).step_by(1400).map(|start| (start, total.min(start + 1400), start + 1400 < total)).collect()
    }
    assert_family(Family::V4, &fragments(65_515), &[65_515], &[]);
    assert_family(Family::V4, &fragments(65_516), &[], &[ParseError::FragmentTooBig]);
    assert_family(Family::V6, &fragments(65_535), &[65_535], &[]);
    let sequence = [(0, 40, M), (65_528, 65_544, M), (40, 100, L)];
    assert_family(Family::V6, &sequence, &[100], &[ParseError::FragmentTooBig]);
}

#[test]
fn headers_come_from_the_first_fragment() {
    let data = content(100);
    let mut out = Vec::new();
    let mut to = reassembler();
    let options = [1, 1, 1, 0];
    push(&mut to, &v4(1, (48, 100, L), 0, 0x4000, &[], &data[48..]), &mut out).unwrap();
    push(&mut to, &v4(1, (0, 48, M), 0, 0x4000, &options, &data[..48]), &mut out).unwrap();
    let packet = Packet::parse(&out).unwrap();
    assert_eq!((packet.total_len(), packet.transport()), (124, &data[..]));
    assert_eq!(out[6..8], [0x40, 0], "both longest fragments forbid fragmenting");

    let hop_by_hop = [44, 0, 1, 4, 0, 0, 0, 0];
    push(&mut to, &v6(1, (48, 100, L), &[], 6, &data[48..]), &mut out).unwrap();
    push(&mut to, &v6(1, (0, 48, M), &hop_by_hop, 17, &data[..48]), &mut out).unwrap();
    let packet = Packet::parse(&out).unwrap();
    assert_eq!((packet.total_len(), packet.protocol(), packet.transport()), (148, 17, &data[..]));
}

#[test]
fn ecn_codepoints_are_merged() {
    for (a, b, joined) in
        [(0, 0, Some(0)), (1, 2, Some(1)), (1, 3, Some(3)), (3, 2, Some(3)), (0, 1, None), (3, 0, None)]
    {
        let data = content(100);
        let mut out = Vec::new();
        let mut to = reassembler();
        push(&mut to, &v4(1, (0, 48, M), a, 0, &[], &data[..48]), &mut out).unwrap();
        let result = push(&mut to, &v4(1, (48, 100, L), b, 0, &[], &data[48..]), &mut out);
        match joined {
            Some(codepoint) => {
                let fragments = FragmentInfo { max_size: 72, header_len: 20 };
                assert_eq!((result, out[1]), (Ok(Reassembly::Complete(fragments)), codepoint), "{a} {b}");
            }
            None => assert_eq!(result, Err(ParseError::FragmentEcn), "{a} {b}"),
        }
        assert_eq!(to.queue_count(), 0);
    }
}

#[test]
fn first_ipv6_fragment_must_hold_all_headers() {
    for (next, needed) in [(6, 24), (17, 8), (58, 8), (132, 8)] {
        for len in [8, 16, 24] {
            let mut to = reassembler();
            let result = push(&mut to, &v6(1, (0, len, M), &[], next, &content(len)), &mut Vec::new());
            let expected = if len < needed { Err(ParseError::FragmentHeaders) } else { Ok(Reassembly::Incomplete) };
            assert_eq!(result, expected, "protocol {next}, {len} bytes");
        }
    }
    let destination_options = [17, 0, 1, 4, 0, 0, 0, 0];
    let result = push(&mut reassembler(), &v6(1, (0, 8, M), &[], 60, &destination_options), &mut Vec::new());
    assert_eq!(result, Err(ParseError::FragmentHeaders));
    // "No next header" is complete; observed on Linux 6.18.
    let result = push(&mut reassembler(), &v6(1, (0, 8, M), &[], 59, &content(8)), &mut Vec::new());
    assert_eq!(result, Ok(Reassembly::Incomplete));
}

#[test]
fn unassembled_ipv6_fragment_is_parsed_by_its_own_header() {
    let ragged = |start| v6(1, (start, start + 9, M), &[], 253, &content(9));
    for (bytes, expected) in [(ragged(0), Ok(253)), (ragged(8), Err(ParseError::FragmentNested))] {
        let error = push(&mut reassembler(), &bytes, &mut Vec::new()).unwrap_err();
        assert_eq!((error, error.linux_action()), (ParseError::FragmentLength, crate::LinuxAction::PassedUnassembled));
        assert_eq!(Packet::parse_reassembled(&bytes).map(|packet| packet.protocol()), expected);
    }
}

#[test]
fn nested_ipv6_fragment() {
    let mut out = Vec::new();
    for (offset, expected) in [(0u16, Ok(17)), (1, Ok(17)), (32, Err(ParseError::FragmentNested))] {
        let inner = [&[17, 0][..], &offset.to_be_bytes(), &[0, 0, 0, 9], &content(40)].concat();
        push(&mut reassembler(), &v6(1, (0, 48, L), &[], 44, &inner), &mut out).unwrap();
        assert_eq!(Packet::parse_reassembled(&out).map(|packet| packet.protocol()), expected);
    }
}

#[test]
fn id_and_protocol_are_part_of_the_key() {
    let data = content(100);
    let mut to = reassembler();
    let mut out = Vec::new();
    push(&mut to, &v4(1, (0, 48, M), 0, 0, &[], &data[..48]), &mut out).unwrap();
    assert_eq!(push(&mut to, &v4(2, (48, 100, L), 0, 0, &[], &data[48..]), &mut out), Ok(Reassembly::Incomplete));
    let mut other = v4(1, (48, 100, L), 0, 0, &[], &data[48..]);
    other[9] = 6;
    other[10..12].copy_from_slice(&[0, 0]);
    let check = checksum::internet(&other[..20]);
    other[10..12].copy_from_slice(&check.to_be_bytes());
    assert_eq!(push(&mut to, &other, &mut out), Ok(Reassembly::Incomplete));
    assert_eq!(to.queue_count(), 3);
}

#[test]
fn queues_expire_after_the_timeout() {
    let mut to = reassembler();
    let mut out = Vec::new();
    let (first, second) = (fragment(Family::V4, (0, 48, M)), fragment(Family::V4, (48, 100, L)));
    let six = fragment(Family::V6, (0, 48, M));
    to.push(&Packet::parse(&first).unwrap(), 5, &mut out).unwrap();
    to.push(&Packet::parse(&six).unwrap(), 6, &mut out).unwrap();
    assert_eq!(to.next_wake(), Some(30_000_000_005));
    assert_eq!(to.poll(30_000_000_004), 0);
    assert_eq!(to.poll(30_000_000_005), 1);
    assert_eq!((to.next_wake(), to.memory(Family::V4)), (Some(60_000_000_006), 0));
    let result = to.push(&Packet::parse(&second).unwrap(), 30_000_000_005, &mut out);
    assert_eq!(result, Ok(Reassembly::Incomplete));
    assert_eq!(to.poll(u64::MAX), 2);
    assert_eq!((to.next_wake(), to.queue_count(), to.memory(Family::V6)), (None, 0, 0));
}

#[test]
fn high_thresh_is_enforced_per_family_until_queues_expire() {
    let limits = ReassemblyLimits { high_thresh: 10_000, ..ReassemblyLimits::default() };
    let mut to = Reassembler::new((3, 4), limits);
    let mut out = Vec::new();
    let mut taken: u16 = 0;
    while push(&mut to, &v4(taken, (0, 48, M), 0, 0, &[], &content(48)), &mut out).is_ok() {
        taken += 1;
    }
    assert!((10..100).contains(&taken), "{taken} queues in 10,000 bytes");
    assert!(to.memory(Family::V4) > 10_000);
    let again = push(&mut to, &v4(0, (48, 100, L), 0, 0, &[], &content(52)), &mut out);
    assert_eq!(again, Err(ParseError::FragmentMemory), "also for packets already begun");
    assert_eq!(push(&mut to, &fragment(Family::V6, (0, 48, M)), &mut out), Ok(Reassembly::Incomplete));
    to.poll(30_000_000_000);
    assert_eq!(push(&mut to, &v4(0, (0, 48, M), 0, 0, &[], &content(48)), &mut out), Ok(Reassembly::Incomplete));
}

#[test]
fn deadlines_of_removed_queues_are_purged() {
    let mut to = reassembler();
    let mut out = Vec::new();
    push(&mut to, &v4(0, (0, 48, M), 0, 0, &[], &content(48)), &mut out).unwrap();
    for id in 1..5000 {
        push(&mut to, &v4(id, (0, 48, M), 0, 0, &[], &content(48)), &mut out).unwrap();
        push(&mut to, &v4(id, (48, 100, L), 0, 0, &[], &content(52)), &mut out).unwrap();
    }
    assert_eq!(to.queue_count(), 1);
    assert!(format!("{:?}", to.v4.deadlines).len() < 20_000);
}

#[test]
fn fragments_older_than_max_dist_are_dropped() {
    let data = content(100);
    // So many fragments of others between the two halves, and whether they still belong together.
    for (between, limit, together) in [(63, 64, true), (64, 64, false), (3, 2, false), (1_000, 0, true)] {
        let mut out = Vec::new();
        let mut to = Reassembler::new((1, 2), ReassemblyLimits { max_dist: limit, ..ReassemblyLimits::default() });
        push(&mut to, &v4(1, (0, 48, M), 0, 0, &[], &data[..48]), &mut out).unwrap();
        for id in 0..between {
            push(&mut to, &v4(2 + id, (0, 48, M), 0, 0, &[], &data[..48]), &mut out).unwrap();
        }
        let result = push(&mut to, &v4(1, (48, 100, L), 0, 0, &[], &data[48..]), &mut out).unwrap();
        assert_eq!(result != Reassembly::Incomplete, together, "{between} between, {limit} allowed");
    }
}
