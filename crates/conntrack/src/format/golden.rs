//! What conntrack 1.4.7 printed on Linux 6.18, in namespaces with `conntrack -I` and with traffic over loopback, and the entries it
//! printed it of. The lines are the recorded ones, octet for octet; the time zone was UTC.
//!
//! (Where a program of ours, `conntrack -I` or `-F`, was the cause of an event, the line went on with `[USERSPACE] portid=`. That is
//! left off: no program is ever the cause of ours.)
use super::labels::LabelNames;
use super::output::OutputOptions;
use super::save::vtag_as_conntrack;
use super::writer::FlowWriter;
use crate::test_entries::{EntryBuilder, entry_between};
use jiff::tz::TimeZone;
use keepstate_engine::{Entry, Event, EventKind, SctpState, Status, TcpState, UnixTime, ZoneDirection};

mod events;
mod json;

const SECOND: u64 = 1_000_000_000;

/// The document of one entry.
fn render_entry(entry: &Entry, options: &str, now: u64) -> String {
    let mut text = Vec::new();
    let mut writer = test_writer(&mut text, options).at_time(UnixTime(now * SECOND));
    writer.write_entry(entry).unwrap();
    writer.finish().unwrap();
    String::from_utf8(text).unwrap()
}

fn test_writer<'a>(text: &'a mut Vec<u8>, options: &str) -> FlowWriter<&'a mut Vec<u8>> {
    let output = if options.is_empty() { OutputOptions::default() } else { OutputOptions::parse(options).unwrap() };
    let names = LabelNames::parse("0 zero\n3 three\n64 sixtyfour\n");
    FlowWriter::new(text, output).in_time_zone(TimeZone::UTC).with_labels(names)
}

#[track_caller]
fn assert_line(entry: Entry, options: &str, now: u64, expected: &str) {
    assert_eq!(render_entry(&entry, options, now), format!("{expected}\n"), "-o {options}");
}

#[track_caller]
fn assert_xml_flow(entry: Entry, options: &str, now: u64, expected: &str) {
    let document = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n{expected}\n</conntrack>\n");
    assert_eq!(render_entry(&entry, options, now), document, "-o {options}");
}

/// An entry made by `conntrack -I` with accounting and times on, and listed within the second.
#[track_caller]
fn assert_inserted(entry: Entry, options: &str, expected: &str) {
    let entry = entry.accounting([0; 4]).start(1_795_443_359_569_041_262);
    let show = if options.starts_with("xml") { assert_xml_flow } else { assert_line };
    show(entry, options, 1_795_443_359, expected);
}

/// TCP over IPv4 with a zone in the reply direction only, ASSURED and yet without answer: `conntrack -I` can.
fn tcp_with_reply_zone() -> Entry {
    let entry = entry_between(6, ("10.0.0.1", 1004), ("10.0.0.2", 80)).tcp(TcpState::TimeWait).assured().timeout(119);
    entry.zone(6, ZoneDirection::Reply).accounting([0; 4]).start(1_795_443_359 * SECOND).id(283_502_319)
}

#[test]
fn tcp_all_formats() {
    let now = 1_795_443_359;
    assert_line(
        tcp_with_reply_zone(),
        "",
        now,
        "tcp      6 119 TIME_WAIT src=10.0.0.1 dst=10.0.0.2 sport=1004 dport=80 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1004 zone-reply=6 packets=0 bytes=0 [ASSURED] mark=0 delta-time=0 use=1",
    );
    assert_line(
        tcp_with_reply_zone(),
        "extended,ktimestamp",
        now,
        "ipv4     2 tcp      6 119 TIME_WAIT src=10.0.0.1 dst=10.0.0.2 sport=1004 dport=80 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1004 zone-reply=6 packets=0 bytes=0 [ASSURED] mark=0 delta-time=0 [start=Mon Nov 23 14:15:59 2026] use=1",
    );
    assert_line(
        tcp_with_reply_zone(),
        "save",
        now,
        "-A -t 119 -u ASSURED --reply-zone 6 -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1004 --dport 80 --reply-port-src 80 --reply-port-dst 1004 --state TIME_WAIT # keepstate tcp=0x00/0,0x00/0",
    );
    assert_xml_flow(
        tcp_with_reply_zone(),
        "xml",
        now + 1,
        "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>1004</sport><dport>80</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>80</sport><dport>1004</dport></layer4><zone>6</zone><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><state>TIME_WAIT</state><timeout>119</timeout><mark>0</mark><use>1</use><id>283502319</id><assured/><unreplied/><deltatime>1</deltatime></meta></flow>",
    );
}

#[test]
fn tcp_over_ipv6() {
    let entry =
        entry_between(6, ("::1", 60400), ("::1", 9001)).tcp(TcpState::TimeWait).seen_reply().assured().timeout(116);
    let entry = entry.accounting([4, 396, 4, 296]).start(1_795_443_751_407_386_377).id(2_151_777_107);
    let now = 1_795_443_754;
    assert_line(
        entry,
        "extended,id,timestamp,ktimestamp,labels",
        now,
        "ipv6     10 tcp      6 116 TIME_WAIT src=::1 dst=::1 sport=60400 dport=9001 packets=4 bytes=396 src=::1 dst=::1 sport=9001 dport=60400 packets=4 bytes=296 [ASSURED] mark=0 delta-time=3 [start=Mon Nov 23 14:22:31 2026] use=1 id=2151777107",
    );
    assert_xml_flow(
        entry,
        "xml,labels,ktimestamp,id,extended,timestamp",
        now,
        "<flow><meta direction=\"original\"><layer3 protonum=\"10\" protoname=\"ipv6\"><src>::1</src><dst>::1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>60400</sport><dport>9001</dport></layer4><counters><packets>4</packets><bytes>396</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"10\" protoname=\"ipv6\"><src>::1</src><dst>::1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>9001</sport><dport>60400</dport></layer4><counters><packets>4</packets><bytes>296</bytes></counters></meta><meta direction=\"independent\"><state>TIME_WAIT</state><timeout>116</timeout><mark>0</mark><use>1</use><id>2151777107</id><assured/><timestamp><start>1795443751407386377</start></timestamp><deltatime>3</deltatime></meta></flow>",
    );
}

#[test]
fn without_accounting_and_timestamps() {
    let entry = entry_between(6, ("10.0.0.1", 1003), ("10.0.0.2", 80)).tcp(TcpState::CloseWait).seen_reply().assured();
    let entry = entry.timeout(19).mark(16).id(2_562_114_689);
    for options in ["", "ktimestamp"] {
        assert_line(
            entry,
            options,
            0,
            "tcp      6 19 CLOSE_WAIT src=10.0.0.1 dst=10.0.0.2 sport=1003 dport=80 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=1003 [ASSURED] mark=16 use=1",
        );
    }
    assert_line(
        entry,
        "save",
        0,
        "-A -t 19 -u SEEN_REPLY,ASSURED -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1003 --dport 80 --reply-port-src 80 --reply-port-dst 1003 --state CLOSE_WAIT -m 16 # keepstate tcp=0x00/0,0x00/0",
    );
    assert_xml_flow(
        entry,
        "xml",
        0,
        "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.1</src><dst>10.0.0.2</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>1003</sport><dport>80</dport></layer4></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.0.0.2</src><dst>10.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>80</sport><dport>1003</dport></layer4></meta><meta direction=\"independent\"><state>CLOSE_WAIT</state><timeout>19</timeout><mark>16</mark><use>1</use><id>2562114689</id><assured/></meta></flow>",
    );
}

#[test]
fn labels_shown_by_name() {
    let now = 1_795_443_754;
    let entry = |port, port_of_server, id| {
        let entry = entry_between(17, ("127.0.0.1", port), ("127.0.0.1", port_of_server)).timeout(25).id(id);
        entry.accounting([1, 30, 0, 0]).start(1_795_443_750_058_476_280)
    };
    let three = entry(49312, 5354, 1_107_650_014).labels(&[0, 3, 64]);
    assert_line(
        three,
        "extended,id,timestamp,ktimestamp,labels",
        now,
        "ipv4     2 udp      17 25 src=127.0.0.1 dst=127.0.0.1 sport=49312 dport=5354 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5354 dport=49312 packets=0 bytes=0 mark=0 delta-time=4 [start=Mon Nov 23 14:22:30 2026] use=1 id=1107650014 labels=zero,three,sixtyfour",
    );
    assert_xml_flow(
        three,
        "xml,labels,ktimestamp,id,extended,timestamp",
        now,
        "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>49312</sport><dport>5354</dport></layer4><counters><packets>1</packets><bytes>30</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>5354</sport><dport>49312</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><timeout>25</timeout><mark>0</mark><labels><label>zero</label><label>three</label><label>sixtyfour</label></labels><use>1</use><id>1107650014</id><unreplied/><timestamp><start>1795443750058476280</start></timestamp><deltatime>4</deltatime></meta></flow>",
    );
    assert_line(
        three,
        "",
        now,
        "udp      17 25 src=127.0.0.1 dst=127.0.0.1 sport=49312 dport=5354 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5354 dport=49312 packets=0 bytes=0 mark=0 delta-time=4 use=1",
    );
    // Bit 5 has no name.
    assert_line(
        entry(35561, 5355, 1_201_284_331).labels(&[5]),
        "labels",
        now,
        "udp      17 25 src=127.0.0.1 dst=127.0.0.1 sport=35561 dport=5355 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5355 dport=35561 packets=0 bytes=0 mark=0 delta-time=4 use=1 labels",
    );
    assert_line(
        entry(42835, 5356, 3_528_854_725).labels(&[3, 5]),
        "labels",
        now,
        "udp      17 25 src=127.0.0.1 dst=127.0.0.1 sport=42835 dport=5356 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5356 dport=42835 packets=0 bytes=0 mark=0 delta-time=4 use=1 labels=three",
    );
}

#[test]
fn sctp() {
    let entry = entry_between(132, ("10.0.0.1", 1001), ("10.0.0.2", 53))
        .sctp(SctpState::CookieWait, [1, 2].map(vtag_as_conntrack))
        .timeout(29);
    assert_inserted(
        entry,
        "",
        "sctp     132 29 COOKIE_WAIT src=10.0.0.1 dst=10.0.0.2 sport=1001 dport=53 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1001 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        entry,
        "save",
        "-A -t 29 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p sctp --sport 1001 --dport 53 --reply-port-src 53 --reply-port-dst 1001 --state COOKIE_WAIT --orig-vtag 1 --reply-vtag 2",
    );
    let in_xml = |state| {
        let text = render_entry(&entry_between(132, ("10.0.0.1", 1), ("10.0.0.3", 53)).sctp(state, [1, 2]), "xml", 0);
        let (_, rest) = text.split_once("<state>").unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    // Recorded of the first eight; `conntrack -I` cannot make the ninth.
    let states: Vec<_> = SctpState::ALL.iter().take(8).map(|state| in_xml(*state)).collect();
    assert_eq!(
        states,
        ["NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT"]
    );
}

#[test]
fn icmp_and_gre() {
    let icmp = entry_between(1, ("10.0.0.1", 1234), ("10.0.0.2", 13 << 8 | 1)).seen_reply().timeout(29);
    assert_inserted(
        icmp,
        "",
        "icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=13 code=1 id=1234 packets=0 bytes=0 src=10.0.0.2 dst=10.0.0.1 type=14 code=1 id=1234 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        icmp,
        "save",
        "-A -t 29 -u SEEN_REPLY -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p icmp --icmp-type 13 --icmp-code 1 --icmp-id 1234",
    );
    let icmpv6 = entry_between(58, ("2001:db8::1", 1234), ("2001:db8::2", 128 << 8)).timeout(29).id(181_666_000);
    assert_inserted(
        icmpv6,
        "",
        "icmpv6   58 29 src=2001:db8::1 dst=2001:db8::2 type=128 code=0 id=1234 packets=0 bytes=0 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 type=129 code=0 id=1234 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        icmpv6,
        "save",
        "-A -t 29 -u UNSET -s 2001:db8::1 -d 2001:db8::2 -r 2001:db8::2 -q 2001:db8::1 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 1234",
    );
    assert_inserted(
        icmpv6,
        "xml,ktimestamp",
        "<flow><meta direction=\"original\"><layer3 protonum=\"10\" protoname=\"ipv6\"><src>2001:db8::1</src><dst>2001:db8::2</dst></layer3><layer4 protonum=\"58\" protoname=\"icmpv6\"></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"10\" protoname=\"ipv6\"><src>2001:db8::2</src><dst>2001:db8::1</dst></layer3><layer4 protonum=\"58\" protoname=\"icmpv6\"></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><timeout>29</timeout><mark>0</mark><use>1</use><id>181666000</id><unreplied/><timestamp><start>1795443359569041262</start></timestamp><deltatime>0</deltatime></meta></flow>",
    );
    let gre = entry_between(47, ("2001:db8::1", 0xffff), ("2001:db8::2", 53)).timeout(29);
    assert_inserted(
        gre,
        "",
        "gre      47 29 src=2001:db8::1 dst=2001:db8::2 srckey=0xffff dstkey=0x35 packets=0 bytes=0 [UNREPLIED] src=2001:db8::2 dst=2001:db8::1 srckey=0x35 dstkey=0xffff packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        gre,
        "save",
        "-A -t 29 -u UNSET -s 2001:db8::1 -d 2001:db8::2 -r 2001:db8::2 -q 2001:db8::1 -p gre --srckey 65535 --dstkey 53 --reply-key-src 53 --reply-key-dst 65535",
    );
}

#[test]
fn unknown_dccp_and_udplite() {
    let other = entry_between(50, ("10.0.0.1", 0), ("10.0.0.2", 0)).seen_reply().timeout(29).accounting([0; 4]);
    assert_inserted(
        other,
        "extended",
        "ipv4     2 unknown  50 29 src=10.0.0.1 dst=10.0.0.2 packets=0 bytes=0 src=10.0.0.2 dst=10.0.0.1 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(other, "save", "-A -t 29 -u SEEN_REPLY -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p 50");
    assert!(
        render_entry(&other, "xml", 0).contains("<layer4 protonum=\"50\" protoname=\"unknown\"></layer4><counters>")
    );
    let other = entry_between(255, ("10.0.0.1", 0), ("10.0.0.2", 0)).seen_reply().timeout(29).accounting([0; 4]);
    assert_inserted(
        other,
        "",
        "unknown  255 29 src=10.0.0.1 dst=10.0.0.2 packets=0 bytes=0 src=10.0.0.2 dst=10.0.0.1 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    let dccp = entry_between(33, ("10.0.0.1", 0), ("10.0.0.2", 0)).timeout(29);
    assert_inserted(
        dccp,
        "",
        "dccp     33 29 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=0 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=0 dport=0 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(dccp, "save", "-A -t 29 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p dccp");
    let udplite = entry_between(136, ("10.0.0.1", 1000), ("10.0.0.2", 53)).timeout(29);
    assert_inserted(
        udplite,
        "",
        "udplite  136 29 src=10.0.0.1 dst=10.0.0.2 sport=1000 dport=53 packets=0 bytes=0 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=53 dport=1000 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        udplite,
        "save",
        "-A -t 29 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p udplite --sport 1000 --dport 53 --reply-port-src 53 --reply-port-dst 1000",
    );
}

#[test]
fn zones_and_nat() {
    let udp = |port, port_of_server| entry_between(17, ("127.0.0.1", port), ("127.0.0.1", port_of_server)).timeout(1);
    let seen = |entry: Entry| entry.timeout(0).accounting([1, 30, 0, 0]).start(1_795_443_817_420_925_604);
    let both = seen(udp(40614, 5355).zone(7, ZoneDirection::Both));
    assert_line(
        both,
        "",
        1_795_443_818,
        "udp      17 0 src=127.0.0.1 dst=127.0.0.1 sport=40614 dport=5355 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5355 dport=40614 packets=0 bytes=0 mark=0 zone=7 delta-time=1 use=1",
    );
    assert_line(
        both,
        "save",
        1_795_443_818,
        "-A -t 0 -u UNSET -w 7 -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -q 127.0.0.1 -p udp --sport 40614 --dport 5355 --reply-port-src 5355 --reply-port-dst 40614",
    );
    let original = seen(udp(49866, 5356).zone(7, ZoneDirection::Original));
    assert_line(
        original,
        "",
        1_795_443_818,
        "udp      17 0 src=127.0.0.1 dst=127.0.0.1 sport=49866 dport=5356 zone-orig=7 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5356 dport=49866 packets=0 bytes=0 mark=0 delta-time=1 use=1",
    );
    assert_line(
        original,
        "save",
        1_795_443_818,
        "-A -t 0 -u UNSET --orig-zone 7 -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -q 127.0.0.1 -p udp --sport 49866 --dport 5356 --reply-port-src 5356 --reply-port-dst 49866",
    );
    assert!(render_entry(&original, "xml", 0).contains("</layer4><zone>7</zone><counters><packets>1<"));
    assert!(render_entry(&both, "xml", 0).contains("<mark>0</mark><zone>7</zone><use>1</use>"));
    let source = udp(41679, 5359).reply("127.0.0.1", "127.0.0.9");
    assert_inserted(
        source,
        "save",
        "-A -t 1 -u UNSET -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -n 127.0.0.9 -p udp --sport 41679 --dport 5359 --reply-port-src 5359 --reply-port-dst 41679",
    );
    let twice = entry_between(17, ("10.0.0.1", 1003), ("10.0.0.2", 80)).reply("5.6.7.8", "1.2.3.4").timeout(19);
    let twice = twice.with(|entry| entry.reply.destination_key = 99);
    assert_inserted(
        twice,
        "",
        "udp      17 19 src=10.0.0.1 dst=10.0.0.2 sport=1003 dport=80 packets=0 bytes=0 [UNREPLIED] src=5.6.7.8 dst=1.2.3.4 sport=80 dport=99 packets=0 bytes=0 mark=0 delta-time=0 use=1",
    );
    assert_inserted(
        twice,
        "save",
        "-A -t 19 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -g 5.6.7.8 -n 1.2.3.4 -p udp --sport 1003 --dport 80 --reply-port-src 80 --reply-port-dst 99",
    );
    let fixed = entry_between(6, ("10.0.0.1", 1004), ("10.0.0.2", 80)).tcp(TcpState::SynSent2).seen_reply().assured();
    let fixed = fixed.timeout(19).with(|entry| entry.status |= Status::FIXED_TIMEOUT);
    assert_inserted(
        fixed,
        "save",
        "-A -t 19 -u SEEN_REPLY,ASSURED,FIXED_TIMEOUT -s 10.0.0.1 -d 10.0.0.2 -r 10.0.0.2 -q 10.0.0.1 -p tcp --sport 1004 --dport 80 --reply-port-src 80 --reply-port-dst 1004 --state SYN_SENT2 # keepstate tcp=0x00/0,0x00/0",
    );
}

#[test]
fn empty_output_per_format() {
    for (options, expected) in [("", ""), ("save", ""), ("xml", ""), ("json", "[]\n")] {
        let mut text = Vec::new();
        test_writer(&mut text, options).finish().unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected, "-o {options}");
    }
}
