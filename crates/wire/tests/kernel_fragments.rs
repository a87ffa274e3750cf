//! Reassembly compared with the kernel: recorded streams of fragments, few of them in order.
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]
use keepstate_wire::reassembly::{Reassembler, Reassembly, ReassemblyLimits};
use keepstate_wire::{LinuxAction, Packet, checksum};

/// What connection tracking saw: new packets, their bytes, and invalid packets.
#[derive(Debug, Default, PartialEq, Eq)]
struct TrackedCounts {
    new: usize,
    bytes: usize,
    invalid: usize,
}

impl TrackedCounts {
    fn count(&mut self, bytes: &[u8]) {
        match Packet::parse_reassembled(bytes) {
            Ok(packet) => {
                self.new += 1;
                self.bytes += packet.total_len();
            }
            Err(error) => {
                assert_eq!(error.linux_action(), LinuxAction::Invalid);
                self.invalid += 1;
            }
        }
    }
}

fn build_fragment(family: &str, fragment: &str) -> Vec<u8> {
    let at = fragment.find(['+', '.']).unwrap();
    let (start, end) = fragment[..at].split_once('-').unwrap();
    let (start, end): (u16, u16) = (start.parse().unwrap(), end.parse().unwrap());
    let more = u16::from(&fragment[at..=at] == "+");
    let codepoint: u8 = fragment[at + 1..].strip_prefix('e').map_or(0, |number| number.parse().unwrap());
    let mut bytes = Vec::new();
    if family == "v4" {
        bytes.extend([0x45, codepoint]);
        bytes.extend((20 + end - start).to_be_bytes());
        bytes.extend([0, 9]);
        bytes.extend(((start / 8) | (more << 13)).to_be_bytes());
        bytes.extend([64, 253, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]);
        let check = checksum::internet(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        bytes.extend([0x60, codepoint << 4, 0, 0]);
        bytes.extend((8 + end - start).to_be_bytes());
        bytes.extend([44, 64]);
        bytes.extend([0xfd; 32]);
        bytes.extend([253, 0]);
        bytes.extend((start | more).to_be_bytes());
        bytes.extend([0, 0, 0, 9]);
    }
    bytes.extend((start..end).map(|at| (at * 7 % 251) as u8));
    bytes
}

fn run_fragments(family: &str, fragments: &str) -> TrackedCounts {
    let mut reassembler = Reassembler::new((1, 2), ReassemblyLimits::default());
    let mut seen = TrackedCounts::default();
    let mut out = Vec::new();
    for fragment in fragments.split(' ') {
        let bytes = build_fragment(family, fragment);
        match reassembler.push(&Packet::parse(&bytes).unwrap(), 0, &mut out) {
            Ok(Reassembly::Complete(_)) => {
                let data = Packet::parse_reassembled(&out).unwrap().transport().iter();
                assert!(data.enumerate().all(|(at, &byte)| usize::from(byte) == at * 7 % 251), "{family} {fragments}");
                seen.count(&out);
            }
            Ok(Reassembly::Incomplete) => {}
            Err(error) if error.linux_action() == LinuxAction::PassedUnassembled => seen.count(&bytes),
            Err(error) => assert_eq!(error.linux_action(), LinuxAction::Dropped),
        }
    }
    seen
}

#[test]
fn recorded_fragment_streams_match_the_kernel() {
    let streams = include_str!("kernel_fragments.txt");
    let mut checked = 0;
    for line in streams.lines().filter(|line| !line.starts_with('#')) {
        let (stream, outcome) = line.split_once(": ").unwrap();
        let (family, fragments) = stream.split_once(' ').unwrap();
        let numbers: Vec<usize> = outcome.split(' ').map(|number| number.parse().unwrap()).collect();
        let expected = TrackedCounts { new: numbers[0], bytes: numbers[1], invalid: numbers[2] };
        assert_eq!(run_fragments(family, fragments), expected, "{line}");
        checked += 1;
    }
    assert_eq!(checked, 400);
}
