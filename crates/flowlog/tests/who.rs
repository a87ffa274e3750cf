//! Who had a port: random questions to a random log, beside a list of who had what; and what makes an answer uncertain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::{BEGIN, end, record, session_end};
use keepstate_flowlog::{
    LogEvent, LogGap, LogRecord, LogSession, LogTime, LoggedPortBlock, PortHolder, SocketAddress, WhoAnswer, WhoDoubt,
    WhoQuestion, WhoSearch, json_line, parse_json_line,
};
use keepstate_test_support::SplitMix64;

fn at(millis: u64) -> LogTime {
    LogTime(BEGIN + millis * 1_000_000)
}

fn question(outside: SocketAddress, millis: u64) -> WhoQuestion {
    WhoQuestion { outside, protocol: None, at: at(millis), peer: None }
}

/// Asks a log, written and read again.
fn ask(lines: &[String], question: WhoQuestion) -> WhoAnswer {
    let mut search = WhoSearch::new(question);
    for line in lines {
        let (seq, record) = parse_json_line(line.as_bytes()).unwrap();
        search.push(seq, &record);
    }
    search.answer()
}

fn numbered(records: &[LogRecord]) -> Vec<String> {
    records.iter().zip(1..).map(|(record, seq)| json_line(seq, record)).collect()
}

/// One who had a port: by the model, which is a list.
struct Had {
    outside: SocketAddress,
    last_port: u16,
    protocol: Option<u8>,
    inside: SocketAddress,
    peer: Option<SocketAddress>,
    from: u64,
    until: Option<u64>,
}

fn random_log(random: &mut SplitMix64) -> (Vec<Had>, Vec<LogRecord>) {
    let mut model = Vec::new();
    let mut records = vec![record(0, LogEvent::LogStart { instance: 1, connections: 0 })];
    for number in 0..3000_u16 {
        let from = random.below(100_000) as u64;
        let until = Some(from + random.below(20_000) as u64).filter(|until| *until < 110_000);
        let inside = SocketAddress { address: [10, 0, 0, random.below(20) as u8].into(), port: 1024 + number };
        if number % 10 == 0 {
            // Blocks of 64 ports of an address of their own, one after the other.
            let (first_port, outside) = (1024 + number / 10 * 64, [192, 0, 2, 99].into());
            let block =
                LoggedPortBlock { inside: Some(inside.address), outside, first_port, last_port: first_port + 63 };
            records.push(record(from, LogEvent::PortBlockTaken(block)));
            records.extend(until.map(|until| record(until, LogEvent::PortBlockReturned(block))));
            let outside = SocketAddress { address: outside, port: first_port };
            model.push(Had { outside, last_port: first_port + 63, protocol: None, inside, peer: None, from, until });
            continue;
        }
        let protocol = if random.below(2) == 0 { 6 } else { 17 };
        let outside =
            SocketAddress { address: [192, 0, 2, random.below(3) as u8].into(), port: 1024 + random.below(40) as u16 };
        let peer = SocketAddress { address: [198, 51, 100, random.below(5) as u8].into(), port: 443 };
        let is_inbound = random.below(4) == 0;
        let session = if is_inbound {
            LogSession::new(protocol, 0, [peer, outside], [peer, inside])
        } else {
            LogSession::new(protocol, 0, [inside, peer], [outside, peer])
        };
        // Some begins and some ends stand for both.
        let has_begin = until.is_none() || random.below(5) > 0;
        if has_begin {
            records.push(record(from, LogEvent::SessionBegin(session)));
        }
        records.extend(until.map(|until| record(until, session_end(session, from, 0))));
        let last_port = outside.port;
        model.push(Had { outside, last_port, protocol: Some(protocol), inside, peer: Some(peer), from, until });
    }
    // A begin before an end of the same moment.
    records.sort_by_key(|record| record.at);
    (model, records)
}

#[test]
fn a_thousand_random_questions_are_answered_as_a_list_answers_them() {
    let seed = 20_261_129;
    println!("seed {seed}");
    let mut random = SplitMix64(seed);
    let (model, records) = random_log(&mut random);
    let lines = numbered(&records);
    let parsed: Vec<(u64, LogRecord)> = lines.iter().map(|line| parse_json_line(line.as_bytes()).unwrap()).collect();
    let (mut somebody, mut nobody) = (0, 0);
    for _ in 0..1000 {
        let address = if random.below(4) == 0 { 99 } else { random.below(3) as u8 };
        let ports = if address == 99 { 20_000 } else { 42 };
        let outside = SocketAddress { address: [192, 0, 2, address].into(), port: 1024 + random.below(ports) as u16 };
        let protocol = random.pick(&[None, Some(6), Some(17)]);
        let peer = (random.below(3) == 0).then(|| ([198, 51, 100, random.below(5) as u8].into(), None));
        let when = random.below(110_000) as u64;
        let question = WhoQuestion { outside, protocol, at: at(when), peer };
        let mut search = WhoSearch::new(question);
        parsed.iter().for_each(|(seq, record)| search.push(*seq, record));
        let answer = search.answer();
        let had = model.iter().filter(|had| {
            had.outside.address == outside.address
                && (had.outside.port..=had.last_port).contains(&outside.port)
                && protocol.is_none_or(|protocol| had.protocol.is_none_or(|had| had == protocol))
                && peer.is_none_or(|(peer, _)| had.peer.is_none_or(|had| had.address == peer))
                && had.from <= when
                && had.until.is_none_or(|until| when <= until)
        });
        let mut wanted: Vec<_> = had
            .map(|had| (had.inside.address, had.protocol, had.peer, Some(at(had.from)), had.until.map(at)))
            .collect();
        let found =
            |holder: &PortHolder| (holder.inside.unwrap(), holder.protocol, holder.peer, holder.from, holder.until);
        let mut found: Vec<_> = answer.holders.iter().map(found).collect();
        wanted.sort();
        found.sort();
        assert_eq!(found, wanted, "{question:?}");
        let in_doubt =
            answer.doubts.iter().any(|doubt| !matches!(doubt, WhoDoubt::PeersNotLogged | WhoDoubt::EndsBefore(_)));
        assert!(!in_doubt, "nothing is missing: {:?}", answer.doubts);
        if found.is_empty() { nobody += 1 } else { somebody += 1 }
    }
    assert!(somebody > 200 && nobody > 200, "{somebody} answers, {nobody} without");
}

fn one_session() -> LogSession {
    let peer = end("198.51.100.7", 443);
    LogSession::new(6, 0, [end("10.0.0.5", 4000), peer], [end("192.0.2.1", 1024), peer])
}

fn start(millis: u64, connections: u64) -> LogRecord {
    record(millis, LogEvent::LogStart { instance: millis, connections })
}

#[test]
fn missing_records_make_an_answer_uncertain() {
    let outside = end("192.0.2.1", 1024);
    let begin = record(10, LogEvent::SessionBegin(one_session()));
    let other = |millis| record(millis, LogEvent::LimitReached { limit: 1, refused: 1 });
    let mut lines = numbered(&[start(0, 0), begin, other(20), other(30), other(40)]);
    assert_eq!(ask(&lines, question(outside, 35)).doubts, []);
    assert_eq!(ask(&lines, question(outside, 50)).doubts, [WhoDoubt::EndsBefore(at(40))]);
    // A line is not there.
    lines.remove(3);
    let gap = LogGap { from: at(20), to: at(40), lost: Some(1) };
    let answer = ask(&lines, question(outside, 40));
    assert_eq!((answer.holders.len(), answer.doubts), (1, vec![WhoDoubt::InGap(gap), WhoDoubt::EndMayBeLost(gap)]));
    assert_eq!(ask(&lines, question(outside, 15)).doubts, [], "it had it then for sure");
    let nobody = end("192.0.2.1", 9);
    assert_eq!(ask(&lines, question(nobody, 15)).doubts, []);
    lines.push(json_line(6, &other(60)));
    assert_eq!(ask(&lines, question(nobody, 50)).doubts, [WhoDoubt::GapBefore(gap)]);
    // The log says so itself.
    let lost = record(40, LogEvent::RecordsLost { lost: 9, total: 9 });
    let lines = numbered(&[start(0, 0), other(20), lost, other(60)]);
    let gap = LogGap { from: at(20), to: at(40), lost: Some(9) };
    assert_eq!(ask(&lines, question(nobody, 30)).doubts, [WhoDoubt::InGap(gap)]);
}

#[test]
fn a_log_that_begins_late_or_hides_addresses_says_so() {
    let outside = end("192.0.2.1", 1024);
    let lines = [json_line(77, &record(100, session_end(one_session(), 50, 0)))];
    let answer = ask(&lines, question(outside, 60));
    assert_eq!(answer.holders[0].from, Some(at(50)), "the end says when it began");
    assert_eq!(answer.doubts, [WhoDoubt::BeginsLater(at(100))]);
    assert_eq!(ask(&lines, question(end("192.0.2.1", 9), 100)).doubts, [WhoDoubt::BeginsInTheMiddle(at(100))]);
    assert_eq!(ask(&[], question(outside, 100)).doubts, [WhoDoubt::NoRecords]);
    let mut hidden = record(10, LogEvent::SessionBegin(one_session()));
    keepstate_flowlog::LogPrivacy { peers: false, inside: false }.apply(&mut hidden);
    let lines = numbered(&[start(0, 0), hidden, record(90, LogEvent::LogEnd)]);
    let asked = WhoQuestion { peer: Some(("198.51.100.7".parse().unwrap(), Some(443))), ..question(outside, 50) };
    assert_eq!(ask(&lines, asked).doubts, [WhoDoubt::PeersNotLogged, WhoDoubt::InsideNotLogged]);
}

#[test]
fn a_restart_ends_what_it_does_not_restore() {
    let outside = end("192.0.2.1", 1024);
    let begin = record(10, LogEvent::SessionBegin(one_session()));
    let stop = record(20, LogEvent::LogEnd);
    let second = |connections| numbered(&[start(30, connections), record(99, LogEvent::LogEnd)]);
    let first = numbered(&[start(0, 0), begin.clone(), stop]);
    let cold = ask(&[first.clone(), second(0)].concat(), question(outside, 50));
    assert_eq!((cold.holders.len(), cold.doubts), (0, vec![]));
    let restored = ask(&[first, second(5)].concat(), question(outside, 50));
    assert_eq!((restored.holders.len(), restored.doubts), (1, vec![]));
    // It was killed: what it logged last may be missing.
    let killed = numbered(&[start(0, 0), begin]);
    let gap = LogGap { from: at(10), to: at(30), lost: None };
    let answer = ask(&[killed, second(5)].concat(), question(outside, 50));
    assert_eq!((answer.holders.len(), answer.doubts), (1, vec![WhoDoubt::EndMayBeLost(gap)]));
}

#[test]
fn a_restart_after_the_clock_was_set_back_is_not_taken_for_a_repetition() {
    let lines = [
        numbered(&[start(500, 0), record(510, LogEvent::LogEnd)]),
        numbered(&[start(0, 0), record(10, LogEvent::SessionBegin(one_session())), record(20, LogEvent::LogEnd)]),
    ];
    assert_eq!(ask(&lines.concat(), question(end("192.0.2.1", 1024), 15)).holders.len(), 1);
}

#[test]
fn a_file_given_twice_changes_nothing() {
    let begin = record(10, LogEvent::SessionBegin(one_session()));
    let end_record = record(20, session_end(one_session(), 10, 0));
    let lines = numbered(&[start(0, 0), begin, end_record]);
    let once = ask(&lines, question(end("192.0.2.1", 1024), 15));
    let twice = ask(&[lines.clone(), lines].concat(), question(end("192.0.2.1", 1024), 15));
    assert_eq!((once.holders.len(), &once), (1, &twice));
}

/// The records of several logs, by the number of each, in the order of time.
fn ask_several(logs: &[&[LogRecord]], question: WhoQuestion) -> WhoAnswer {
    let mut search = WhoSearch::new(question);
    let numbered = |log: usize| logs[log].iter().zip(1..).map(move |(record, seq)| (record.at, log, seq, record));
    let mut all: Vec<_> = (0..logs.len()).flat_map(numbered).collect();
    all.sort_by_key(|(at, log, ..)| (*at, *log));
    for (_, log, seq, record) in all {
        search.push_of(log, seq, record);
        if logs[log].len() as u64 == seq {
            search.end_log(log);
        }
    }
    search.answer()
}

/// One gateway begins a session and is killed, the other one takes it over and ends it; the first one comes back meanwhile, without connections.
#[test]
fn a_session_that_another_gateway_ends_lives_until_then() {
    let outside = end("192.0.2.1", 1024);
    let begin = record(10, LogEvent::SessionBegin(one_session()));
    let first = [start(0, 0), begin.clone(), start(30, 0), record(90, LogEvent::LogEnd)];
    let other = |millis| record(millis, LogEvent::LimitReached { limit: 1, refused: 1 });
    let ended = record(60, session_end(one_session(), 10, 0));
    let second = [start(5, 0), other(20), ended, record(95, LogEvent::LogEnd)];
    for logs in [[&first[..], &second], [&second, &first]] {
        for (millis, holders) in [(9, 0), (10, 1), (29, 1), (45, 1), (60, 1), (61, 0), (90, 0)] {
            let answer = ask_several(&logs, question(outside, millis));
            assert_eq!(answer.holders.len(), holders, "at {millis}: {answer:?}");
            let ends = answer.holders.iter().all(|holder| (holder.from, holder.until) == (Some(at(10)), Some(at(60))));
            assert!(ends, "{answer:?}");
        }
    }
    // Without the end, nobody knows whether it was taken over.
    let second = [start(5, 0), other(20), record(95, LogEvent::LogEnd)];
    let answer = ask_several(&[&first, &second], question(outside, 45));
    assert_eq!(answer.holders.len(), 1);
    assert!(matches!(answer.doubts[..], [WhoDoubt::EndMayBeLost(_)]), "{answer:?}");
}

/// One behind the other they are one gateway's, whatever their names.
#[test]
fn logs_one_behind_the_other_are_one_log() {
    let outside = end("192.0.2.1", 1024);
    let begin = record(10, LogEvent::SessionBegin(one_session()));
    let stopped = [start(0, 0), begin, record(20, LogEvent::LogEnd)];
    let again = [start(30, 0), record(99, LogEvent::LogEnd)];
    let one = ask(&[numbered(&stopped), numbered(&again)].concat(), question(outside, 50));
    assert_eq!(ask_several(&[&stopped, &again], question(outside, 50)), one);
    assert_eq!((one.holders.len(), one.doubts), (0, vec![]));
}
