//! Captures that break, and captures that lie: what stood before is told, then where it breaks, and nothing panics.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{LINE, Order, Ran, conversation, datagram, keepstate, link, pcap, pcapng};
use std::io::Write;

fn replay(capture: &[u8]) -> Ran {
    keepstate(&["replay", "-"], capture)
}

/// The line of a question without an answer.
const UNREPLIED: &str = "udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 [UNREPLIED] \
                         src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1\n";

/// Fails with exit code 1 where `offset` says, after `out`; `what` is why.
#[track_caller]
fn breaks(ran: &Ran, offset: usize, out: &str, what: &str) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), out), "{what}: {}", ran.err);
    let place = format!("-: the capture breaks at byte {offset}");
    assert!(ran.err.contains(&place) && ran.err.contains(what), "no {place:?} with {what:?} in: {}", ran.err);
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

/// Cuts `capture`, whose header and packets end at `ends`, at every octet.
#[track_caller]
fn cut_everywhere(capture: &[u8], ends: &[usize], packets: &[usize]) {
    assert_eq!(capture.len(), *ends.last().unwrap());
    for length in 0..=capture.len() {
        let ran = replay(&capture[..length]);
        let seen = packets.iter().filter(|end| **end <= length).count();
        let out = ["", UNREPLIED, LINE][seen];
        if length < 4 {
            assert_eq!(ran.code, Some(1), "{length}");
            assert!(ran.err.contains(if length == 0 { "is empty" } else { "is no capture" }), "{length}: {}", ran.err);
        } else if ends.contains(&length) {
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), out), "{length}: {}", ran.err);
        } else {
            let before = ends.iter().copied().filter(|end| *end < length).max().unwrap_or(0);
            breaks(&ran, before, out, &format!("it ends at byte {length}, in the middle of"));
        }
    }
}

#[test]
fn a_pcap_cut_anywhere() {
    for (order, nanos) in [(Order::Little, false), (Order::Big, true)] {
        cut_everywhere(&pcap(order, nanos, link::RAW, &conversation()), &[24, 72, 120], &[72, 120]);
    }
}

#[test]
fn a_pcapng_cut_anywhere() {
    for order in [Order::Little, Order::Big] {
        cut_everywhere(&pcapng(order, link::RAW, &conversation()), &[28, 60, 124, 188], &[124, 188]);
    }
}

#[test]
fn a_compressed_capture_cut_short_gives_what_was_in_it() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&capture).unwrap();
    let gzip = gzip.finish().unwrap();
    for length in 1..gzip.len() {
        let ran = replay(&gzip[..length]);
        assert!(ran.code == Some(1) && !ran.err.contains("panicked"), "{length}: {:?} {}", ran.code, ran.err);
    }
    // Only the check at its end is missing: everything was read, but nobody vouches for it.
    breaks(&replay(&gzip[..gzip.len() - 1]), 120, LINE, "of its uncompressed content");
    let [first, second] = [&capture[..72], &capture[72..]].map(|part| zstd::encode_all(part, 1).unwrap());
    for length in 1..second.len() {
        let ran = replay(&[&first, &second[..length]].concat());
        breaks(&ran, 72, UNREPLIED, "of its uncompressed content");
    }
    let rubbish = [gzip, b"and more".to_vec()].concat();
    breaks(&replay(&rubbish), 120, LINE, "of its uncompressed content");
}

/// What begins every pcapng file here: a section and one interface of 60 octets, a packet of 64.
fn head(order: Order) -> Vec<u8> {
    let question = common::packet(order, 0, 1, &datagram(4000, false));
    [common::section(order), common::interface(order, link::RAW, 6), question].concat()
}

#[test]
fn blocks_that_lie_break_the_capture_where_they_stand() {
    for order in [Order::Little, Order::Big] {
        let packet = common::packet(order, 0, 1, &datagram(4001, false));
        let with = |at: usize, number: u32| {
            let mut block = packet.clone();
            block[at..at + 4].copy_from_slice(&order.four(number));
            block
        };
        let foreign = common::block(order, 5, &[1; 8]);
        let simple = common::block(order, 3, &[&order.four(32)[..], &datagram(4001, false)].concat());
        let ends_wrong = |mut block: Vec<u8>| {
            let end = block.len() - 4;
            block[end..].copy_from_slice(&order.four(4));
            block
        };
        let mut section = common::section(order);
        section[8] = 7;
        for (what, block) in [
            ("claims 4294967280 octets", with(4, 0xffff_fff0)),
            ("claims 63 octets", with(4, 63)),
            ("claims 8 octets", with(4, 8)),
            ("claims 0 octets", with(4, 0)),
            ("it ends at byte 188, in the middle of", with(4, 68)),
            ("64 octets at its beginning and 4 at its end", ends_wrong(packet.clone())),
            ("48 octets at its beginning and 4 at its end", ends_wrong(simple)),
            ("20 octets at its beginning and 4 at its end", ends_wrong(foreign)),
            ("what a block holds is longer than the block", with(20, 60_000)),
            ("contradict", with(20, u32::MAX)),
            ("interface 9, which no block before it describes", with(8, 9)),
            ("clock has the unit 0x7f", common::interface(order, link::RAW, 0x7f)),
            ("no known byte order", section),
        ] {
            // Something stands behind, too: what is broken is not taken for what is only not whole yet.
            let capture = [head(order), block].concat();
            let behind = if what.starts_with("it ends") { Vec::new() } else { common::section(order).repeat(9) };
            breaks(&replay(&[capture, behind].concat()), 124, UNREPLIED, what);
        }
    }
}

#[test]
fn records_that_lie_break_the_capture_where_they_stand() {
    for order in [Order::Little, Order::Big] {
        let capture = pcap(order, false, link::RAW, &conversation());
        let mut huge = capture.clone();
        huge[80..84].copy_from_slice(&order.four(u32::MAX));
        breaks(&replay(&huge), 72, UNREPLIED, "claims 4294967295 octets");
        let mut long = capture;
        long[80..84].copy_from_slice(&order.four(1000));
        breaks(&replay(&long), 72, UNREPLIED, "it ends at byte 120, in the middle of a packet");
    }
}

#[test]
fn a_file_that_only_begins_like_a_capture() {
    // A section of another byte order than there is, one that is too short, one whose length is nonsense.
    for (octets, what) in [
        (
            &b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x01\x02\x03\x04\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0"[..],
            "contradict",
        ),
        (b"\x0a\x0d\x0d\x0a\x10\0\0\0\x4d\x3c\x2b\x1a\x10\0\0\0", "contradict"),
        (b"\x0a\x0d\x0d\x0a\xf0\xff\xff\xff\x4d\x3c\x2b\x1a", "in the middle of the header"),
        (b"\xd4\xc3\xb2\xa1\x02\0\x04\0", "in the middle of the header"),
    ] {
        breaks(&replay(octets), 0, "", what);
    }
}

#[test]
fn a_packet_without_any_interface() {
    let order = Order::Little;
    let packet = common::packet(order, 0, 1, &datagram(4000, false));
    breaks(&replay(&[common::section(order), packet].concat()), 28, "", "interface 0, which no block before it");
    // Interfaces of an earlier section are not those of this one.
    let capture = [head(order), common::section(order), common::packet(order, 0, 1, &datagram(4000, true))].concat();
    breaks(&replay(&capture), 152, UNREPLIED, "interface 0, which no block before it");
}
