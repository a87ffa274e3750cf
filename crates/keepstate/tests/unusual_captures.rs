//! Captures that are odd but honest: they are read like any other.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    ByteOrder, ProgramOutput, TempFile, UDP_ENTRY_LINE, enhanced_packet_block, interface_description_block, keepstate,
    linktype, pcap, pcapng, pcapng_block, report_skipped, section_header_block, udp_packet, udp_request_and_reply,
};
use keepstate_capture::Capture;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

fn replay(capture: &[u8], options: &[&str]) -> ProgramOutput {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

#[track_caller]
fn assert_shows_conversation(what: &str, capture: &[u8]) {
    let ran = replay(capture, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), UDP_ENTRY_LINE), "{what}: {}", ran.err);
}

const ORDERS: [ByteOrder; 2] = [ByteOrder::Little, ByteOrder::Big];

/// A block that describes an interface of raw IP with these options.
fn interface_with_options(order: ByteOrder, options: &[u8]) -> Vec<u8> {
    pcapng_block(order, 1, &[&order.put_u16(linktype::RAW)[..], &[0, 0], &order.put_u32(0), options].concat())
}

/// An option of a block, padded.
fn pcapng_option(order: ByteOrder, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = [&order.put_u16(code)[..], &order.put_u16(value.len() as u16), value].concat();
    option.resize(4 + value.len().next_multiple_of(4), 0);
    option
}

/// Question and answer as packets of interface 0, at these ticks of its clock.
fn two_packets_at(order: ByteOrder, ticks: [u64; 2]) -> Vec<u8> {
    let frames = udp_request_and_reply().into_iter().zip(ticks);
    frames.flat_map(|((_, bytes), time)| enhanced_packet_block(order, 0, time, &bytes)).collect()
}

#[test]
fn captures_without_packets_or_with_empty_packets() {
    let none = replay(&pcap(ByteOrder::Little, false, linktype::RAW, &[]), &[]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    assert!(none.err.contains("0 flow entries have been shown"), "{}", none.err);
    let none = replay(&pcapng(ByteOrder::Big, linktype::RAW, &[]), &["--each"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    let empty_frames: Vec<_> = [(1, vec![]), (2, vec![0])].into_iter().chain(udp_request_and_reply()).collect();
    assert_shows_conversation("empty frames", &pcap(ByteOrder::Little, false, linktype::RAW, &empty_frames));
}

#[test]
fn packets_cut_by_snaplen() {
    let mut none = pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply());
    none[16..20].fill(0);
    assert_shows_conversation("a snap length of 0 is none", &none);
    // Records larger than the header says there are, and frames shorter on the wire than kept.
    none[16..20].copy_from_slice(&1u32.to_le_bytes());
    assert_shows_conversation("records know better", &none);
    none[36..40].copy_from_slice(&[0; 4]);
    let ran = replay(&none, &["--each"]);
    assert!(ran.code == Some(0) && !ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn extreme_timestamps() {
    let at = |change: fn(u64) -> u64| {
        udp_request_and_reply().into_iter().map(|(time, bytes)| (change(time), bytes)).collect::<Vec<_>>()
    };
    // Seconds are of 32 bits without a sign: until 2106.
    assert_shows_conversation(
        "the year 2103",
        &pcap(ByteOrder::Little, true, linktype::RAW, &at(|time| time + 2_500_000_000_000_000_000)),
    );
    assert_shows_conversation("no time at all", &pcap(ByteOrder::Little, true, linktype::RAW, &at(|_| 0)));
    for ticks in [[0, 0], [0, 1 << 40], [u64::MAX, u64::MAX], [u64::MAX - 1, 0], [0, u64::MAX]] {
        let capture = [
            section_header_block(ByteOrder::Little),
            interface_description_block(ByteOrder::Little, linktype::RAW, 6),
            two_packets_at(ByteOrder::Little, ticks),
        ]
        .concat();
        for options in [&[][..], &["--events", "-o", "timestamp"], &["-o", "json"], &["--at", "100"]] {
            let ran = replay(&capture, options);
            assert!(ran.code == Some(0) && !ran.err.contains("panicked"), "{ticks:?} {options:?}: {}", ran.err);
        }
    }
}

#[test]
fn if_tsresol_and_if_tsoffset() {
    let second = "[1700000000.000000]\t";
    for order in ORDERS {
        for (unit, ticks) in
            [(0u8, 1), (3, 1000), (6, 1_000_000), (9, 1_000_000_000), (0x80, 1), (0x8a, 1024), (0x94, 1 << 20)]
        {
            let times = [1_700_000_000 * ticks; 2];
            let capture = [
                section_header_block(order),
                interface_with_options(order, &pcapng_option(order, 9, &[unit])),
                two_packets_at(order, times),
            ]
            .concat();
            let ran = replay(&capture, &["--events", "-o", "timestamp"]);
            assert!(ran.code == Some(0) && ran.out.starts_with(second), "{unit:#x}: {}{}", ran.out, ran.err);
        }
        // Seconds to be added, and fewer than none.
        for (offset, ticks) in [(1_000_000_000i64, 700_000_000_000_000), (-300_000_000, 2_000_000_000_000_000)] {
            let offset = if order == ByteOrder::Little { offset.to_le_bytes() } else { offset.to_be_bytes() };
            let capture = [
                section_header_block(order),
                interface_with_options(order, &pcapng_option(order, 14, &offset)),
                two_packets_at(order, [ticks; 2]),
            ]
            .concat();
            let ran = replay(&capture, &["--events", "-o", "timestamp"]);
            assert!(ran.code == Some(0) && ran.out.starts_with(second), "{order:?}: {}{}", ran.out, ran.err);
        }
    }
}

#[test]
fn unknown_pcapng_blocks_are_skipped() {
    for order in ORDERS {
        let times = [1_700_000_000_000_000, 1_700_000_000_001_000];
        // Name resolution, statistics, secrets, custom ones, and a kind that nobody knows: with nonsense in them.
        for kind in [4, 5, 9, 10, 0x0bad, 0x4000_0bad, 0x8000_0001, 77] {
            for body in [&[][..], &[0xff; 4], &[0xff; 64]] {
                let capture = [
                    section_header_block(order),
                    pcapng_block(order, kind, body),
                    interface_description_block(order, linktype::RAW, 6),
                    two_packets_at(order, times),
                ]
                .concat();
                assert_shows_conversation(&format!("kind {kind} of {} bytes", body.len()), &capture);
            }
        }
        // Options that run over the end of their block, or say nothing.
        for options in
            [&[0xff; 4][..], &[0, 9, 0, 9], &pcapng_option(order, 9, &[]), &pcapng_option(order, 14, &[1, 2])]
        {
            let capture =
                [section_header_block(order), interface_with_options(order, options), two_packets_at(order, times)]
                    .concat();
            assert_shows_conversation(&format!("options {options:x?}"), &capture);
        }
        // Behind the end of options, nothing is one.
        let ended = [pcapng_option(order, 0, &[]), pcapng_option(order, 9, &[0x7f])].concat();
        assert_shows_conversation(
            "ended",
            &[section_header_block(order), interface_with_options(order, &ended), two_packets_at(order, times)]
                .concat(),
        );
    }
}

#[test]
fn simple_and_obsolete_packet_blocks() {
    for order in ORDERS {
        let simple = |bytes: &[u8]| pcapng_block(order, 3, &[&order.put_u32(bytes.len() as u32)[..], bytes].concat());
        let obsolete = |bytes: &[u8]| {
            let length = order.put_u32(bytes.len() as u32);
            let body = [
                &order.put_u16(0)[..],
                &order.put_u16(1),
                &order.put_u32(0x60a24),
                &order.put_u32(0x181e_4000),
                &length,
                &length,
                bytes,
            ];
            pcapng_block(order, 2, &body.concat())
        };
        for (what, pack) in [("simple", &simple as &dyn Fn(&[u8]) -> Vec<u8>), ("obsolete", &obsolete)] {
            let blocks: Vec<u8> = udp_request_and_reply().iter().flat_map(|(_, bytes)| pack(bytes)).collect();
            assert_shows_conversation(
                what,
                &[section_header_block(order), interface_description_block(order, linktype::RAW, 6), blocks].concat(),
            );
        }
        // A simple packet has no time: it does not make the clock begin.
        let timed = [
            section_header_block(order),
            interface_description_block(order, linktype::RAW, 6),
            simple(&udp_packet(9, false)),
            two_packets_at(order, [1_700_000_000_000_000; 2]),
        ];
        let ran = replay(&timed.concat(), &["--at", "20", "--sport", "4000", "-p", "udp"]);
        assert_eq!(ran.out, UDP_ENTRY_LINE.replace("17 30", "17 10"), "{}", ran.err);
    }
}

#[test]
fn sections_may_differ_in_byte_order_and_interfaces() {
    let [(asked, question), (answered, answer)] = udp_request_and_reply().try_into().unwrap();
    let first = pcapng(ByteOrder::Big, linktype::RAW, &[(asked, question)]);
    let second = [
        &section_header_block(ByteOrder::Little)[..],
        &interface_description_block(ByteOrder::Little, linktype::IPV4, 9),
        &enhanced_packet_block(ByteOrder::Little, 0, answered, &answer),
    ]
    .concat();
    assert_shows_conversation("two sections", &[first, second].concat());
}

#[test]
fn unsupported_link_types_are_named() {
    let ran = replay(&pcap(ByteOrder::Little, false, 105, &udp_request_and_reply()), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("link type 105 (IEEE802_11) is not supported"), "{}", ran.err);
}

/// A pipe that hands over one byte at a time.
struct OneByteReader(Vec<u8>, usize);

impl Read for OneByteReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.get(self.1).into_iter().zip(buffer).map(|(byte, place)| *place = *byte).count();
        self.1 += length;
        Ok(length)
    }
}

#[test]
fn reads_one_byte_at_a_time() {
    let comment = pcapng_option(ByteOrder::Little, 1, &[b'x'; 5000]);
    let body = [&ByteOrder::Little.put_u32(0x1a2b_3c4d)[..], &[1, 0, 0, 0], &[0xff; 8], &comment].concat();
    let times = two_packets_at(ByteOrder::Little, [1, 2]);
    let long_header = [
        pcapng_block(ByteOrder::Little, 0x0a0d_0d0a, &body),
        interface_description_block(ByteOrder::Little, linktype::RAW, 6),
        times,
    ]
    .concat();
    let zstd = zstd::encode_all(&long_header[..], 1).unwrap();
    for bytes in [pcap(ByteOrder::Big, true, linktype::RAW, &udp_request_and_reply()), long_header, zstd] {
        let mut capture = Capture::from_reader(OneByteReader(bytes, 0), Path::new("drip")).unwrap();
        let mut seen = Vec::new();
        capture
            .for_each_frame(|frame| {
                seen.push(frame.data.to_vec());
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen, [udp_packet(4000, false), udp_packet(4000, true)]);
    }
}

#[test]
fn reads_from_a_fifo() {
    let fifo = TempFile::new("fifo", b"");
    std::fs::remove_file(fifo.path()).unwrap();
    if !Command::new("mkfifo").arg(fifo.path()).status().is_ok_and(|status| status.success()) {
        return report_skipped("a named pipe (needs mkfifo)");
    }
    let (path, capture) = (fifo.0.clone(), pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply()));
    let writer = std::thread::spawn(move || std::fs::write(path, capture).unwrap());
    let ran = keepstate(&["replay", fifo.path()], &[]);
    writer.join().unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), UDP_ENTRY_LINE), "{}", ran.err);
}

#[test]
fn output_from_a_pipe_is_not_delayed() {
    for (option, first) in [("--events", "    [NEW] udp "), ("--each", "# number ")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
            .args(["replay", "-", option])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut pipe, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        pipe.write_all(&pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply())).unwrap();
        let (told, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).unwrap();
            told.send(line).unwrap();
        });
        // The pipe stays open: whoever waited for its end would never answer.
        let line = hears.recv_timeout(Duration::from_secs(20));
        drop(pipe);
        child.wait().unwrap();
        assert!(line.as_ref().is_ok_and(|line| line.starts_with(first)), "{option}: {line:?}");
    }
}
