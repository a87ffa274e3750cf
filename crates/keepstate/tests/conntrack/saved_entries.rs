//! Entries of every kind, made in the kernel, saved with `-o save`, flushed and restored with `-R`: the kernel then has the same, attribute by attribute.
use super::entry_strategy::{Reply, addresses, entry, invert, master, with_reply};
use super::{can_run, common::report_skipped, lock_global_knobs};
use keepstate_linux::ctnetlink::{
    CtClient, CtDumpKind, CtFamily, CtFlow, CtProtoInfo, CtSynproxy, CtTcpInfo, CtTuple, DumpFilter, Status,
};
use keepstate_linux::netns::AnonNetns;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_keepstate");
/// Labels are kept only while a rule uses them.
const LABEL_RULE: &str =
    "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct label set 3";
/// Flags that mean nothing without the sequence numbers seen, which ctnetlink does not tell: DATA_UNACKNOWLEDGED, MAXACK_SET, CHALLENGE_ACK.
const UNSAVED_TCP_FLAGS: u8 = 0x70;
const BE_LIBERAL: u8 = 0x08;

#[test]
fn saved_entries_are_restored_attribute_by_attribute() {
    if !can_run() {
        return;
    }
    let _lock = lock_global_knobs();
    let Ok(namespace) = AnonNetns::create() else { return report_skipped("restoring entries needs root") };
    let ruled = namespace.command("nft").arg(LABEL_RULE).status().unwrap();
    assert!(ruled.success());
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let met = RefCell::new(BTreeSet::new());
    let tables = prop::collection::vec(entry(), 1..40);
    let result = runner.run(&tables, |entries| {
        met.borrow_mut().append(&mut namespace.enter(|| save_and_restore(&entries)).unwrap()?);
        Ok(())
    });
    result.unwrap();
    // The kernel took entries of each kind: none of them was passed over.
    let missing: Vec<&str> = ALL_KINDS.into_iter().filter(|kind| !met.borrow().contains(kind)).collect();
    assert!(missing.is_empty(), "no {missing:?} was tried");
}

const ALL_KINDS: [&str; 26] = [
    "tcp",
    "udp",
    "icmp",
    "icmpv6",
    "sctp",
    "udplite",
    "gre",
    "dccp",
    "other",
    "ipv6",
    "source nat",
    "destination nat",
    "port nat",
    "icmp id nat",
    "nat done",
    "reply differs",
    "helper",
    "labels",
    "mark",
    "zone",
    "original zone",
    "reply zone",
    "seqadj",
    "synproxy",
    "master",
    "window scale",
];

/// Linux gives a new connection the translated port that another one of the same source has. So a port must be restored even where it was
/// kept: whatever stands first in the table's order, and for an ICMP id as for a port.
#[test]
fn translated_ports_do_not_hang_on_the_order() {
    if !can_run() {
        return;
    }
    let Ok(namespace) = AnonNetns::create() else { return report_skipped("restoring entries needs root") };
    let entry = |(tuple, protoinfo): (CtTuple, CtProtoInfo), port: Option<u16>| {
        let [source, destination] = addresses(CtFamily::V4);
        let original = CtTuple { source: Some(source), destination: Some(destination), ..tuple };
        let flow = CtFlow {
            family: Some(CtFamily::V4),
            original,
            reply: invert(&original),
            timeout: Some(1_000),
            status: Some(Status::CONFIRMED),
            protoinfo,
            ..CtFlow::default()
        };
        with_reply(flow, &Reply::Nat { source: Some((true, port)), destination: None })
    };
    let ports = |protocol: u8, destination_port: u16| {
        let ports = CtTuple {
            source_port: Some(1),
            destination_port: Some(destination_port),
            protocol: Some(protocol),
            ..CtTuple::default()
        };
        let tcp = CtProtoInfo::Tcp(CtTcpInfo { state: Some(3), ..CtTcpInfo::default() });
        (ports, if protocol == 6 { tcp } else { CtProtoInfo::Empty })
    };
    let ping = |kind: u8| {
        let tuple = CtTuple {
            icmp_type: Some(kind),
            icmp_code: Some(0),
            icmp_id: Some(1),
            protocol: Some(1),
            ..CtTuple::default()
        };
        (tuple, CtProtoInfo::Empty)
    };
    for (kept, moved) in [(ports(6, 1), ports(6, 8)), (ports(17, 1), ports(17, 8)), (ping(8), ping(13))] {
        for other in [kept, moved] {
            let same = if other == kept { moved } else { kept };
            // Both orders of the two lines, since the one that was made first may be listed last.
            let entries = [entry(same, None), entry(other, Some(25_032))];
            namespace.enter(|| restore_in_both_orders(&entries)).unwrap();
        }
    }
}

fn restore_in_both_orders(entries: &[CtFlow]) {
    let mut table = CtClient::open().unwrap();
    table.flush(&DumpFilter::default()).unwrap();
    entries.iter().for_each(|entry| table.create(entry).unwrap());
    let before: Vec<CtFlow> = dump(&mut table).iter().map(comparable).collect();
    assert!(before.len() == 2 && before[0].reply != before[1].reply, "{before:?}");
    let saved = Command::new(PROGRAM).args(["conntrack", "-L", "-o", "save"]).output().unwrap().stdout;
    let mut lines: Vec<String> = String::from_utf8(saved).unwrap().lines().map(str::to_owned).collect();
    for _ in 0..2 {
        lines.reverse();
        table.flush(&DumpFilter::default()).unwrap();
        restore(lines.join("\n").as_bytes()).unwrap();
        let after: Vec<CtFlow> = dump(&mut table).iter().map(comparable).collect();
        assert_eq!(before, after, "{lines:#?}");
    }
}

/// Gives the lines to `conntrack -R -`; what it complains of is the error.
fn restore(saved: &[u8]) -> Result<(), String> {
    let mut restore = Command::new(PROGRAM)
        .args(["conntrack", "-R", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    restore.stdin.take().unwrap().write_all(saved).unwrap();
    let restored = restore.wait_with_output().unwrap();
    restored.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&restored.stderr).into_owned())
}

/// The kinds that an entry of the kernel's is of.
fn kinds(flow: &CtFlow) -> Vec<&'static str> {
    let (original, reply) = (&flow.original, &flow.reply);
    let bits = flow.status.unwrap_or_default();
    let protocol = match original.protocol {
        Some(6) => "tcp",
        Some(17) => "udp",
        Some(1) => "icmp",
        Some(58) => "icmpv6",
        Some(132) => "sctp",
        Some(136) => "udplite",
        Some(47) => "gre",
        Some(33) => "dccp",
        _ => "other",
    };
    let translated = bits.intersects(Status::SRC_NAT | Status::DST_NAT);
    let same_addresses = original.source == reply.destination && original.destination == reply.source;
    let scaled = matches!(flow.protoinfo, CtProtoInfo::Tcp(info) if info.wscale[0].is_some_and(|scale| scale > 0));
    let present = [
        (flow.family == Some(CtFamily::V6), "ipv6"),
        (bits.contains(Status::SRC_NAT), "source nat"),
        (bits.contains(Status::DST_NAT), "destination nat"),
        (translated && same_addresses && original.icmp_id.is_none(), "port nat"),
        (translated && original.icmp_id != reply.icmp_id, "icmp id nat"),
        (!translated && bits.contains(Status::SRC_NAT_DONE), "nat done"),
        (!translated && !same_addresses, "reply differs"),
        (flow.helper.is_some(), "helper"),
        (flow.labels.is_some_and(|labels| labels != [0; 16]), "labels"),
        (flow.mark.is_some_and(|mark| mark != 0), "mark"),
        (flow.zone.is_some(), "zone"),
        (original.zone.is_some(), "original zone"),
        (reply.zone.is_some(), "reply zone"),
        (flow.seqadj[0].is_some_and(|side| side.correction_pos != 0), "seqadj"),
        (flow.synproxy.is_some_and(|proxied| proxied.isn != 0), "synproxy"),
        (flow.master.is_some(), "master"),
        (scaled, "window scale"),
    ];
    let named = present.into_iter().filter(|(is, _)| *is).map(|(_, name)| name);
    std::iter::once(protocol).chain(named).collect()
}

/// Makes the entries, saves, flushes, restores and compares; returns the kinds that there were.
fn save_and_restore(entries: &[CtFlow]) -> Result<BTreeSet<&'static str>, TestCaseError> {
    let mut table = CtClient::open().unwrap();
    table.flush(&DumpFilter::default()).unwrap();
    let masters = [CtFamily::V4, CtFamily::V6].map(master);
    for master in &masters {
        table.create(master).unwrap();
    }
    for entry in entries {
        // Some have the same tuple, and some combinations the kernel refuses.
        let _ = table.create(entry);
    }
    let before = dump(&mut table);
    let saved = Command::new(PROGRAM).args(["conntrack", "-L", "-o", "save"]).output().unwrap().stdout;
    let text = String::from_utf8_lossy(&saved).into_owned();
    table.flush(&DumpFilter::default()).unwrap();
    let restored = restore(&saved);
    prop_assert!(restored.is_ok(), "{restored:?}\n{text}");
    let after = dump(&mut table);
    prop_assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        let (shown, seconds) = (comparable(before), before.timeout.unwrap_or(0));
        prop_assert_eq!(&shown, &comparable(after), "{}", text);
        prop_assert!(seconds.abs_diff(after.timeout.unwrap_or(0)) <= 60, "{:?}", after);
    }
    Ok(before.iter().flat_map(kinds).collect())
}

fn dump(table: &mut CtClient) -> Vec<CtFlow> {
    let mut flows = Vec::new();
    let listed = table.dump(CtDumpKind::Confirmed, &DumpFilter::default(), |flow| {
        flows.push(flow.clone());
        ControlFlow::Continue(())
    });
    listed.unwrap();
    flows.sort_by_key(|flow| (flow.original, flow.zone, flow.reply));
    flows
}

/// Without what is another's each time; TCP as it is after a restoration, which checks no windows. An entry that was created by request has room for
/// synproxy's numbers, which are all zero.
fn comparable(flow: &CtFlow) -> CtFlow {
    let synproxy = flow.synproxy.filter(|proxied| *proxied != CtSynproxy::default());
    let mut flow = CtFlow { id: None, use_count: None, timeout: None, synproxy, ..flow.clone() };
    if let CtProtoInfo::Tcp(info) = &mut flow.protoinfo {
        for [flags, _] in info.flags.iter_mut().flatten() {
            *flags = *flags & !UNSAVED_TCP_FLAGS | BE_LIBERAL;
        }
    }
    flow
}

/// A connection of which only the client's SYN was seen has a window scale in one direction, which the kernel takes back only together with the other's.
#[test]
fn window_scale_of_a_half_open_connection_is_restored() {
    if !can_run() {
        return;
    }
    let Ok(namespace) = AnonNetns::create() else { return report_skipped("restoring entries needs root") };
    for words in [
        "ip link add d0 type veth peer name d1",
        "ip link set d1 up",
        "ip link set d0 arp off up",
        "ip addr add 10.9.0.1/16 dev d0",
        "nft add table ip t; add chain ip t c { type filter hook output priority 0; }; add rule ip t c ct state new",
    ] {
        let (program, rest) = words.split_once(' ').unwrap();
        let mut command = namespace.command(program);
        let status = if program == "nft" { command.arg(rest) } else { command.args(rest.split(' ')) }.status();
        assert!(status.unwrap().success(), "{words}");
    }
    let [before, after] = namespace
        .enter(|| {
            let to = std::net::SocketAddr::from(([10, 9, 1, 1], 80));
            std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(1)).unwrap_err();
            let mut table = CtClient::open().unwrap();
            let before = dump(&mut table);
            let saved = Command::new(PROGRAM).args(["conntrack", "-L", "-o", "save"]).output().unwrap().stdout;
            table.flush(&DumpFilter::default()).unwrap();
            restore(&saved).unwrap();
            [before, dump(&mut table)]
        })
        .unwrap();
    let CtProtoInfo::Tcp(CtTcpInfo { wscale: [Some(1..), Some(0)], .. }) = before[0].protoinfo else {
        panic!("one side has a scale: {before:?}")
    };
    let comparable = |flows: &[CtFlow]| flows.iter().map(comparable).collect::<Vec<_>>();
    assert_eq!(comparable(&before), comparable(&after));
}

/// Attributes that this table cannot take are named, and the connection is there without them.
#[test]
fn missing_helper_or_master_is_no_lost_connection() {
    if !can_run() {
        return;
    }
    let script = format!(
        "printf -- '-A {UDP} # keepstate helper=nosuch\\n-A {UDP} -w 1 # keepstate master=6,10.0.0.8,10.0.0.9,1,2\\n' | \
         {PROGRAM} conntrack -R -; echo $?; {PROGRAM} conntrack -L -o json 2> /dev/null"
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.starts_with("0\n") && out.matches("\"id\"").count() == 2, "{out}{err}");
    assert!(err.contains("without its helper `nosuch'") && err.contains("in line 1"), "{err}");
    assert!(err.contains("without its master") && err.contains("in line 2"), "{err}");
}

const UDP: &str = "-t 100 -u UNSET -s 10.0.0.1 -d 10.0.0.2 -p udp --sport 1 --dport 2";

/// Older files, and Debian's: without words behind a `#`, and an attribute that only a later version knows.
#[test]
fn unknown_attribute_changes_nothing() {
    if !can_run() {
        return;
    }
    let script = format!(
        "printf -- '-A {UDP} # a comment\\n-A {UDP} -w 1 # keepstate later=1\\n' | {PROGRAM} conntrack -R -; echo $?; {PROGRAM} conntrack -C"
    );
    let output = Command::new("unshare").args(["--net", "sh", "-c", &script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(out, "2\n0\n", "{err}");
    assert!(err.contains("unknown attribute `later=1'") && err.contains("in line 2"), "{err}");
}
