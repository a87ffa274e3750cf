//! `keepstate replay` as a process: every kind of capture, and what is printed of it.
#![allow(clippy::unwrap_used, reason = "a test speaks by panicking, its helpers too")]
mod common;

use common::{LINE, Order, Ran, Scratch, conversation, datagram, frame, framed, keepstate, link, pcap, pcapng};
use std::io::Write;

fn replay(capture: &[u8], options: &[&str]) -> Ran {
    keepstate(&[&["replay", "-"], options].concat(), capture)
}

#[track_caller]
fn shows_the_conversation(what: &str, ran: &Ran) {
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE), "{what}: {}", ran.err);
    assert!(ran.err.contains("1 flow entries have been shown"), "{what}: {}", ran.err);
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

#[test]
fn time_does_not_go_back() {
    let mut frames = conversation();
    frames.push((frames[0].0 - 5_000_000_000, datagram(4000, false)));
    let ran = replay(&pcap(Order::Little, false, link::RAW, &frames), &[]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), LINE));
    assert_eq!(ran.err.matches("1 frame was older than one before").count(), 1, "{}", ran.err);
}

/// What a run on the conversation prints; it must succeed.
#[track_caller]
fn out(options: &[&str]) -> String {
    let ran = replay(&pcap(Order::Little, false, link::RAW, &conversation()), options);
    assert_eq!(ran.code, Some(0), "{options:?}: {}", ran.err);
    ran.out
}

#[test]
fn the_outputs_are_conntracks() {
    assert_eq!(out(&["-o", "extended"]), format!("ipv4     2 {LINE}"));
    assert!(out(&["-o", "id"]).trim_end().rsplit_once(" id=").unwrap().1.parse::<u32>().is_ok());
    assert_eq!(out(&["-o", "id", "--seed", "7"]), out(&["-o", "id", "--seed", "7"]), "a seed makes ids the same");
    assert_eq!(out(&["-o", "id", "-o", "extended", "--seed", "7"]), out(&["-o", "extended,id", "--seed", "7"]));
    assert!(out(&["-o", "save"]).starts_with("-A -t 30 "), "{}", out(&["-o", "save"]));
    let times = ["-o", "ktimestamp", "--set", "nf_conntrack_timestamp=1"];
    assert!(out(&times).contains(" delta-time=0 [start="), "{}", out(&times));
    // conntrack shows no labels where there are none, nor times that were not taken.
    assert_eq!(out(&["-o", "timestamp,ktimestamp,labels"]), LINE);
    let counted = LINE
        .replace("dport=53 ", "dport=53 packets=1 bytes=32 ")
        .replace("dport=4000 ", "dport=4000 packets=1 bytes=32 ");
    assert_eq!(out(&["--set", "nf_conntrack_acct=1"]), counted);
    assert_eq!(
        out(&["--stats"]),
        "cpu=0   \tfound=0 invalid=0 insert=0 insert_failed=0 drop=0 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 \n"
    );
    assert_eq!(out(&["-z", "--stats"]), out(&["--stats"]));
}

#[test]
fn events_are_conntracks() {
    let [new, update] = [
        "    [NEW] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n",
        " [UPDATE] udp      17 30 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n",
    ];
    let destroy = "[DESTROY] udp      17 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000\n";
    assert_eq!(out(&["--events"]), [new, update].concat());
    assert_eq!(out(&["--events", "--at", "31"]), [new, update, destroy].concat(), "it expires on the way");
    assert_eq!(out(&["--events", "-p", "tcp"]), "");
    let timed = out(&["--events", "-o", "timestamp"]);
    assert_eq!(timed, format!("[1700000000.000000]\t{new}[1700000000.001000]\t{update}"));
    // Each event stands behind the packet that caused it.
    let both: Vec<String> =
        out(&["--events", "--each"]).lines().map(|line| line.trim().chars().take(4).collect()).collect();
    assert_eq!(both, ["# nu", "1  N", "[NEW", "2  E", "[UPD"]);
}

#[test]
fn json_is_json_and_xml_is_well_formed() {
    let table: serde_json::Value = serde_json::from_str(&out(&["-o", "json"])).unwrap();
    assert_eq!(table.as_array().unwrap().len(), 1);
    assert_eq!((&table[0]["original"]["source_port"], &table[0]["timeout"]), (&4000.into(), &30.into()));
    let none: serde_json::Value = serde_json::from_str(&out(&["-o", "json", "-p", "tcp"])).unwrap();
    assert_eq!(none, serde_json::json!([]));
    let events = out(&["-o", "json,timestamp", "--events"]);
    let kinds: Vec<serde_json::Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds.iter().map(|event| &event["event"]).collect::<Vec<_>>(), ["new", "update"]);
    let counters: serde_json::Value = serde_json::from_str(&out(&["-o", "json", "--stats"])).unwrap();
    assert_eq!(counters["insert_failed"], 0);
    for options in [&["-o", "xml"][..], &["-o", "xml,id,ktimestamp"], &["-o", "xml,timestamp", "--events"]] {
        let xml = out(options);
        assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>"), "{xml}");
        assert_eq!(common::open_tags(&xml), Vec::<String>::new(), "{xml}");
    }
}

#[test]
fn filters_choose() {
    assert_eq!(out(&["-p", "tcp"]), "");
    assert_eq!(out(&["-p", "udp", "--sport", "4000", "-s", "10.0.0.0/8"]), LINE);
    for chosen in
        [&["-d", "10.0.0.2"][..], &["-p", "17", "--dport", "53"], &["-f", "ipv4"], &["-u", "SEEN_REPLY"], &["-m", "0"]]
    {
        assert_eq!(out(chosen), LINE, "{chosen:?}");
    }
    for refused in
        [&["-d", "10.0.0.3"][..], &["-p", "udp", "--dport", "54"], &["-f", "ipv6"], &["-u", "ASSURED"], &["-w", "7"]]
    {
        assert_eq!(out(refused), "", "{refused:?}");
    }
    let lines = |options: &[&str]| out(&[&["--each"], options].concat()).lines().count();
    assert_eq!([lines(&[]), lines(&["-p", "udp"]), lines(&["-p", "tcp"])], [3, 3, 1], "the first line is the heading");
}

#[test]
fn time_goes_where_it_is_sent() {
    assert_eq!(
        out(&["--at", "0"]),
        LINE.replace("dport=53 src", "dport=53 [UNREPLIED] src"),
        "the first packet has passed"
    );
    assert_eq!(out(&["--at", "20"]), LINE.replace("17 30", "17 10"));
    assert_eq!(out(&["--at", "1700000020"]), LINE.replace("17 30", "17 10"));
    assert_eq!(out(&["--at", "2023-11-14T22:13:40Z"]), LINE.replace("17 30", "17 10"));
    assert_eq!(out(&["--at", "2023-11-14T23:13:40+01:00"]), LINE.replace("17 30", "17 10"));
    assert_eq!(out(&["--at", "2023-11-14T22:14:20Z"]), "", "sixty seconds later it has expired");
    assert_eq!(out(&["--at", "999999999"]), "", "thirty years later, too");
    let early = replay(&pcap(Order::Little, false, link::RAW, &conversation()), &["--at", "2000-01-01T00:00:00Z"]);
    assert_eq!((early.code, early.out.as_str()), (Some(0), ""));
    assert!(early.err.contains("--at is before the first packet"), "{}", early.err);
}

#[test]
fn knobs_are_set_in_turn() {
    let twice = ["--set", "nf_conntrack_udp_timeout=7", "--set", "net.netfilter.nf_conntrack_udp_timeout = 0x8"];
    assert_eq!(out(&twice), LINE.replace("17 30", "17 8"));
    let file = Scratch::new("later.conf", b"nf_conntrack_udp_timeout=50\n");
    assert_eq!(out(&["--sysctl", file.path()]), LINE.replace("17 30", "17 50"));
    assert_eq!(
        out(&["--set", "nf_conntrack_udp_timeout=9", "--sysctl", file.path()]),
        LINE.replace("17 30", "17 9"),
        "--set wins"
    );
    for version in ["4.19", "5.15", "6.18"] {
        assert_eq!(out(&["--as-linux", version, "--memory", "1G"]), LINE);
    }
}

#[test]
fn what_sysctl_prints_can_be_given_back() {
    let file = Scratch::new(
        "sysctl",
        b"# all\nkernel.hostname = a=b\nnet.netfilter.nf_conntrack_count = 5\nnet.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_udp_timeout = 9\n\
          net.netfilter.nf_conntrack_dccp_loose = 1\n",
    );
    let ran = replay(&pcap(Order::Little, false, link::RAW, &conversation()), &["--sysctl", file.path()]);
    assert_eq!((ran.code, ran.out), (Some(0), LINE.replace("17 30", "17 9")));
    for note in [
        "2 keys were passed over: not of connection tracking",
        "1 key was passed over: it can only be read",
        "1 key was passed over: Linux 6.18 has it no more",
    ] {
        assert_eq!(ran.err.matches(note).count(), 1, "{}", ran.err);
    }
}
