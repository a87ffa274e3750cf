//! `keepstate replay` as a process: every kind of capture, and what is printed of it.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{
    ByteOrder, ProgramOutput, TempFile, UDP_ENTRY_LINE, framed_conversation, keepstate, link_frame, linktype, pcap,
    pcapng, udp_packet, udp_request_and_reply,
};
use std::io::Write;

fn replay(capture: &[u8], options: &[&str]) -> ProgramOutput {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

#[track_caller]
fn assert_shows_conversation(what: &str, ran: &ProgramOutput) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), UDP_ENTRY_LINE), "{what}: {}", ran.err);
    assert!(ran.err.contains("1 flow entries have been shown"), "{what}: {}", ran.err);
}

#[test]
fn every_format_order_and_link_type_gives_the_same_table() {
    for link in [
        linktype::NULL,
        linktype::ETHERNET,
        linktype::RAW,
        linktype::LOOP,
        linktype::COOKED,
        linktype::IPV4,
        linktype::COOKED_2,
    ] {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            for nanos in [false, true] {
                let capture = pcap(order, nanos, link, &framed_conversation(link));
                assert_shows_conversation(&format!("pcap {order:?} nanos {nanos} link {link}"), &replay(&capture, &[]));
            }
            let capture = pcapng(order, link, &framed_conversation(link));
            assert_shows_conversation(&format!("pcapng {order:?} link {link}"), &replay(&capture, &[]));
        }
    }
}

#[test]
fn vlan_tags_are_skipped() {
    for tags in [&[0x81, 0, 0, 7][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]] {
        let tagged: Vec<_> = framed_conversation(linktype::ETHERNET)
            .into_iter()
            .map(|(time, frame)| (time, [&frame[..12], tags, &frame[12..]].concat()))
            .collect();
        assert_shows_conversation(
            &format!("{tags:x?}"),
            &replay(&pcap(ByteOrder::Little, false, linktype::ETHERNET, &tagged), &[]),
        );
    }
}

#[test]
fn interfaces_have_their_own_link_type_and_clock() {
    let order = ByteOrder::Little;
    let [(asked, question), (answered, answer)] = udp_request_and_reply().try_into().unwrap();
    let capture = [
        common::section_header_block(order),
        common::interface_description_block(order, linktype::ETHERNET, 9),
        common::interface_description_block(order, linktype::RAW, 3),
        common::enhanced_packet_block(order, 0, asked, &link_frame(linktype::ETHERNET, &question)),
        common::enhanced_packet_block(order, 1, answered / 1_000_000, &answer),
    ]
    .concat();
    assert_shows_conversation("two interfaces", &replay(&capture, &[]));
}

#[test]
fn reads_gzip_and_zstd() {
    let capture = pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&capture).unwrap();
    assert_shows_conversation("gzip", &replay(&gzip.finish().unwrap(), &[]));
    let frames = [&capture[..40], &capture[40..]].map(|part| zstd::encode_all(part, 1).unwrap()).concat();
    assert_shows_conversation("zstd, two frames", &replay(&frames, &[]));
    let file = TempFile::new("plain.pcap", &capture);
    assert_shows_conversation("a file", &keepstate(&["replay", file.path()], &[]));
}

#[test]
fn time_does_not_go_back() {
    let mut frames = udp_request_and_reply();
    frames.push((frames[0].0 - 5_000_000_000, udp_packet(4000, false)));
    let ran = replay(&pcap(ByteOrder::Little, false, linktype::RAW, &frames), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), UDP_ENTRY_LINE));
    assert_eq!(ran.err.matches("1 frame was older than an earlier one").count(), 1, "{}", ran.err);
}

/// Each note once: first those about the options, then the number of entries, then those about the capture.
#[test]
fn notes_come_once_and_in_order() {
    let file = TempFile::new("notes-order", b"net.ipv4.ip_forward = 1\n");
    let mut frames = udp_request_and_reply();
    frames.push((frames[0].0 - 5_000_000_000, udp_packet(4000, false)));
    frames.push((frames[1].0, vec![0x45, 0]));
    let ran = replay(&pcap(ByteOrder::Little, false, linktype::RAW, &frames), &["--sysctl", file.path()]);
    let notes: Vec<&str> = ran.err.lines().collect();
    let expected = [
        "1 key was ignored: not about connection tracking",
        "1 flow entries have been shown.",
        "1 frame was older than an earlier one",
        "keepstate: frames 4: ",
    ];
    assert_eq!(notes.len(), expected.len(), "{}", ran.err);
    assert!(notes.iter().zip(expected).all(|(note, part)| note.contains(part)), "{}", ran.err);
}

/// What a run on the conversation prints; it must succeed.
#[track_caller]
fn replay_stdout(options: &[&str]) -> String {
    let ran = replay(&pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply()), options);
    assert_eq!(ran.code, Some(0), "{options:?}: {}", ran.err);
    ran.out
}

#[test]
fn outputs_match_conntrack() {
    assert_eq!(replay_stdout(&["-o", "extended"]), format!("ipv4     2 {UDP_ENTRY_LINE}"));
    assert!(replay_stdout(&["-o", "id"]).trim_end().rsplit_once(" id=").unwrap().1.parse::<u32>().is_ok());
    assert_eq!(
        replay_stdout(&["-o", "id", "--seed", "7"]),
        replay_stdout(&["-o", "id", "--seed", "7"]),
        "a seed makes ids the same"
    );
    assert_eq!(
        replay_stdout(&["-o", "id", "-o", "extended", "--seed", "7"]),
        replay_stdout(&["-o", "extended,id", "--seed", "7"])
    );
    assert!(replay_stdout(&["-o", "save"]).starts_with("-A -t 30 "), "{}", replay_stdout(&["-o", "save"]));
    let times = ["-o", "ktimestamp", "--set", "nf_conntrack_timestamp=1"];
    assert!(replay_stdout(&times).contains(" delta-time=0 [start="), "{}", replay_stdout(&times));
    // conntrack shows no labels where there are none, nor times that were not taken.
    assert_eq!(replay_stdout(&["-o", "timestamp,ktimestamp,labels"]), UDP_ENTRY_LINE);
    let counted = UDP_ENTRY_LINE
        .replace("dport=53 ", "dport=53 packets=1 bytes=32 ")
        .replace("dport=4000 ", "dport=4000 packets=1 bytes=32 ");
    assert_eq!(replay_stdout(&["--set", "nf_conntrack_acct=1"]), counted);
    assert_eq!(
        replay_stdout(&["--stats"]),
        "cpu=0   \tfound=0 invalid=0 insert=0 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 \n"
    );
    assert_eq!(replay_stdout(&["-z", "--stats"]), replay_stdout(&["--stats"]));
}

#[test]
fn events_match_conntrack() {
    let [new, update] = [
        "    [NEW] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n",
        " [UPDATE] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n",
    ];
    let destroy = "[DESTROY] udp      17 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n";
    assert_eq!(replay_stdout(&["--events"]), [new, update].concat());
    assert_eq!(replay_stdout(&["--events", "--at", "31"]), [new, update, destroy].concat(), "it expires on the way");
    assert_eq!(replay_stdout(&["--events", "-p", "tcp"]), "");
    let timed = replay_stdout(&["--events", "-o", "timestamp"]);
    assert_eq!(timed, format!("[1700000000.000000]\t{new}[1700000000.001000]\t{update}"));
    // Each event stands behind the packet that caused it.
    let both: Vec<String> =
        replay_stdout(&["--events", "--each"]).lines().map(|line| line.trim().chars().take(4).collect()).collect();
    assert_eq!(both, ["# nu", "1  N", "[NEW", "2  E", "[UPD"]);
}

#[test]
fn json_is_json_and_xml_is_well_formed() {
    let table: serde_json::Value = serde_json::from_str(&replay_stdout(&["-o", "json"])).unwrap();
    assert_eq!(table.as_array().unwrap().len(), 1);
    assert_eq!((&table[0]["original"]["source_port"], &table[0]["timeout"]), (&4000.into(), &30.into()));
    let none: serde_json::Value = serde_json::from_str(&replay_stdout(&["-o", "json", "-p", "tcp"])).unwrap();
    assert_eq!(none, serde_json::json!([]));
    let events = replay_stdout(&["-o", "json,timestamp", "--events"]);
    let kinds: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["new", "update"]);
    let counters: serde_json::Value = serde_json::from_str(&replay_stdout(&["-o", "json", "--stats"])).unwrap();
    assert_eq!(counters["insert_failed"], 0);
    for options in [&["-o", "xml"][..], &["-o", "xml,id,ktimestamp"], &["-o", "xml,timestamp", "--events"]] {
        let xml = replay_stdout(options);
        assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>"), "{xml}");
        assert_eq!(common::open_tags(&xml), Vec::<String>::new(), "{xml}");
    }
}

#[test]
fn filters_select_entries() {
    assert_eq!(replay_stdout(&["-p", "tcp"]), "");
    assert_eq!(replay_stdout(&["-p", "udp", "--sport", "4000", "-s", "10.0.0.0/8"]), UDP_ENTRY_LINE);
    for chosen in
        [&["-d", "10.0.0.2"][..], &["-p", "17", "--dport", "53"], &["-f", "ipv4"], &["-u", "SEEN_REPLY"], &["-m", "0"]]
    {
        assert_eq!(replay_stdout(chosen), UDP_ENTRY_LINE, "{chosen:?}");
    }
    for refused in
        [&["-d", "10.0.0.3"][..], &["-p", "udp", "--dport", "54"], &["-f", "ipv6"], &["-u", "ASSURED"], &["-w", "7"]]
    {
        assert_eq!(replay_stdout(refused), "", "{refused:?}");
    }
    let lines = |options: &[&str]| replay_stdout(&[&["--each"], options].concat()).lines().count();
    assert_eq!([lines(&[]), lines(&["-p", "udp"]), lines(&["-p", "tcp"])], [3, 3, 1], "the first line is the heading");
}

#[test]
fn at_option_sets_the_end_time() {
    assert_eq!(
        replay_stdout(&["--at", "0"]),
        UDP_ENTRY_LINE.replace("dport=53 src", "dport=53 [UNREPLIED] src"),
        "the first packet has passed"
    );
    assert_eq!(replay_stdout(&["--at", "20"]), UDP_ENTRY_LINE.replace("17 30", "17 10"));
    assert_eq!(replay_stdout(&["--at", "1700000020"]), UDP_ENTRY_LINE.replace("17 30", "17 10"));
    assert_eq!(replay_stdout(&["--at", "2023-11-14T22:13:40Z"]), UDP_ENTRY_LINE.replace("17 30", "17 10"));
    assert_eq!(replay_stdout(&["--at", "2023-11-14T23:13:40+01:00"]), UDP_ENTRY_LINE.replace("17 30", "17 10"));
    assert_eq!(replay_stdout(&["--at", "2023-11-14T22:14:20Z"]), "", "sixty seconds later it has expired");
    assert_eq!(replay_stdout(&["--at", "999999999"]), "", "thirty years later, too");
    let early = replay(
        &pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply()),
        &["--at", "2000-01-01T00:00:00Z"],
    );
    assert_eq!((early.code, early.out.as_str()), (Some(0), ""));
    assert!(early.err.contains("--at is before the first packet"), "{}", early.err);
}

#[test]
fn later_set_options_win() {
    let twice = ["--set", "nf_conntrack_udp_timeout=7", "--set", "net.netfilter.nf_conntrack_udp_timeout = 0x8"];
    assert_eq!(replay_stdout(&twice), UDP_ENTRY_LINE.replace("17 30", "17 8"));
    let file = TempFile::new("later.conf", b"nf_conntrack_udp_timeout=50\n");
    assert_eq!(replay_stdout(&["--sysctl", file.path()]), UDP_ENTRY_LINE.replace("17 30", "17 50"));
    assert_eq!(
        replay_stdout(&["--set", "nf_conntrack_udp_timeout=9", "--sysctl", file.path()]),
        UDP_ENTRY_LINE.replace("17 30", "17 9"),
        "--set wins"
    );
    for version in ["4.19", "5.15", "6.18"] {
        assert_eq!(replay_stdout(&["--as-linux", version, "--memory", "1G"]), UDP_ENTRY_LINE);
    }
}

#[test]
fn accepts_sysctl_output_as_file() {
    let file = TempFile::new(
        "sysctl",
        b"# all\nkernel.hostname = a=b\nnet.netfilter.nf_conntrack_count = 5\nnet.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_udp_timeout = 9\n\
          net.netfilter.nf_conntrack_dccp_loose = 1\n",
    );
    let ran =
        replay(&pcap(ByteOrder::Little, false, linktype::RAW, &udp_request_and_reply()), &["--sysctl", file.path()]);
    assert_eq!((ran.code, ran.out), (Some(0), UDP_ENTRY_LINE.replace("17 30", "17 9")));
    for note in [
        "2 keys were ignored: not about connection tracking",
        "1 key was ignored: read-only",
        "1 key was ignored: removed in Linux 6.18",
    ] {
        assert_eq!(ran.err.matches(note).count(), 1, "{}", ran.err);
    }
}
