//! Captures that break, and captures that lie: what stood before is told, then where it breaks, and nothing panics.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    ByteOrder, ProgramOutput, UDP_ENTRY_LINE, keepstate, linktype, pcap, pcapng, udp_packet, udp_request_and_reply,
};
use std::io::Write;

fn replay(capture: &[u8]) -> ProgramOutput {
    keepstate(&["replay", "-"], capture)
}

/// The line of a question without an answer.
const UNREPLIED: &str = "udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 [UNREPLIED] \
                         src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1\n";

/// Fails with exit code 1 where `offset` says, after `out`; `what` is why.
#[track_caller]
fn assert_breaks_at(ran: &ProgramOutput, offset: usize, out: &str, what: &str) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), out), "{what}: {}", ran.err);
    let place = format!("-: the capture is corrupt at byte {offset}");
    assert!(ran.err.contains(&place) && ran.err.contains(what), "no {place:?} with {what:?} in: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

/// Cuts `capture`, whose header and packets end at `ends`, at every byte.
#[track_caller]
fn replay_every_prefix(capture: &[u8], ends: &[usize], packets: &[usize]) {
    assert_eq!(capture.len(), *ends.last().unwrap());
    for length in 0..=capture.len() {
        let ran = replay(&capture[..length]);
        let seen = packets.iter().filter(|end| **end <= length).count();
        let out = ["", UNREPLIED, UDP_ENTRY_LINE][seen];
        if length < 4 {
            assert_eq!(ran.code, Some(1), "{length}");
            assert!(ran.err.contains(if length == 0 { "is empty" } else { "is no capture" }), "{length}: {}", ran.err);
        } else if ends.contains(&length) {
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), out), "{length}: {}", ran.err);
        } else {
            let before = ends.iter().copied().filter(|end| *end < length).max().unwrap_or(0);
            assert_breaks_at(&ran, before, out, &format!("it ends at byte {length}, inside "));
        }
    }
}

#[test]
fn truncated_pcap_at_every_byte() {
    for (order, nanos) in [(ByteOrder::Little, false), (ByteOrder::Big, true)] {
        replay_every_prefix(&pcap(order, nanos, linktype::RAW, &udp_request_and_reply()), &[24, 72, 120], &[72, 120]);
    }
}

#[test]
fn truncated_pcapng_at_every_byte() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        replay_every_prefix(&pcapng(order, linktype::RAW, &udp_request_and_reply()), &[28, 60, 124, 188], &[124, 188]);
    }
}

#[test]
fn truncated_gzip_and_zstd_give_all_complete_packets() {
    let capture = pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&capture).unwrap();
    let gzip = gzip.finish().unwrap();
    for length in 1..gzip.len() {
        let ran = replay(&gzip[..length]);
        assert!(ran.code == Some(1) && !ran.err.contains("panicked"), "{length}: {:?} {}", ran.code, ran.err);
    }
    // Only the check at its end is missing: everything was read, but nobody vouches for it.
    assert_breaks_at(&replay(&gzip[..gzip.len() - 1]), 120, UDP_ENTRY_LINE, "of its uncompressed content");
    let [first, second] = [&capture[..72], &capture[72..]].map(|part| zstd::encode_all(part, 1).unwrap());
    for length in 1..second.len() {
        let ran = replay(&[&first, &second[..length]].concat());
        assert_breaks_at(&ran, 72, UNREPLIED, "of its uncompressed content");
    }
    let rubbish = [gzip, b"and more".to_vec()].concat();
    assert_breaks_at(&replay(&rubbish), 120, UDP_ENTRY_LINE, "of its uncompressed content");
}

/// What begins every pcapng file here: a section and one interface of 60 bytes, a packet of 64.
fn section_header(order: ByteOrder) -> Vec<u8> {
    let question = common::enhanced_packet_block(order, 0, 1, &udp_packet(4000, false));
    [common::section_header_block(order), common::interface_description_block(order, linktype::RAW, 6), question]
        .concat()
}

#[test]
fn inconsistent_pcapng_blocks_are_reported_with_offset() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let packet = common::enhanced_packet_block(order, 0, 1, &udp_packet(4001, false));
        let with = |at: usize, number: u32| {
            let mut block = packet.clone();
            block[at..at + 4].copy_from_slice(&order.put_u32(number));
            block
        };
        let foreign = common::pcapng_block(order, 5, &[1; 8]);
        let simple = common::pcapng_block(order, 3, &[&order.put_u32(32)[..], &udp_packet(4001, false)].concat());
        let ends_wrong = |mut block: Vec<u8>| {
            let end = block.len() - 4;
            block[end..].copy_from_slice(&order.put_u32(4));
            block
        };
        let mut section = common::section_header_block(order);
        section[8] = 7;
        for (what, block) in [
            ("claims 4294967280 bytes", with(4, 0xffff_fff0)),
            ("claims 63 bytes", with(4, 63)),
            ("claims 8 bytes", with(4, 8)),
            ("claims 0 bytes", with(4, 0)),
            ("it ends at byte 188, inside ", with(4, 68)),
            ("64 bytes at its beginning and 4 at its end", ends_wrong(packet.clone())),
            ("48 bytes at its beginning and 4 at its end", ends_wrong(simple)),
            ("20 bytes at its beginning and 4 at its end", ends_wrong(foreign)),
            ("a block's content is longer than the block", with(20, 60_000)),
            ("inconsistent", with(20, u32::MAX)),
            ("interface 9, which no earlier block describes", with(8, 9)),
            (
                "clock has an unsupported resolution (0x7f)",
                common::interface_description_block(order, linktype::RAW, 0x7f),
            ),
            ("unknown byte order", section),
        ] {
            // Something stands behind, too: what is broken is not taken for what is only not whole yet.
            let capture = [section_header(order), block].concat();
            let behind =
                if what.starts_with("it ends") { Vec::new() } else { common::section_header_block(order).repeat(9) };
            assert_breaks_at(&replay(&[capture, behind].concat()), 124, UNREPLIED, what);
        }
    }
}

#[test]
fn inconsistent_pcap_records_are_reported_with_offset() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let capture = pcap(order, false, linktype::RAW, &udp_request_and_reply());
        let mut huge = capture.clone();
        huge[80..84].copy_from_slice(&order.put_u32(u32::MAX));
        assert_breaks_at(&replay(&huge), 72, UNREPLIED, "claims 4294967295 bytes");
        let mut long = capture;
        long[80..84].copy_from_slice(&order.put_u32(1000));
        assert_breaks_at(&replay(&long), 72, UNREPLIED, "it ends at byte 120, inside a packet");
    }
}

#[test]
fn truncated_or_corrupt_file_header() {
    // A section of another byte order than there is, one that is too short, one whose length is nonsense.
    for (bytes, what) in [
        (
            &b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x01\x02\x03\x04\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0"[..],
            "inconsistent",
        ),
        (b"\x0a\x0d\x0d\x0a\x10\0\0\0\x4d\x3c\x2b\x1a\x10\0\0\0", "inconsistent"),
        (b"\x0a\x0d\x0d\x0a\xf0\xff\xff\xff\x4d\x3c\x2b\x1a", "inside the file header"),
        (b"\xd4\xc3\xb2\xa1\x02\0\x04\0", "inside the file header"),
    ] {
        assert_breaks_at(&replay(bytes), 0, "", what);
    }
}

#[test]
fn packet_without_interface_description() {
    let order = ByteOrder::Little;
    let packet = common::enhanced_packet_block(order, 0, 1, &udp_packet(4000, false));
    assert_breaks_at(
        &replay(&[common::section_header_block(order), packet].concat()),
        28,
        "",
        "interface 0, which no earlier block",
    );
    // Interfaces of an earlier section are not those of this one.
    let capture = [
        section_header(order),
        common::section_header_block(order),
        common::enhanced_packet_block(order, 0, 1, &udp_packet(4000, true)),
    ]
    .concat();
    assert_breaks_at(&replay(&capture), 152, UNREPLIED, "interface 0, which no earlier block");
}
