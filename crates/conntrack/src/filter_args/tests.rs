#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
use super::*;
use crate::test_entries::{EntryBuilder, entry_between};
use clap::Parser;
use keepstate_engine::{SctpState, TcpState, ZoneDirection};

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    filter: FilterArgs,
}

/// The filter of a command line, checked.
fn parse_filter(arguments: &str) -> Result<FilterArgs, String> {
    let line = CommandLine::try_parse_from(["x"].into_iter().chain(arguments.split_whitespace()));
    let filter = line.map_err(|error| error.to_string())?.filter;
    filter.check().map(|()| filter)
}

#[track_caller]
fn matches(arguments: &str, entry: &Entry) -> bool {
    parse_filter(arguments).unwrap().matches(entry)
}

fn tcp() -> Entry {
    let entry = entry_between(6, ("10.0.0.1", 1003), ("10.0.0.2", 80)).tcp(TcpState::TimeWait).seen_reply().assured();
    entry.mark(0x15).reply("10.9.9.9", "10.8.8.8").labels(&[3, 127])
}

#[test]
fn empty_filter_matches_everything() {
    assert!(matches("", &tcp()));
    assert!(matches("", &entry_between(50, ("::1", 0), ("::2", 0))));
}

/// Each option alone tells entries apart: the first list matches, the second does not.
#[test]
fn each_option_selects_entries() {
    for yes in [
        "-p tcp",
        "-p 6",
        "-s 10.0.0.1",
        "-s 10.0.0.9/24",
        "--src 10.0.0.1",
        "--orig-src 10.0.0.1",
        "-d 10.0.0.2",
        "-d 10.1.1.1 --mask-dst 255.0.0.0",
        "-s 99.0.0.1 --mask-src 0.0.0.1",
        "-r 10.9.9.9",
        "-q 10.8.8.8",
        "-p tcp --sport 1003",
        "-p tcp --dport 80",
        "-p tcp --orig-port-dst 80",
        "-p tcp --reply-port-src 80",
        "-p tcp --reply-port-dst 1003",
        "-p tcp --state TIME_WAIT",
        "-u ASSURED",
        "-u assured,seen_reply",
        "-m 0x15",
        "-m 5/0xf",
        "-m 21",
        "-l 3",
        "-l 3 -l 127",
        "-w 0",
        "-f ipv4",
        "-p tcp -s 10.0.0.1 -d 10.0.0.2 --dport 80",
    ] {
        assert!(matches(yes, &tcp()), "{yes}");
    }
    for no in [
        "-p udp",
        "-p 0",
        "-s 10.0.0.2",
        "-s 10.0.0.2/32",
        "-s ::1",
        "-d 10.0.0.1",
        "-d 11.1.1.1/8",
        "-r 10.0.0.2",
        "-q 10.0.0.1",
        "-p tcp --sport 80",
        "-p tcp --dport 1003",
        "-p tcp --reply-port-src 1003",
        "-p tcp --reply-port-dst 80",
        "-p udp --dport 80",
        "-p tcp --state CLOSE",
        "-u FIXED_TIMEOUT",
        "-u ASSURED,EXPECTED",
        "-m 5",
        "-m 0x15/0xf",
        "-l 4",
        "-l 3 -l 4",
        "-w 7",
        "-f ipv6",
        "-p tcp -s 10.0.0.1 -d 10.0.0.2 --dport 81",
    ] {
        assert!(!matches(no, &tcp()), "{no}");
    }
}

#[test]
fn state_filter_depends_on_protocol() {
    let sctp = entry_between(132, ("10.0.0.1", 1), ("10.0.0.2", 2)).sctp(SctpState::Established, [1, 2]);
    assert!(matches("-p sctp --state ESTABLISHED", &sctp));
    assert!(!matches("-p sctp --state COOKIE_WAIT", &sctp));
    assert!(!matches("-p tcp --state ESTABLISHED", &sctp));
    let opened_twice = entry_between(6, ("10.0.0.1", 1), ("10.0.0.2", 2)).tcp(TcpState::SynSent2);
    assert!(matches("-p tcp --state LISTEN", &opened_twice));
}

/// As conntrack has it: `-w` sees zones of both directions only, and `-w 0` all the others.
#[test]
fn zone_filter_separates_directions() {
    let zoned = |direction| entry_between(17, ("10.0.0.1", 1), ("10.0.0.2", 2)).zone(7, direction);
    let rows = [
        (ZoneDirection::Both, [true, false, false, false]),
        (ZoneDirection::Original, [false, true, true, false]),
        (ZoneDirection::Reply, [false, true, false, true]),
    ];
    for (direction, expected) in rows {
        let entry = zoned(direction);
        let seen = ["-w 7", "-w 0", "--orig-zone 7", "--reply-zone 7"].map(|arguments| matches(arguments, &entry));
        assert_eq!(seen, expected, "{direction:?}");
    }
}

#[test]
fn invalid_option_combinations_are_rejected() {
    for (arguments, reason) in [
        ("--sport 5", "--sport"),
        ("-p icmp --dport 4", "--dport"),
        ("-p 50 --reply-port-src 1", "--reply-port-src"),
        ("--state ESTABLISHED", "--state"),
        ("-p udp --state ESTABLISHED", "--state"),
        ("-p tcp --state FOO", "unknown state 'FOO'"),
        ("-p tcp --state COOKIE_WAIT", "unknown TCP state"),
        ("-p sctp --state SYN_SENT", "unknown SCTP state"),
        ("-s 10.0.0.1 -d ::1", "mismatched address family"),
        ("-f ipv4 -s ::1", "mismatched address family"),
        ("-s 10.0.0.1 -q ::1", "mismatched address family"),
        ("-s 10.0.0.1 --mask-src ::", "mismatched address family"),
        ("--mask-src 255.0.0.0", "--src"),
        ("-p foo", "unsupported protocol"),
        ("-f ipv5", "unsupported family"),
        ("-s foo", "invalid IP address"),
        ("-s 1.2.3.4/33", "invalid netmask"),
        ("-r 10.0.0.0/8", "invalid"),
        ("-u FOO", "unknown status"),
        ("-m x", "invalid mark"),
        ("-w 65536", "65536"),
        ("-w x", "invalid"),
        ("-l 128", "128"),
        ("-p udp --dport 65536", "65536"),
    ] {
        let error = parse_filter(arguments).expect_err(arguments);
        assert!(error.contains(reason), "{arguments}: {error}");
    }
}

/// What a control client sends is what was given on its command line.
#[test]
fn filters_survive_serialization() {
    for arguments in [
        "",
        "-p tcp -s 10.0.0.9/24 -d ::ffff:1.2.3.4 --sport 5 --reply-port-dst 6 --state LISTEN",
        "-p sctp --state COOKIE_WAIT -u ASSURED,SEEN_REPLY -m 5/0xf -l 3 -l 127 -w 7 --orig-zone 1 -f ipv6",
    ] {
        let line = CommandLine::try_parse_from(["x"].into_iter().chain(arguments.split_whitespace()));
        let filter = line.map_err(|error| error.to_string()).unwrap().filter;
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<FilterArgs>(&text).unwrap(), filter, "{text}");
    }
    assert!(serde_json::from_str::<FilterArgs>("{\"prot\":6}").is_err(), "an unknown field is an error");
    assert_eq!(serde_json::from_str::<FilterArgs>("{}").unwrap(), FilterArgs::default());
}
