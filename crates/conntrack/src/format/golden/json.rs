//! JSON is our own: the whole object, once; and how objects stand together.
use super::*;

#[test]
fn json_object_has_all_fields() {
    let entry =
        entry_between(6, ("10.0.0.1", 1004), ("10.0.0.2", 80)).tcp(TcpState::Established).seen_reply().assured();
    let entry =
        entry.timeout(119).zone(6, ZoneDirection::Reply).accounting([4, 316, 3, 216]).labels(&[3, 64]).id(7).mark(5);
    let entry = entry.start(1_795_443_359_000_000_001).with(|entry| {
        entry.helper = Some("f\"\x1bt\\p");
        entry.master = Some(entry_between(17, ("10.0.0.1", 9), ("10.0.0.2", 10)).original);
    });
    let side = r#""tcp":{"flags":0,"window_scale":0,"end":0,"max_end":0,"max_window":0,"max_ack":0}"#;
    let expected = format!(
        concat!(
            r#"{{"id":7,"family":"ipv4","protocol":"tcp","protocol_number":6,"state":"ESTABLISHED","timeout":119,"#,
            r#""original":{{"source":"10.0.0.1","destination":"10.0.0.2","source_port":1004,"destination_port":80,"packets":4,"bytes":316,{side}}},"#,
            r#""reply":{{"source":"10.0.0.2","destination":"10.0.0.1","source_port":80,"destination_port":1004,"packets":3,"bytes":216,{side}}},"#,
            r#""status":["SEEN_REPLY","ASSURED","CONFIRMED"],"mark":5,"zone":6,"zone_direction":"reply","labels":["three","sixtyfour"],"#,
            r#""start":"2026-11-23T14:15:59.000000001Z","helper":"f\"t\\p","#,
            r#""master":{{"source":"10.0.0.1","destination":"10.0.0.2","source_port":9,"destination_port":10}},"uses":1}}"#
        ),
        side = side
    );
    assert_eq!(render_entry(&entry, "json", 0), format!("[\n{expected}\n]\n"));
}

#[test]
fn json_entries_are_an_array_events_are_lines() {
    let entry = entry_between(50, ("::1", 0), ("::2", 0)).timeout(9).id(7);
    let object = concat!(
        r#""id":7,"family":"ipv6","protocol":"unknown","protocol_number":50,"timeout":9,"#,
        r#""original":{"source":"::1","destination":"::2"},"reply":{"source":"::2","destination":"::1"},"#,
        r#""status":["CONFIRMED"],"mark":0,"zone":0"#
    );
    let mut text = Vec::new();
    let mut out = test_writer(&mut text, "json");
    out.write_entry(&entry).unwrap();
    out.write_entry(&entry).unwrap();
    out.finish().unwrap();
    out.write_event(&Event {
        kind: EventKind::Update,
        entry,
        at: UnixTime(1_795_443_359_250_000_000),
        is_replicated: false,
    })
    .unwrap();
    out.finish().unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        format!(
            "[\n{{{object},\"uses\":1}},\n{{{object},\"uses\":1}}\n]\n{{\"event\":\"update\",\"at\":\"2026-11-23T14:15:59.25Z\",{object}}}\n"
        )
    );
    let mut text = Vec::new();
    test_writer(&mut text, "json").for_events().finish().unwrap();
    assert!(text.is_empty());
}
