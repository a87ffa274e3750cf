//! `keepstate replay` as a process: every kind of capture, every way to break one, and the mistakes people make.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{LINE, Order, Ran, Scratch, conversation, datagram, frame, framed, keepstate, link, pcap, pcapng};
use std::io::Write;
use std::process::{Command, Stdio};

fn replay(capture: &[u8], options: &[&str]) -> Ran {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

#[track_caller]
fn shows_the_conversation(what: &str, ran: &Ran) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE), "{what}: {}", ran.err);
    assert!(ran.err.contains("1 flow entries have been shown"), "{what}: {}", ran.err);
}

/// Exit code 1, nothing half-written, and a sentence with these pieces.
#[track_caller]
fn fails(ran: &Ran, code: i32, pieces: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.err);
    for piece in pieces {
        assert!(ran.err.contains(piece), "no {piece:?} in: {}", ran.err);
    }
}

#[test]
fn every_format_order_and_link_type_gives_the_same_table() {
    for link in [link::NULL, link::ETHERNET, link::RAW, link::LOOP, link::COOKED, link::IPV4, link::COOKED_2] {
        for order in [Order::Little, Order::Big] {
            for nanos in [false, true] {
                let capture = pcap(order, nanos, link, &framed(link));
                shows_the_conversation(&format!("pcap {order:?} nanos {nanos} link {link}"), &replay(&capture, &[]));
            }
            let capture = pcapng(order, link, &framed(link));
            shows_the_conversation(&format!("pcapng {order:?} link {link}"), &replay(&capture, &[]));
        }
    }
}

#[test]
fn vlan_tags_are_looked_through() {
    for tags in [&[0x81, 0, 0, 7][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]] {
        let tagged: Vec<_> = framed(link::ETHERNET)
            .into_iter()
            .map(|(time, frame)| (time, [&frame[..12], tags, &frame[12..]].concat()))
            .collect();
        shows_the_conversation(
            &format!("{tags:x?}"),
            &replay(&pcap(Order::Little, false, link::ETHERNET, &tagged), &[]),
        );
    }
}

#[test]
fn interfaces_of_one_file_have_their_own_links_and_clocks() {
    let order = Order::Little;
    let [(asked, question), (answered, answer)] = conversation().try_into().unwrap();
    let capture = [
        common::section(order),
        common::interface(order, link::ETHERNET, 9),
        common::interface(order, link::RAW, 3),
        common::packet(order, 0, asked, &frame(link::ETHERNET, &question)),
        common::packet(order, 1, answered / 1_000_000, &answer),
    ]
    .concat();
    shows_the_conversation("two interfaces", &replay(&capture, &[]));
}

#[test]
fn compressed_captures_are_read_as_they_are() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&capture).unwrap();
    shows_the_conversation("gzip", &replay(&gzip.finish().unwrap(), &[]));
    let frames = [&capture[..40], &capture[40..]].map(|part| zstd::encode_all(part, 1).unwrap()).concat();
    shows_the_conversation("zstd, two frames", &replay(&frames, &[]));
    let file = Scratch::new("plain.pcap", &capture);
    shows_the_conversation("a file", &keepstate(&["replay", file.path()], &[]));
}

/// What stands before the break is shown, the error names the octet, and nothing panics.
#[test]
fn a_capture_cut_anywhere_says_where_it_breaks() {
    let captures =
        [pcap(Order::Little, false, link::RAW, &conversation()), pcapng(Order::Little, link::RAW, &conversation())];
    for capture in captures {
        let whole = replay(&capture, &[]);
        assert_eq!(whole.code, Some(0));
        let mut full = 0;
        for length in 0..capture.len() {
            let ran = replay(&capture[..length], &[]);
            assert!(!ran.err.contains("panicked"), "{length}: {}", ran.err);
            match ran.code {
                // Between two records a capture may end.
                Some(0) => full += 1,
                Some(1) => assert!(
                    ran.err.contains("byte") || ran.err.contains("no capture") || ran.err.contains("is empty"),
                    "{length}: {}",
                    ran.err
                ),
                other => assert_eq!(other, Some(1), "{length}: {}", ran.err),
            }
            let lines = ran.out.lines().count();
            assert!(lines <= 1, "{length}: {}", ran.out);
        }
        assert!((2..=4).contains(&full), "{full} cuts are between two records");
        // All but the last octet: the question was read, and is unanswered.
        let ran = replay(&capture[..capture.len() - 1], &[]);
        assert!(ran.out.contains("[UNREPLIED]"), "{}", ran.out);
    }
}

#[test]
fn a_compressed_capture_cut_short_gives_what_was_in_it() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&capture).unwrap();
    let gzip = gzip.finish().unwrap();
    for length in 1..gzip.len() {
        let ran = replay(&gzip[..length], &[]);
        assert!(ran.code == Some(1) && !ran.err.contains("panicked"), "{length}: {:?} {}", ran.code, ran.err);
    }
}

#[test]
fn hostile_blocks_are_refused_and_never_believed() {
    let order = Order::Little;
    let head = [common::section(order), common::interface(order, link::RAW, 6)].concat();
    let question = datagram(4000, false);
    let good = common::packet(order, 0, 1, &question);
    let mut huge = common::packet(order, 0, 1, &question);
    huge[4..8].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let mut longer_than_block = common::packet(order, 0, 1, &question);
    longer_than_block[20..24].copy_from_slice(&60_000u32.to_le_bytes());
    let nobodys = common::packet(order, 9, 1, &question);
    let mut odd_ends = common::packet(order, 0, 1, &question);
    let last = odd_ends.len() - 4;
    odd_ends[last..].copy_from_slice(&7u32.to_le_bytes());
    for (what, block) in
        [("huge", huge), ("longer", longer_than_block), ("no such interface", nobodys), ("odd ends", odd_ends)]
    {
        let ran = replay(&[head.clone(), good.clone(), block].concat(), &[]);
        assert!(!ran.err.contains("panicked"), "{what}: {}", ran.err);
        assert!(ran.out.contains("sport=4000"), "{what}: what stood before was lost: {} {}", ran.out, ran.err);
        assert!(ran.code == Some(0) || ran.err.contains("byte"), "{what}: {:?} {}", ran.code, ran.err);
    }
}

#[test]
fn odd_but_honest_captures_are_read() {
    let none = replay(&pcap(Order::Little, false, link::RAW, &[]), &[]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""), "{}", none.err);
    let empty_frames: Vec<_> = [(1, vec![]), (2, vec![0])].into_iter().chain(conversation()).collect();
    shows_the_conversation("empty frames", &replay(&pcap(Order::Little, false, link::RAW, &empty_frames), &[]));
    // Seconds are of 32 bits without a sign: until 2106.
    let late: Vec<_> =
        conversation().into_iter().map(|(time, octets)| (time + 2_500_000_000_000_000_000, octets)).collect();
    shows_the_conversation("the year 2103", &replay(&pcap(Order::Little, true, link::RAW, &late), &[]));
    let early: Vec<_> = conversation().into_iter().map(|(_, octets)| (0, octets)).collect();
    shows_the_conversation("no time at all", &replay(&pcap(Order::Little, true, link::RAW, &early), &[]));
    // A simple packet block has no time.
    let order = Order::Little;
    let simple = |octets: Vec<u8>| common::block(order, 3, &[&order.four(octets.len() as u32)[..], &octets].concat());
    let head = [common::section(order), common::interface(order, link::RAW, 6)].concat();
    let blocks = conversation().into_iter().flat_map(|(_, octets)| simple(octets)).collect();
    shows_the_conversation("simple packet blocks", &replay(&[head, blocks].concat(), &[]));
}

#[test]
fn time_does_not_go_back() {
    let mut frames = conversation();
    frames.push((frames[0].0 - 5_000_000_000, datagram(4000, false)));
    let ran = replay(&pcap(Order::Little, false, link::RAW, &frames), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE));
    assert_eq!(ran.err.matches("1 frames were older than one before them").count(), 1, "{}", ran.err);
}

#[test]
fn the_outputs_are_conntracks() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let out = |options: &[&str]| {
        let ran = replay(&capture, options);
        assert_eq!(ran.code, Some(0), "{options:?}: {}", ran.err);
        ran.out
    };
    assert_eq!(out(&["-o", "extended"]), format!("ipv4     2 {LINE}"));
    assert!(out(&["-o", "id"]).trim_end().rsplit_once(" id=").unwrap().1.parse::<u32>().is_ok());
    assert!(out(&["-o", "xml"]).starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>"));
    assert!(out(&["-o", "save"]).starts_with("-A -t 30 "), "{}", out(&["-o", "save"]));
    assert!(out(&["-o", "json"]).contains("\"source_port\":4000"), "{}", out(&["-o", "json"]));
    let events = out(&["--events"]);
    let kinds: Vec<&str> = events.lines().map(|line| line.split(']').next().unwrap().trim()).collect();
    assert_eq!(kinds, ["[NEW", "[UPDATE"], "{events}");
    assert!(out(&["--stats"]).contains("invalid=0"));
    let each = out(&["--each"]);
    assert!(each.contains("NEW") && each.contains("ESTABLISHED"), "{each}");
    assert_eq!(out(&["-p", "tcp"]), "");
    assert_eq!(out(&["-p", "udp", "--sport", "4000", "-s", "10.0.0.0/8"]), LINE);
    assert_eq!(out(&["--at", "20"]), LINE.replace("17 30", "17 10"));
    assert_eq!(out(&["--at", "2023-11-14T22:14:20Z"]), "", "sixty seconds later it has expired");
    assert_eq!(
        out(&["--set", "nf_conntrack_udp_timeout=7", "--set", "nf_conntrack_udp_timeout=8"]),
        LINE.replace("17 30", "17 8")
    );
}

#[test]
fn what_sysctl_prints_can_be_given_back() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let file = Scratch::new(
        "sysctl",
        b"# all\nnet.netfilter.nf_conntrack_count = 5\nnet.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_udp_timeout = 9\n",
    );
    let ran = replay(&capture, &["--sysctl", file.path()]);
    assert_eq!((ran.code, ran.out), (Some(0), LINE.replace("17 30", "17 9")));
    assert!(ran.err.contains("2 keys were passed over"), "{}", ran.err);
}

#[test]
fn mistakes_are_told_what_where_and_what_to_do() {
    let capture = pcap(Order::Little, false, link::RAW, &conversation());
    let broken =
        Scratch::new("broken-sysctl", b"net.netfilter.nf_conntrack_max = 10\nnet.netfilter.nf_conntrack_max = many\n");
    fails(&keepstate(&["replay", "/no/such/file"], &[]), 1, &["/no/such/file", "no such file"]);
    fails(&keepstate(&["replay", "/"], &[]), 1, &["is a folder"]);
    fails(&replay(b"", &[]), 1, &["empty"]);
    fails(&replay(b"# this is text and no capture at all\n", &[]), 1, &["no capture", "tcpdump"]);
    fails(&replay(&capture, &["--set", "nf_conntrack_tcp_lose=1"]), 1, &["did you mean nf_conntrack_tcp_loose"]);
    fails(&replay(&capture, &["--set", "nf_conntrack_tcp_loose=2"]), 1, &["takes 0 to 1, not 2"]);
    fails(&replay(&capture, &["--set", "nf_conntrack_max"]), 1, &["KEY=VALUE"]);
    fails(&replay(&capture, &["--set", "net.ipv4.ip_forward=1"]), 1, &["no knob of connection tracking"]);
    fails(&replay(&capture, &["--set", "nf_conntrack_count=1"]), 1, &["can only be read"]);
    fails(&replay(&capture, &["--sysctl", broken.path()]), 1, &["line 2", "many", "whole number"]);
    fails(&replay(&capture, &["-s", "10.0.0.400"]), 2, &["10.0.0.400"]);
    fails(&replay(&capture, &["-o", "yaml"]), 2, &["yaml"]);
    fails(&replay(&capture, &["--at", "yesterday"]), 2, &["yesterday", "12.5"]);
    fails(&replay(&capture, &["--evnts"]), 2, &["--events"]);
    fails(&replay(&capture, &["--helper", "irc"]), 2, &["known: ftp"]);
    fails(&keepstate(&[], &[]), 2, &["Usage"]);
}

#[test]
fn a_reader_who_has_enough_is_no_failure() {
    let frames: Vec<_> = (0..20_000u16).map(|port| (1_700_000_000_000_000_000, datagram(port, false))).collect();
    let file = Scratch::new("many.pcap", &pcap(Order::Little, false, link::RAW, &frames));
    let mut child = Command::new(env!("CARGO_BIN_EXE_keepstate"))
        .args(["replay", file.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !err.contains("panicked") && !err.contains("Broken pipe"), "{err}");
}
