//! Captures as they are really made: on the machine that sends, by `tcpdump -i any`, with a small snap length, or changed afterwards.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    ByteOrder, ProgramOutput, TempFile, UDP_ENTRY_LINE, keepstate, link_frame, linktype, pcap, udp_packet,
    udp_request_and_reply,
};
use keepstate_wire::checksum::{Sum, internet};

const SECOND: u64 = 1_000_000_000;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

fn replay(capture: &[u8], options: &[&str]) -> ProgramOutput {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

fn raw_pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    pcap(ByteOrder::Little, true, linktype::RAW, frames)
}

#[track_caller]
fn assert_shows_conversation(what: &str, ran: &ProgramOutput) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), UDP_ENTRY_LINE), "{what}: {}", ran.err);
}

/// Changes a packet.
type Change = fn(&mut Vec<u8>);
/// Puts a packet into a frame.
type Framing<'a> = dyn Fn(&[u8]) -> Vec<u8> + 'a;

/// The conversation, with each packet changed.
fn changed(change: impl Fn(&mut Vec<u8>)) -> Vec<(u64, Vec<u8>)> {
    let mut frames = udp_request_and_reply();
    frames.iter_mut().for_each(|(_, packet)| change(packet));
    frames
}

fn write_header_checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let check = internet(&packet[..20]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
}

fn partial_checksum(packet: &mut [u8], at: usize) {
    let protocol = u16::from(packet[9]);
    let length = u16::try_from(packet.len() - 20).unwrap();
    let sum = !Sum::new().add_bytes(&packet[12..20]).add_u16(protocol).add_u16(length).finish();
    packet[20 + at..22 + at].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn checksums_left_to_the_network_card_are_trusted() {
    let left_open: [(&str, Change); 3] = [
        ("UDP", |packet| partial_checksum(packet, 6)),
        ("IPv4 header", |packet| packet[10..12].fill(0)),
        ("length of a segment to be cut", |packet| {
            packet[2..4].fill(0);
            packet[10..12].fill(0);
        }),
    ];
    for (what, change) in left_open {
        let capture = raw_pcap(&changed(change));
        for options in [&[][..], &["--checksums", "auto"], &["--checksums", "trust"]] {
            assert_shows_conversation(what, &replay(&capture, options));
        }
        let ran = replay(&capture, &[]);
        assert!(ran.err.contains("They are trusted; --checksums verify refuses them"), "{what}: {}", ran.err);
        assert_eq!(ran.err.matches("They are trusted").count(), 1, "{}", ran.err);
        // One packet at a time, as they come.
        let ran = replay(&capture, &["--each"]);
        assert!(ran.out.contains("ESTABLISHED  reply"), "{what}: {}{}", ran.out, ran.err);
        let file = TempFile::new("open.pcap", &capture);
        assert_shows_conversation(what, &keepstate(&["replay", file.path()], b""));
        for options in [&["--checksums", "verify"][..], &["--set", "nf_conntrack_checksum=1"]] {
            let ran = replay(&capture, options);
            assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""), "{what}: {}", ran.err);
        }
    }
}

#[test]
fn checksums_of_changed_addresses_are_trusted_by_their_number() {
    let anonymised = changed(|packet| {
        // As a tool does that changes addresses and nothing else: now the sums are wrong.
        packet[10..12].copy_from_slice(&[0x12, 0x34]);
        packet[26..28].copy_from_slice(&[0x56, 0x78]);
    });
    let capture = raw_pcap(&anonymised);
    let ran = replay(&capture, &[]);
    assert_shows_conversation("all are wrong", &ran);
    assert!(ran.err.contains("wrong, as most of their sender's or of the capture"), "{}", ran.err);
    let ran = replay(&capture, &["--checksums", "verify"]);
    assert!(ran.out.is_empty() && ran.err.contains("--checksums trust tracks them"), "{}", ran.err);
    assert_shows_conversation("trust", &replay(&capture, &["--checksums", "trust"]));
    assert_shows_conversation("the sysctl wins", &{
        let mut sums_of_udp = anonymised.clone();
        sums_of_udp.iter_mut().for_each(|(_, packet)| write_header_checksum(packet));
        replay(&raw_pcap(&sums_of_udp), &["--checksums", "verify", "--set", "nf_conntrack_checksum=0"])
    });
}

#[test]
fn one_direction_with_wrong_checksums_is_trusted_and_one_wrong_packet_is_not() {
    let packets = |wrong: fn(u64, bool) -> bool| {
        let mut frames = Vec::new();
        for at in 0..6 {
            for answer in [false, true] {
                let mut packet = udp_packet(4000, answer);
                packet[27] ^= u8::from(wrong(at, answer));
                frames.push((1_700_000_000 * SECOND + at, packet));
            }
        }
        replay(&raw_pcap(&frames), &["--stats"]).out
    };
    assert!(packets(|_, answer| !answer).contains("invalid=0"));
    assert!(packets(|at, answer| at == 3 && answer).contains("invalid=1"));
}

#[test]
fn capture_that_begins_at_time_zero_has_timeouts() {
    let frames = [(0, udp_packet(4000, false)), (100 * SECOND, udp_packet(4001, false))];
    for link in [linktype::RAW, linktype::ETHERNET] {
        let framed: Vec<_> = frames.iter().map(|(time, packet)| (*time, link_frame(link, packet))).collect();
        let ran = replay(&pcap(ByteOrder::Little, true, link, &framed), &["--events"]);
        let kinds: Vec<_> = ran.out.lines().map(|line| line.split(']').next().unwrap().trim()).collect();
        assert_eq!(kinds, ["[NEW", "[DESTROY", "[NEW"], "{}{}", ran.out, ran.err);
        let ran = replay(&pcap(ByteOrder::Little, true, link, &framed), &[]);
        assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
    }
}

#[test]
fn modified_pcap_is_read_in_both_byte_orders() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let plain = pcap(order, false, linktype::RAW, &udp_request_and_reply());
        let mut modified = order.put_u32(0xa1b2_cd34).to_vec();
        modified.extend(&plain[4..24]);
        for record in plain[24..].chunks(16 + 32) {
            modified.extend(&record[..16]);
            modified.extend([0; 8]);
            modified.extend(&record[16..]);
        }
        assert_shows_conversation(&format!("{order:?}"), &replay(&modified, &[]));
        let ran = replay(&modified[..modified.len() - 1], &[]);
        assert!(ran.code == Some(1) && ran.err.contains("inside a packet"), "{}", ran.err);
    }
}

#[test]
fn ppp_and_nflog_are_read() {
    let nflog = |packet: &[u8], little: bool| {
        let number = |number: u16| if little { number.to_le_bytes() } else { number.to_be_bytes() };
        let mut frame = vec![2, 0, 0, 7];
        // The prefix, padded, then the packet.
        frame.extend([number(4 + 3), number(10)].concat());
        frame.extend([b'a', b'b', 0, 0]);
        frame.extend([number(4 + packet.len() as u16), number(9)].concat());
        frame.extend(packet);
        frame
    };
    let framings: [(u16, &Framing<'_>); 7] = [
        (9, &|packet| [&[0xff, 3, 0, 0x21], packet].concat()),
        (9, &|packet| [&[0, 0x21], packet].concat()),
        (9, &|packet| [&[0x21], packet].concat()),
        (50, &|packet| [&[0xff, 3, 0, 0x21], packet].concat()),
        (166, &|packet| [&[1, 3, 0, 0x21], packet].concat()),
        (239, &|packet| nflog(packet, true)),
        (239, &|packet| nflog(packet, false)),
    ];
    for (link, framing) in framings {
        let frames: Vec<_> = udp_request_and_reply().iter().map(|(time, packet)| (*time, framing(packet))).collect();
        let capture = pcap(ByteOrder::Little, true, link, &frames);
        assert_shows_conversation(&format!("link type {link}"), &replay(&capture, &[]));
    }
}

#[test]
fn capture_of_an_unsupported_link_type_fails_and_names_it() {
    let capture = pcap(ByteOrder::Little, true, 105, &udp_request_and_reply());
    let ran = replay(&capture, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert_eq!(ran.err.matches("link type 105 (IEEE802_11) is not supported").count(), 1, "{}", ran.err);
    let file = TempFile::new("radio.pcap", &capture);
    let ran = keepstate(&["simulate", "--capture", file.path()], b"");
    assert_eq!(ran.code, Some(1), "{}", ran.err);
}

/// A frame of `tcpdump -i any`.
fn cooked(interface: u8, outgoing: bool, packet: &[u8]) -> Vec<u8> {
    let kind = if outgoing { 4 } else { 0 };
    [&[8, 0, 0, 0, 0, 0, 0, interface, 0, 1, kind, 6, 2, 0, 0, 0, 0, 1, 0, 0], packet].concat()
}

/// The packet a hop further, with another source or destination if it was translated.
fn forwarded(packet: &[u8], source: Option<[u8; 4]>, destination: Option<[u8; 4]>) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[8] -= 1;
    for (at, address) in [(12, source), (16, destination)] {
        if let Some(address) = address {
            packet[at..at + 4].copy_from_slice(&address);
        }
    }
    packet[26..28].fill(0);
    write_header_checksum(&mut packet);
    packet
}

#[test]
fn packet_that_a_router_receives_and_sends_is_tracked_once() {
    let (request, reply) = (udp_packet(4000, false), udp_packet(4000, true));
    let time = |at: u64| 1_700_000_000 * SECOND + at * 1000;
    let plain = [
        (time(0), cooked(2, false, &request)),
        (time(1), cooked(3, true, &forwarded(&request, None, None))),
        (time(2), cooked(3, false, &reply)),
        (time(3), cooked(2, true, &forwarded(&reply, None, None))),
    ];
    let capture = pcap(ByteOrder::Little, true, linktype::COOKED_2, &plain);
    let ran = replay(&capture, &["--set", "nf_conntrack_acct=1"]);
    assert_eq!(ran.out.matches("packets=1 bytes=32").count(), 2, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("2 frames were skipped"), "{}", ran.err);
    let public = [192, 0, 2, 1];
    let translated = [
        (time(0), cooked(2, false, &request)),
        (time(1), cooked(3, true, &forwarded(&request, Some(public), None))),
        (
            time(2),
            cooked(3, false, &{
                let mut reply = forwarded(&reply, None, Some(public));
                reply[8] += 1;
                write_header_checksum(&mut reply);
                reply
            }),
        ),
        (time(3), cooked(2, true, &forwarded(&reply, None, None))),
    ];
    let capture = pcap(ByteOrder::Little, true, linktype::COOKED_2, &translated);
    assert_shows_conversation("translated", &replay(&capture, &[]));
    let ran = replay(&capture, &["--each"]);
    assert_eq!(ran.out.matches("DUPLICATE").count(), 2, "{}", ran.out);
    // Sent and received here, twice: no copies.
    let own = [(time(0), cooked(2, true, &request)), (time(1), cooked(2, false, &reply))];
    let capture = pcap(ByteOrder::Little, true, linktype::COOKED_2, &[own.clone(), own].concat());
    let ran = replay(&capture, &["--set", "nf_conntrack_acct=1"]);
    assert_eq!(ran.out.matches("packets=2 bytes=64").count(), 2, "{}{}", ran.out, ran.err);
}

/// A frame of an older `tcpdump -i any`, or of Wireshark's: the direction, and no interface.
fn cooked_1(outgoing: bool, packet: &[u8]) -> Vec<u8> {
    [&[0, if outgoing { 4 } else { 0 }, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], packet].concat()
}

/// What a router receives and sends of a request and its reply: interface, outgoing, packet.
fn seen_by_a_router(translated: Option<[u8; 4]>) -> [(u8, bool, Vec<u8>); 4] {
    let (request, reply) = (udp_packet(4000, false), udp_packet(4000, true));
    let mut answered = forwarded(&reply, None, translated);
    answered[8] += 1;
    write_header_checksum(&mut answered);
    [
        (2, false, request.clone()),
        (3, true, forwarded(&request, translated, None)),
        (3, false, answered),
        (2, true, forwarded(&reply, None, None)),
    ]
}

#[test]
fn routers_packets_are_tracked_once_where_only_the_direction_is_known() {
    let capture = |frames: &[(u8, bool, Vec<u8>)]| {
        let timed = frames.iter().zip(0..).map(|((_, outgoing, packet), at)| (at * 1000, cooked_1(*outgoing, packet)));
        pcap(ByteOrder::Little, true, linktype::COOKED, &timed.collect::<Vec<_>>())
    };
    for translated in [None, Some([192, 0, 2, 1])] {
        let frames = seen_by_a_router(translated);
        // Twice: what is known to be a copy stays one.
        let ran = replay(&capture(&[frames.clone(), frames].concat()), &["--set", "nf_conntrack_acct=1"]);
        assert_eq!(ran.out.matches("packets=2 bytes=64").count(), 2, "{}{}", ran.out, ran.err);
        assert_eq!(ran.out.lines().count(), 1, "{}", ran.out);
        assert!(ran.err.contains("4 frames were skipped"), "{}", ran.err);
    }
    let (request, reply) = (udp_packet(4000, false), udp_packet(4000, true));
    let own = [(2, true, request), (2, false, reply)];
    let ran = replay(&capture(&[own.clone(), own].concat()), &["--set", "nf_conntrack_acct=1"]);
    assert_eq!(ran.out.matches("packets=2 bytes=64").count(), 2, "{}{}", ran.out, ran.err);
}

#[test]
fn routers_packets_are_tracked_once_in_a_file_of_several_interfaces() {
    let order = ByteOrder::Big;
    for translated in [None, Some([192, 0, 2, 1])] {
        let mut blocks = vec![common::section_header_block(order)];
        blocks.extend((0..4).map(|_| common::interface_description_block(order, linktype::ETHERNET, 9)));
        let frames = seen_by_a_router(translated).into_iter().zip(0..);
        blocks.extend(frames.map(|((interface, _, packet), at)| {
            common::enhanced_packet_block(order, interface.into(), at * 1000, &link_frame(linktype::ETHERNET, &packet))
        }));
        let ran = replay(&blocks.concat(), &["--set", "nf_conntrack_acct=1"]);
        assert_eq!(ran.out.matches("packets=1 bytes=32").count(), 2, "{}{}", ran.out, ran.err);
        assert!(ran.err.contains("2 frames were skipped"), "{}", ran.err);
    }
}

/// A TCP segment between 10.0.0.1:4000 and 10.0.0.2:80, with a right checksum.
fn segment(reply: bool, flags: u8, [seq, ack]: [u32; 2], options: &[u8], data: usize) -> Vec<u8> {
    let (client, server) = (([10, 0, 0, 1], 4000u16), ([10, 0, 0, 2], 80u16));
    let (from, to) = if reply { (server, client) } else { (client, server) };
    let mut tcp = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    tcp.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    tcp.extend([(5 + options.len() as u8 / 4) << 4, flags, 1, 0, 0, 0, 0, 0]);
    tcp.extend(options);
    tcp.resize(tcp.len() + data, b'd');
    let length = u16::try_from(tcp.len()).unwrap();
    let sum = Sum::new().add_bytes(&from.0).add_bytes(&to.0).add_u16(6).add_u16(length).add_bytes(&tcp).finish();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = [&[0x45, 0], &(20 + length).to_be_bytes()[..], &[0, 1, 0x40, 0, 64, 6, 0, 0]].concat();
    packet.extend([from.0, to.0].concat());
    write_header_checksum(&mut packet);
    [packet, tcp].concat()
}

/// A capture that keeps `snaplen` bytes of each frame.
fn snapped(snaplen: usize, packets: &[Vec<u8>]) -> Vec<u8> {
    let frames: Vec<_> = packets.iter().map(|packet| (SECOND, link_frame(linktype::ETHERNET, packet))).collect();
    let kept: Vec<_> = frames.iter().map(|(time, frame)| (*time, frame[..snaplen.min(frame.len())].to_vec())).collect();
    let mut capture = pcap(ByteOrder::Little, true, linktype::ETHERNET, &kept);
    let mut at = 24;
    for (_, frame) in &frames {
        capture[at + 12..at + 16].copy_from_slice(&(frame.len() as u32).to_le_bytes());
        at += 16 + snaplen.min(frame.len());
    }
    capture
}

#[test]
fn handshake_whose_options_were_cut_off_makes_a_liberal_connection() {
    // Window scale is the last of the usual options: 68 bytes do not reach it.
    let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut packets = vec![
        segment(false, SYN, [99, 0], &options, 0),
        segment(true, SYN_ACK, [499, 100], &options, 0),
        segment(false, ACK, [100, 500], &[], 0),
    ];
    packets.extend((0..20).map(|number| segment(true, ACK, [500 + number * 1400, 100], &[], 1400)));
    let capture = snapped(68, &packets);
    let ran = replay(&capture, &["--each"]);
    assert_eq!(ran.out.matches("ESTABLISHED  reply").count(), 21, "{}", ran.out);
    assert!(!ran.out.contains("tcp_over_window") && !ran.out.contains("INVALID"), "{}", ran.out);
}

#[test]
fn frames_cut_by_the_capture_are_not_captured_and_not_invalid() {
    for snaplen in [4, 14, 20, 34, 36, 40] {
        let ran = replay(&snapped(snaplen, &[segment(false, SYN, [99, 0], &[], 0)]), &["--stats"]);
        assert!(ran.err.contains("not_captured 1"), "{snaplen}: {}", ran.err);
        assert!(ran.out.contains("invalid=0"), "{snaplen}: {}", ran.out);
    }
    let ran = replay(&snapped(34 + 6, &[udp_packet(4000, false)]), &["--stats"]);
    assert!(ran.err.contains("not_captured 1") && ran.out.contains("invalid=0"), "{}{}", ran.out, ran.err);
}

#[test]
fn fragments_cut_by_the_capture_are_tracked_by_their_headers() {
    let mut udp = udp_packet(4000, false);
    udp.resize(20 + 1200, b'd');
    udp[24..26].copy_from_slice(&1200u16.to_be_bytes());
    let fragment = |range: std::ops::Range<usize>, more: bool| {
        let mut packet = [&udp[..20], &udp[20 + range.start..20 + range.end]].concat();
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        let field = (range.start / 8) as u16 | u16::from(more) << 13;
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        write_header_checksum(&mut packet);
        packet
    };
    let capture = snapped(68, &[fragment(0..800, true), fragment(800..1200, false)]);
    let ran = replay(&capture, &["--set", "nf_conntrack_acct=1"]);
    assert!(ran.out.contains("sport=4000 dport=53 packets=1 bytes=1220"), "{}{}", ran.out, ran.err);
}

#[test]
fn each_note_is_printed_once() {
    let mut frames = udp_request_and_reply();
    frames.reverse();
    let ran = replay(&raw_pcap(&frames), &[]);
    assert_eq!(ran.err.matches("older than an earlier one").count(), 1, "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    let mut once = lines.clone();
    once.dedup();
    assert_eq!(lines, once);
}
