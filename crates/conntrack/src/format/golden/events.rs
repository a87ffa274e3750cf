//! What `conntrack -E` printed.
use super::*;

/// The text of one event, without the head and tail of XML.
fn render_event(kind: EventKind, entry: Entry, at: u64, options: &str) -> String {
    let mut text = Vec::new();
    let mut writer = test_writer(&mut text, options);
    writer.write_event(&Event { kind, entry, at: UnixTime(at), is_replicated: false }).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(text).unwrap();
    if !options.starts_with("xml") {
        return text;
    }
    let text = text.strip_prefix("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n").unwrap();
    text.strip_suffix("</conntrack>\n").unwrap().to_owned()
}

/// What the engine knows is more than the kernel tells in an event: counters, times, references.
fn tcp(state: TcpState, timeout: u32) -> Entry {
    let entry = entry_between(6, ("127.0.0.1", 39456), ("127.0.0.1", 9101)).tcp(state).timeout(timeout).id(794_309_015);
    entry.mark(5).zone(7, ZoneDirection::Both).labels(&[3]).accounting([1, 60, 0, 0]).start(1_795_443_987_000_000_000)
}

#[test]
fn tcp_new_and_update_events() {
    use EventKind::{New, Update};
    let show = |kind, entry| render_event(kind, entry, 0, "labels,id");
    assert_eq!(
        show(New, tcp(TcpState::SynSent, 120)),
        "    [NEW] tcp      6 120 SYN_SENT src=127.0.0.1 dst=127.0.0.1 sport=39456 dport=9101 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=39456 mark=5 zone=7 id=794309015 labels=three\n"
    );
    assert_eq!(
        show(Update, tcp(TcpState::SynRecv, 60).seen_reply()),
        " [UPDATE] tcp      6 60 SYN_RECV src=127.0.0.1 dst=127.0.0.1 sport=39456 dport=9101 src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=39456 mark=5 zone=7 id=794309015\n"
    );
    assert_eq!(
        show(Update, tcp(TcpState::Established, 432_000).seen_reply().assured()),
        " [UPDATE] tcp      6 432000 ESTABLISHED src=127.0.0.1 dst=127.0.0.1 sport=39456 dport=9101 src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=39456 [ASSURED] mark=5 zone=7 id=794309015\n"
    );
    assert_eq!(
        render_event(New, tcp(TcpState::SynSent, 120), 0, "xml,labels"),
        "<flow type=\"new\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>39456</sport><dport>9101</dport></layer4></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>9101</sport><dport>39456</dport></layer4></meta><meta direction=\"independent\"><state>SYN_SENT</state><timeout>120</timeout><mark>5</mark><labels><label>three</label></labels><zone>7</zone><id>794309015</id><unreplied/></meta></flow>\n"
    );
    assert_eq!(
        render_event(Update, tcp(TcpState::Established, 432_000).seen_reply().assured(), 0, "xml,labels"),
        "<flow type=\"update\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>39456</sport><dport>9101</dport></layer4></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>9101</sport><dport>39456</dport></layer4></meta><meta direction=\"independent\"><state>ESTABLISHED</state><timeout>432000</timeout><mark>5</mark><zone>7</zone><id>794309015</id><assured/></meta></flow>\n"
    );
}

#[test]
fn update_event_as_save() {
    let entry =
        entry_between(6, ("127.0.0.1", 39082), ("127.0.0.1", 9001)).tcp(TcpState::SynRecv).seen_reply().timeout(60);
    assert_eq!(
        render_event(EventKind::Update, entry, 0, "save"),
        "-U -t 60 -u SEEN_REPLY -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -q 127.0.0.1 -p tcp --sport 39082 --dport 9001 --reply-port-src 9001 --reply-port-dst 39082 --state SYN_RECV\n"
    );
}

#[test]
fn new_event_of_expected_connection() {
    let entry = entry_between(6, ("127.0.0.1", 58236), ("127.0.0.1", 60819)).tcp(TcpState::SynSent).timeout(120);
    let entry = entry.with(|entry| entry.status |= Status::EXPECTED);
    assert_eq!(
        render_event(EventKind::New, entry, 0, "save"),
        "-A -t 120 -u EXPECTED -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -q 127.0.0.1 -p tcp --sport 58236 --dport 60819 --reply-port-src 60819 --reply-port-dst 58236 --state SYN_SENT # keepstate tcp=0x00/0,0x00/0\n"
    );
}

/// It ran out: no timeout. Of 1.997 seconds, a line makes 2 (from second to second), and XML 1.
#[test]
fn destroy_event_on_timeout() {
    let entry = entry_between(17, ("127.0.0.1", 40448), ("127.0.0.1", 5353)).accounting([1, 30, 0, 0]).timeout(0);
    let entry = entry.start(1_795_443_817_118_259_180).stop(1_795_443_819_115_566_397).id(1_557_862_305).labels(&[3]);
    let show = |options| render_event(EventKind::Destroy, entry, 1_795_443_819_115_566_397, options);
    assert_eq!(
        show("labels"),
        "[DESTROY] udp      17 src=127.0.0.1 dst=127.0.0.1 sport=40448 dport=5353 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5353 dport=40448 packets=0 bytes=0 delta-time=2\n"
    );
    assert_eq!(
        show("save"),
        "-D -u UNSET -s 127.0.0.1 -d 127.0.0.1 -r 127.0.0.1 -q 127.0.0.1 -p udp --sport 40448 --dport 5353 --reply-port-src 5353 --reply-port-dst 40448\n"
    );
    assert_eq!(
        show("xml,labels,ktimestamp"),
        "<flow type=\"destroy\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>40448</sport><dport>5353</dport></layer4><counters><packets>1</packets><bytes>30</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>5353</sport><dport>40448</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><id>1557862305</id><unreplied/><timestamp><start>1795443817118259180</start><stop>1795443819115566397</stop></timestamp><deltatime>1</deltatime></meta></flow>\n"
    );
}

/// It was taken out while it had time left; the event carries the time of day.
#[test]
fn destroy_event_on_flush() {
    let entry = entry_between(17, ("127.0.0.1", 49312), ("127.0.0.1", 5354)).accounting([1, 30, 0, 0]).timeout(25);
    let entry = entry.start(1_795_443_750_058_476_280).stop(1_795_443_754_654_046_973).id(1_107_650_014);
    assert_eq!(
        render_event(EventKind::Destroy, entry, 1_795_443_754_658_289_000, "extended,id,timestamp,ktimestamp,labels"),
        "[1795443754.658289]\t[DESTROY] ipv4     2 udp      17 25 src=127.0.0.1 dst=127.0.0.1 sport=49312 dport=5354 packets=1 bytes=30 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=5354 dport=49312 packets=0 bytes=0 delta-time=4 [start=Mon Nov 23 14:22:30 2026] [stop=Mon Nov 23 14:22:34 2026] id=1107650014\n"
    );
    assert_eq!(
        render_event(
            EventKind::Destroy,
            entry,
            1_795_443_754_000_000_000,
            "xml,id,ktimestamp,labels,timestamp,extended"
        ),
        "<flow type=\"destroy\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>49312</sport><dport>5354</dport></layer4><counters><packets>1</packets><bytes>30</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"17\" protoname=\"udp\"><sport>5354</sport><dport>49312</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><timeout>25</timeout><id>1107650014</id><unreplied/><timestamp><start>1795443750058476280</start><stop>1795443754654046973</stop></timestamp><deltatime>4</deltatime></meta><when><hour>14</hour><min>22</min><sec>34</sec><wday>2</wday><day>23</day><month>11</month><year>2026</year></when></flow>\n"
    );
    assert!(
        render_event(EventKind::New, entry, 1_795_443_751_000_017_999, "timestamp")
            .starts_with("[1795443751.000017]\t    [NEW] "),
        "microseconds have six digits"
    );
}

#[test]
fn helper_in_new_event_and_listing_not_in_destroy() {
    let entry = entry_between(6, ("127.0.0.1", 47632), ("127.0.0.1", 9101)).tcp(TcpState::SynSent).timeout(120);
    let entry = entry.id(2_729_687_002).with(|entry| entry.helper = Some("ftp"));
    let at = 1_795_445_162_573_693_000;
    assert_eq!(
        render_event(EventKind::New, entry, at, "timestamp,ktimestamp,id"),
        "[1795445162.573693]\t    [NEW] tcp      6 120 SYN_SENT src=127.0.0.1 dst=127.0.0.1 sport=47632 dport=9101 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=47632 helper=ftp id=2729687002\n"
    );
    assert_eq!(
        render_event(EventKind::New, entry, at, "xml,timestamp"),
        "<flow type=\"new\"><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>47632</sport><dport>9101</dport></layer4></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>127.0.0.1</src><dst>127.0.0.1</dst></layer3><layer4 protonum=\"6\" protoname=\"tcp\"><sport>9101</sport><dport>47632</dport></layer4></meta><meta direction=\"independent\"><state>SYN_SENT</state><timeout>120</timeout><id>2729687002</id><unreplied/></meta><when><hour>14</hour><min>46</min><sec>02</sec><wday>2</wday><day>23</day><month>11</month><year>2026</year></when><helper>ftp</helper></flow>\n"
    );
    let closed = entry.tcp(TcpState::Close).seen_reply().assured().timeout(9).accounting([4, 240, 2, 112]);
    let closed = closed.start(1_795_445_162_573_346_967);
    assert_eq!(
        render_event(
            EventKind::Destroy,
            closed.stop(1_795_445_162_720_000_000),
            1_795_445_162_721_400_000,
            "timestamp,ktimestamp,id"
        ),
        "[1795445162.721400]\t[DESTROY] tcp      6 9 CLOSE src=127.0.0.1 dst=127.0.0.1 sport=47632 dport=9101 packets=4 bytes=240 src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=47632 packets=2 bytes=112 [ASSURED] delta-time=0 [start=Mon Nov 23 14:46:02 2026] [stop=Mon Nov 23 14:46:02 2026] id=2729687002\n"
    );
    assert_eq!(
        render_entry(&closed, "extended,id,ktimestamp", 1_795_445_162),
        "ipv4     2 tcp      6 9 CLOSE src=127.0.0.1 dst=127.0.0.1 sport=47632 dport=9101 packets=4 bytes=240 src=127.0.0.1 dst=127.0.0.1 sport=9101 dport=47632 packets=2 bytes=112 [ASSURED] mark=0 delta-time=0 [start=Mon Nov 23 14:46:02 2026] helper=ftp use=1 id=2729687002\n"
    );
}

#[test]
fn events_share_one_xml_document() {
    let mut text = Vec::new();
    let mut writer = test_writer(&mut text, "xml");
    let event =
        Event { kind: EventKind::New, entry: tcp(TcpState::SynSent, 120), at: UnixTime(0), is_replicated: false };
    writer.write_event(&event).unwrap();
    writer.write_event(&event).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(text).unwrap();
    let counts =
        ["<?xml", "<conntrack>", "<flow ", "</flow>\n", "</conntrack>\n"].map(|part| text.matches(part).count());
    assert_eq!(counts, [1, 1, 2, 2, 1]);
}

/// The name of a program may be anything; in XML its special characters are escaped.
#[test]
fn program_names_are_escaped_in_xml() {
    let flow = crate::format::engine_flow::from_entry(&entry_between(17, ("10.0.0.1", 1), ("10.0.0.2", 2)));
    let render = |options: &str| {
        let mut text = Vec::new();
        let mut writer = test_writer(&mut text, options);
        let origin = crate::format::EventOrigin { portid: 7, program: Some("a<b&c") };
        let info = crate::format::EventInfo { event_type: EventKind::New, at: UnixTime(0), origin: Some(origin) };
        writer.write_flow_event(&flow, info).unwrap();
        writer.finish().unwrap();
        String::from_utf8(text).unwrap()
    };
    assert!(render("xml").contains("portid=7 progname=a&lt;b&amp;c\n"), "{}", render("xml"));
    assert!(render("extended").contains("portid=7 progname=a<b&c\n"), "{}", render("extended"));
}

/// Programs and helpers choose their names themselves: none of them reaches a document as markup, or a saved line as words.
#[test]
fn names_of_others_are_escaped() {
    use crate::format::{EventInfo, EventOrigin, ExpectationWriter, FlowWriter, OutputOptions};
    use keepstate_linux::ctnetlink::{CtExpectation, CtFlow};
    let name = "<a b=\"&\">\\\n";
    let flow = CtFlow { helper: Some(name.into()), secctx: Some(name.into()), ..CtFlow::default() };
    let origin = EventOrigin { portid: 1, program: Some(name) };
    let event = EventInfo { event_type: EventKind::New, at: UnixTime(0), origin: Some(origin) };
    let in_xml = "&lt;a b=\"&amp;\"&gt;\\";
    for (format, expected) in [
        ("xml", &format!("<helper>{in_xml}</helper></flow> [USERSPACE] portid=1 progname={in_xml}\n")[..]),
        ("save", "progname=<a?b=?&?>\\ # keepstate helper=<a?b=?&?>\\\n"),
        ("json", "\"program\":\"<a b=\\\"&\\\">\\\\\""),
    ] {
        let mut text = Vec::new();
        let mut out = FlowWriter::new(&mut text, OutputOptions::parse(format).unwrap());
        out.write_flow_event(&flow, event).unwrap();
        out.flush().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(expected), "{format}: {text}");
    }
    let mut text = Vec::new();
    let mut out = ExpectationWriter::new(&mut text, OutputOptions::parse("xml").unwrap());
    out.write_expectation(&CtExpectation { helper: Some(name.into()), ..CtExpectation::default() }).unwrap();
    out.finish().unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("<helper-name>{in_xml}</helper-name>")), "{text}");
}
