//! Captures that are odd but honest: they are read like any other.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    LINE, Order, Ran, Scratch, block, conversation, datagram, interface, keepstate, link, packet, pcap, pcapng,
    section, skipped,
};
use keepstate_capture::Capture;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

fn replay(capture: &[u8], options: &[&str]) -> Ran {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

#[track_caller]
fn shows_the_conversation(what: &str, capture: &[u8]) {
    let ran = replay(capture, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE), "{what}: {}", ran.err);
}

const ORDERS: [Order; 2] = [Order::Little, Order::Big];

/// A block that describes an interface of raw IP with these options.
fn described(order: Order, options: &[u8]) -> Vec<u8> {
    block(order, 1, &[&order.two(link::RAW)[..], &[0, 0], &order.four(0), options].concat())
}

/// An option of a block, padded.
fn option(order: Order, code: u16, value: &[u8]) -> Vec<u8> {
    let mut option = [&order.two(code)[..], &order.two(value.len() as u16), value].concat();
    option.resize(4 + value.len().next_multiple_of(4), 0);
    option
}

/// Question and answer as packets of interface 0, at these ticks of its clock.
fn packets(order: Order, ticks: [u64; 2]) -> Vec<u8> {
    let frames = conversation().into_iter().zip(ticks);
    frames.flat_map(|((_, octets), time)| packet(order, 0, time, &octets)).collect()
}

#[test]
fn without_packets_or_with_empty_ones() {
    let none = replay(&pcap(Order::Little, false, link::RAW, &[]), &[]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    assert!(none.err.contains("0 flow entries have been shown"), "{}", none.err);
    let none = replay(&pcapng(Order::Big, link::RAW, &[]), &["--each"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    let empty_frames: Vec<_> = [(1, vec![]), (2, vec![0])].into_iter().chain(conversation()).collect();
    shows_the_conversation("empty frames", &pcap(Order::Little, false, link::RAW, &empty_frames));
}

#[test]
fn snap_lengths() {
    let mut none = pcap(Order::Little, false, link::RAW, &conversation());
    none[16..20].fill(0);
    shows_the_conversation("a snap length of 0 is none", &none);
    // Records larger than the header says there are, and frames shorter on the wire than kept.
    none[16..20].copy_from_slice(&1u32.to_le_bytes());
    shows_the_conversation("records know better", &none);
    none[36..40].copy_from_slice(&[0; 4]);
    let ran = replay(&none, &["--each"]);
    assert!(ran.code == Some(0) && !ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn any_time_there_is() {
    let at = |change: fn(u64) -> u64| {
        conversation().into_iter().map(|(time, octets)| (change(time), octets)).collect::<Vec<_>>()
    };
    // Seconds are of 32 bits without a sign: until 2106.
    shows_the_conversation(
        "the year 2103",
        &pcap(Order::Little, true, link::RAW, &at(|time| time + 2_500_000_000_000_000_000)),
    );
    shows_the_conversation("no time at all", &pcap(Order::Little, true, link::RAW, &at(|_| 0)));
    for ticks in [[0, 0], [0, 1 << 40], [u64::MAX, u64::MAX], [u64::MAX - 1, 0], [0, u64::MAX]] {
        let capture =
            [section(Order::Little), interface(Order::Little, link::RAW, 6), packets(Order::Little, ticks)].concat();
        for options in [&[][..], &["--events", "-o", "timestamp"], &["-o", "json"], &["--at", "100"]] {
            let ran = replay(&capture, options);
            assert!(ran.code == Some(0) && !ran.err.contains("panicked"), "{ticks:?} {options:?}: {}", ran.err);
        }
    }
}

#[test]
fn clocks_of_every_kind() {
    let second = "[1700000000.000000]\t";
    for order in ORDERS {
        for (unit, ticks) in
            [(0u8, 1), (3, 1000), (6, 1_000_000), (9, 1_000_000_000), (0x80, 1), (0x8a, 1024), (0x94, 1 << 20)]
        {
            let times = [1_700_000_000 * ticks; 2];
            let capture =
                [section(order), described(order, &option(order, 9, &[unit])), packets(order, times)].concat();
            let ran = replay(&capture, &["--events", "-o", "timestamp"]);
            assert!(ran.code == Some(0) && ran.out.starts_with(second), "{unit:#x}: {}{}", ran.out, ran.err);
        }
        // Seconds to be added, and fewer than none.
        for (offset, ticks) in [(1_000_000_000i64, 700_000_000_000_000), (-300_000_000, 2_000_000_000_000_000)] {
            let offset = if order == Order::Little { offset.to_le_bytes() } else { offset.to_be_bytes() };
            let capture =
                [section(order), described(order, &option(order, 14, &offset)), packets(order, [ticks; 2])].concat();
            let ran = replay(&capture, &["--events", "-o", "timestamp"]);
            assert!(ran.code == Some(0) && ran.out.starts_with(second), "{order:?}: {}{}", ran.out, ran.err);
        }
    }
}

#[test]
fn blocks_that_are_not_for_us() {
    for order in ORDERS {
        let times = [1_700_000_000_000_000, 1_700_000_000_001_000];
        // Name resolution, statistics, secrets, custom ones, and a kind that nobody knows: with nonsense in them.
        for kind in [4, 5, 9, 10, 0x0bad, 0x4000_0bad, 0x8000_0001, 77] {
            for body in [&[][..], &[0xff; 4], &[0xff; 64]] {
                let capture =
                    [section(order), block(order, kind, body), interface(order, link::RAW, 6), packets(order, times)]
                        .concat();
                shows_the_conversation(&format!("kind {kind} of {} octets", body.len()), &capture);
            }
        }
        // Options that run over the end of their block, or say nothing.
        for options in [&[0xff; 4][..], &[0, 9, 0, 9], &option(order, 9, &[]), &option(order, 14, &[1, 2])] {
            let capture = [section(order), described(order, options), packets(order, times)].concat();
            shows_the_conversation(&format!("options {options:x?}"), &capture);
        }
        // Behind the end of options, nothing is one.
        let ended = [option(order, 0, &[]), option(order, 9, &[0x7f])].concat();
        shows_the_conversation("ended", &[section(order), described(order, &ended), packets(order, times)].concat());
    }
}

#[test]
fn packets_in_blocks_of_other_kinds() {
    for order in ORDERS {
        let simple = |octets: &[u8]| block(order, 3, &[&order.four(octets.len() as u32)[..], octets].concat());
        let obsolete = |octets: &[u8]| {
            let length = order.four(octets.len() as u32);
            let body = [
                &order.two(0)[..],
                &order.two(1),
                &order.four(0x60a24),
                &order.four(0x181e_4000),
                &length,
                &length,
                octets,
            ];
            block(order, 2, &body.concat())
        };
        for (what, pack) in [("simple", &simple as &dyn Fn(&[u8]) -> Vec<u8>), ("obsolete", &obsolete)] {
            let blocks: Vec<u8> = conversation().iter().flat_map(|(_, octets)| pack(octets)).collect();
            shows_the_conversation(what, &[section(order), interface(order, link::RAW, 6), blocks].concat());
        }
        // A simple packet has no time: it does not make the clock begin.
        let timed = [
            section(order),
            interface(order, link::RAW, 6),
            simple(&datagram(9, false)),
            packets(order, [1_700_000_000_000_000; 2]),
        ];
        let ran = replay(&timed.concat(), &["--at", "20", "--sport", "4000", "-p", "udp"]);
        assert_eq!(ran.out, LINE.replace("17 30", "17 10"), "{}", ran.err);
    }
}

#[test]
fn sections_may_differ_in_all() {
    let [(asked, question), (answered, answer)] = conversation().try_into().unwrap();
    let first = pcapng(Order::Big, link::RAW, &[(asked, question)]);
    let second = [
        &section(Order::Little)[..],
        &interface(Order::Little, link::IPV4, 9),
        &packet(Order::Little, 0, answered, &answer),
    ]
    .concat();
    shows_the_conversation("two sections", &[first, second].concat());
}

#[test]
fn link_types_that_are_not_read_are_named() {
    let ran = replay(&pcap(Order::Little, false, 105, &conversation()), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert!(ran.err.contains("link type 105 is not read here"), "{}", ran.err);
}

/// A pipe that hands over one octet at a time.
struct Drip(Vec<u8>, usize);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.get(self.1).into_iter().zip(buffer).map(|(octet, place)| *place = *octet).count();
        self.1 += length;
        Ok(length)
    }
}

#[test]
fn a_pipe_may_hand_over_one_octet_at_a_time() {
    let comment = option(Order::Little, 1, &[b'x'; 5000]);
    let body = [&Order::Little.four(0x1a2b_3c4d)[..], &[1, 0, 0, 0], &[0xff; 8], &comment].concat();
    let times = packets(Order::Little, [1, 2]);
    let long_header =
        [block(Order::Little, 0x0a0d_0d0a, &body), interface(Order::Little, link::RAW, 6), times].concat();
    let zstd = zstd::encode_all(&long_header[..], 1).unwrap();
    for octets in [pcap(Order::Big, true, link::RAW, &conversation()), long_header, zstd] {
        let mut capture = Capture::read(Drip(octets, 0), Path::new("drip")).unwrap();
        let mut seen = Vec::new();
        capture
            .frames(|frame| {
                seen.push(frame.data.to_vec());
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen, [datagram(4000, false), datagram(4000, true)]);
    }
}

#[test]
fn a_named_pipe_is_a_file() {
    let fifo = Scratch::new("fifo", b"");
    std::fs::remove_file(fifo.path()).unwrap();
    if !Command::new("mkfifo").arg(fifo.path()).status().is_ok_and(|status| status.success()) {
        return skipped("a named pipe (needs mkfifo)");
    }
    let (path, capture) = (fifo.0.clone(), pcap(Order::Little, false, link::RAW, &conversation()));
    let writer = std::thread::spawn(move || std::fs::write(path, capture).unwrap());
    let ran = keepstate(&["replay", fifo.path()], &[]);
    writer.join().unwrap();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE), "{}", ran.err);
}

#[test]
fn from_a_pipe_events_and_lines_are_shown_as_they_come() {
    for (option, first) in [("--events", "    [NEW] udp "), ("--each", "# number ")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
            .args(["replay", "-", option])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut pipe, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        pipe.write_all(&pcap(Order::Little, false, link::RAW, &conversation())).unwrap();
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
