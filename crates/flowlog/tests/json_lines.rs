//! JSON lines: what was written is read again, and no line of anybody's can do harm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{end, one_of_each, record};
use keepstate_flowlog::{LogEvent, LogPrivacy, LogSession, json_line, parse_json_line};
use proptest::prelude::*;

#[test]
fn every_kind_of_record_is_read_as_it_was_written() {
    let starts = [LogEvent::LogStart { instance: u64::MAX, connections: 3 }, LogEvent::LogEnd];
    let records = one_of_each().into_iter().chain(starts.map(|event| record(9, event)));
    for (record, seq) in records.zip(1..) {
        for privacy in [(true, true), (true, false), (false, true), (false, false)] {
            let (peers, inside) = privacy;
            let mut hidden = record.clone();
            LogPrivacy { peers, inside }.apply(&mut hidden);
            let line = json_line(seq, &hidden);
            assert_eq!(parse_json_line(line.as_bytes()), Ok((seq, hidden)), "{line}");
        }
    }
}

#[test]
fn the_names_are_those_that_are_documented() {
    let peer = end("198.51.100.7", 443);
    let session = LogSession::new(6, 0, [end("10.0.0.5", 4000), peer], [end("192.0.2.1", 1024), peer]);
    let line = json_line(2, &record(0, common::session_end(session, 0, 0)));
    let wanted = r#"{"seq":2,"at":"2026-09-21T14:13:20.000000Z","event":"session-end","protocol":"tcp","nat":true,"src":"10.0.0.5","src_port":4000,"dst":"198.51.100.7","dst_port":443,"nat_src":"192.0.2.1","nat_src_port":1024,"nat_dst":"198.51.100.7","nat_dst_port":443,"start":"2026-09-21T14:13:20.000000Z","duration_ms":0,"packets":7,"bytes":700,"reply_packets":9,"reply_bytes":9000}"#;
    assert_eq!(line, wanted);
}

#[test]
fn what_is_no_record_is_told_plainly() {
    for (line, wanted) in [
        ("", "not a record of a flow log: EOF"),
        ("{}", "not a record of a flow log: missing field `seq`"),
        (r#"{"seq":1,"at":"now","event":"log-end"}"#, "at: now is not possible"),
        (r#"{"seq":1,"at":"2026-09-21T14:13:20Z","event":"session-begin"}"#, "session-begin without protocol"),
        (
            r#"{"seq":1,"at":"2026-09-21T14:13:20Z","event":"session-begin","protocol":"qwer","nat":true}"#,
            "protocol: qwer",
        ),
        (r#"{"seq":1,"at":"2026-09-21T14:13:20Z","event":"log-start","version":2}"#, "version 2 of the format"),
        (
            r#"{"seq":1,"at":"2026-09-21T14:13:20Z","event":"port-block-taken","nat_src":"192.0.2.1","first_port":9,"last_port":3}"#,
            "before first_port 9",
        ),
        (r#"{"seq":-1,"at":"2026-09-21T14:13:20Z","event":"log-end"}"#, "not a record"),
        (r#"{"seq":1,"at":"2026-09-21T14:13:20Z","event":"other"}"#, "unknown variant `other`"),
    ] {
        let error = parse_json_line(line.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{line}: {error}");
    }
    let long = format!(r#"{{"seq":1,"at":"{}"}}"#, "x".repeat(5000));
    assert!(parse_json_line(long.as_bytes()).unwrap_err().to_string().contains("longer than 4096 bytes"));
}

proptest! {
    /// A record with some bytes changed, cut off or put in: a record or an error.
    #[test]
    fn a_damaged_line_is_a_record_or_an_error(which in 0usize..13, at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..6), cut in any::<bool>()) {
        let record = one_of_each().swap_remove(which);
        let mut line = json_line(1, &record).into_bytes();
        let at = at.index(line.len());
        if cut { line.truncate(at) } else { line.splice(at..(at + bytes.len()).min(line.len()), bytes); }
        if let Ok((seq, record)) = parse_json_line(&line) {
            prop_assert_eq!(parse_json_line(json_line(seq, &record).as_bytes()).map(|(seq, _)| seq), Ok(seq));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_json_line(&line);
    }
}
