//! IPFIX as others read it: nfdump's and pmacct's collectors and tshark's dissector find every record, with the fields that were logged.
//!
//! `KEEPSTATE_FLOWLOG_RECORDS=1000000` sends so many records to nfdump, instead of 200,000.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{Nfacctd, Nfcapd, end, has_tool, one_of_each, record, session, session_end, tshark, wait_until};
use keepstate_flowlog::{IpfixExporter, LogEvent, LogRecord, LogSession};
use keepstate_test_support::report_skipped;
use std::collections::HashSet;
use std::net::UdpSocket;

fn messages(records: &[LogRecord]) -> Vec<Vec<u8>> {
    let mut exporter = IpfixExporter::new(77);
    let mut messages = Vec::new();
    let mut send = |message: &[u8], _: u32| messages.push(message.to_vec());
    for record in records {
        exporter.push(record, record.at.secs(), &mut send);
    }
    exporter.flush(1_790_000_000, &mut send);
    messages
}

/// The texts are there, in this order.
fn assert_in_order(text: &str, wanted: &[&str]) {
    let mut rest = text;
    for part in wanted {
        let Some(at) = rest.find(part) else { panic!("not there, or not in order: {part}\n{text}") };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn tshark_reads_each_kind_of_record() {
    if !has_tool("tshark") {
        return report_skipped("IPFIX by tshark: apt-get install tshark");
    }
    let text = tshark(&messages(&one_of_each()), &["-V"]);
    assert!(!text.contains("Malformed") && !text.contains("No template found"), "{text}");
    assert_in_order(
        &text,
        &[
            "Version: 10",
            "FlowSequence: 0",
            "Observation Domain Id: 77",
            "Nat Event: NAT44 session create (4)",
            "SrcAddr: 10.0.0.0",
            "Post NAT Source IPv4 Address: 192.0.2.1",
            "Nat Event: NAT translation create (Historic) (1)",
            "SrcAddr: fd00::5",
            "Post NAT Source IPv6 Address: 2001:db8::1",
            "Post NAPT Source Transport Port: 1025",
            "Nat Event: NAT44 session create (4)",
            "Post NAT Destination IPv4 Address: 10.0.0.9",
            "Post NAPT Destination Transport Port: 80",
            "Firewall Event: Flow created (1)",
            "SrcAddr: 10.0.0.5",
            "SrcPort: 4001",
            "Nat Event: Port block allocation (16)",
            "SrcAddr: 10.0.0.5",
            "Post NAT Source IPv4 Address: 192.0.2.1",
            "Port Range Start: 2048",
            "Port Range End: 2559",
            "Nat Event: NAT44 session delete (5)",
            "Octets: 700",
            "Packets: 7",
            "Nat Event: NAT translation delete (Historic) (2)",
            "Firewall Event: Flow deleted (2)",
            "Nat Event: Port block de-allocation (17)",
            "Nat Event: NAT ports exhausted (12)",
            "DstAddr: 198.51.100.7",
            "Dropped Packets: 12",
            "Nat Event: Quota Exceeded (13)",
            "NAT Quota Exceeded Event: Maximum session entries (1)",
            "Max Session Entries: 65536",
            "Dropped Packets: 34",
            "Observation Domain Id: 77",
            "FlowsExp: 12",
            "Not Sent Flows: 8",
        ],
    );
}

/// A record as nfdump prints it: ends, translated ends, bytes and packets there and back. (nfdump 1.7.1 has no words for the events 4 and 5.)
fn nfdump_line(session: &LogSession, counted: [u64; 4]) -> String {
    let [bytes, packets, reply_bytes, reply_packets] = counted;
    let [source, destination, post_source, post_destination] =
        [session.source, session.destination, session.translated_source, session.translated_destination]
            .map(|end| end.map_or_else(String::new, |end| format!("{}|{}", end.address, end.port)));
    format!("{source}|{destination}|{post_source}|{post_destination}|{bytes}|{packets}|{reply_bytes}|{reply_packets}")
}

const NFDUMP_FORMAT: &str = "fmt:%sa|%sp|%da|%dp|%nsa|%nsp|%nda|%ndp|%ibyt|%ipkt|%obyt|%opkt";

/// Every line without the padding of its columns.
fn nfdump_lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<String>()).filter(|line| line.contains('|')).collect()
}

#[test]
fn nfdump_has_every_record_of_many() {
    if !has_tool("nfcapd") {
        return report_skipped("IPFIX by nfdump: apt-get install nfdump");
    }
    let count: u32 =
        std::env::var("KEEPSTATE_FLOWLOG_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(200_000);
    let nfcapd = Nfcapd::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut exporter = IpfixExporter::new(4242);
    let mut sent = 0;
    let mut send = |message: &[u8], _: u32| {
        socket.send_to(message, ("127.0.0.1", nfcapd.port)).unwrap();
        sent += 1;
        // The socket's buffer holds more than these.
        if sent % 100 == 0 {
            nfcapd.wait_until_read();
        }
    };
    let mut wanted = HashSet::new();
    for number in 0..count / 2 {
        let (session, counted) = (session(number), u64::from(number));
        let events = [LogEvent::SessionBegin(session), session_end(session, u64::from(number), counted)];
        for event in events {
            exporter.push(&record(u64::from(number) + 5, event), 1_790_000_000, &mut send);
        }
        wanted.insert(nfdump_line(&session, [0; 4]));
        wanted.insert(nfdump_line(&session, [700 + counted, 7 + counted, 9000 + counted, 9 + counted]));
    }
    exporter.flush(1_790_000_000, &mut send);
    let text = nfcapd.finish(&["-q", "-N", "-6", "-o", NFDUMP_FORMAT]);
    let lines = nfdump_lines(&text);
    let found: HashSet<&String> = lines.iter().collect();
    let missing: Vec<&String> = wanted.iter().filter(|line| !found.contains(line)).take(5).collect();
    assert!(missing.is_empty(), "{} of {} lines; missing {missing:#?}", lines.len(), wanted.len());
    assert_eq!(lines.len(), wanted.len(), "and nothing twice");
}

/// pmacct knows the events by their numbers.
#[test]
fn pmacct_has_every_record_with_its_event() {
    const SESSIONS: u32 = 5_000;
    if !has_tool("nfacctd") {
        return report_skipped("IPFIX by pmacct: apt-get install pmacct");
    }
    let nfacctd = Nfacctd::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut exporter = IpfixExporter::new(4243);
    let mut sent = 0;
    let mut send = |message: &[u8], _: u32| {
        socket.send_to(message, ("127.0.0.1", nfacctd.port)).unwrap();
        sent += 1;
        if sent % 50 == 0 {
            nfacctd.wait_until_read();
        }
    };
    let mut wanted = HashSet::new();
    for number in 0..SESSIONS {
        let session = session(number);
        for (event, code, counted) in
            [(LogEvent::SessionBegin(session), 4, [0, 0]), (session_end(session, 5, 1), 5, [8, 701])]
        {
            exporter.push(&record(u64::from(number) + 5, event), 1_790_000_000, &mut send);
            let [source, destination, post_source, post_destination] =
                [session.source, session.destination, session.translated_source, session.translated_destination]
                    .map(Option::unwrap);
            wanted.insert(format!(
                "{}|{}|{}|{}|tcp|{}|{}|{}|{}|{code}|{}|{}",
                source.address,
                destination.address,
                source.port,
                destination.port,
                post_source.address,
                post_destination.address,
                post_source.port,
                post_destination.port,
                counted[0],
                counted[1],
            ));
        }
    }
    exporter.flush(1_790_000_000, &mut send);
    let lines = || nfacctd.printed().lines().filter(|line| line.starts_with("10.")).count();
    wait_until("pmacct has printed as many records", || lines() >= wanted.len());
    let printed = nfacctd.printed();
    let found: HashSet<&str> = printed.lines().collect();
    let missing: Vec<&String> = wanted.iter().filter(|line| !found.contains(line.as_str())).take(5).collect();
    assert!(missing.is_empty(), "missing {missing:#?} of lines like {:?}\n{}", printed.lines().nth(1), nfacctd.log());
    assert_eq!(lines(), wanted.len(), "and nothing twice");
}

#[test]
fn nfdump_reads_what_privacy_leaves() {
    if !has_tool("nfcapd") {
        return report_skipped("IPFIX by nfdump: apt-get install nfdump");
    }
    let nfcapd = Nfcapd::start();
    let mut hidden = record(0, LogEvent::SessionBegin(session(9)));
    keepstate_flowlog::LogPrivacy { peers: false, inside: true }.apply(&mut hidden);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for message in messages(&[hidden]) {
        socket.send_to(&message, ("127.0.0.1", nfcapd.port)).unwrap();
    }
    let text = nfcapd.finish(&["-o", "raw"]);
    let outside = end("192.0.2.1", 1033);
    assert_in_order(&text, &["10.0.0.0", "src xlt ip", &outside.address.to_string(), "src xlt port", "1033"]);
    assert!(!text.contains("198.51.100.7"), "{text}");
}
