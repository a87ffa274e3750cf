//! The model beside a plain one, and what it shows.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod beside_plain_model;

use crate::{FlowKey, FlowSort, GroupBy, LiveTable, OccupancySample, PageQuery, TimeToFull};
use keepstate_conntrack::FlowSelection;
use keepstate_linux::ctnetlink::{CtCounters, CtFamily, CtFlow, CtProtoInfo, CtTcpInfo, CtTuple, EventKind, Status};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

/// A connection from a source to a service, untranslated.
pub(crate) fn flow(protocol: u8, source: (IpAddr, u16), destination: (IpAddr, u16)) -> CtFlow {
    let tuple = |from: (IpAddr, u16), to: (IpAddr, u16)| CtTuple {
        source: Some(from.0),
        destination: Some(to.0),
        protocol: Some(protocol),
        source_port: Some(from.1),
        destination_port: Some(to.1),
        ..CtTuple::default()
    };
    CtFlow {
        family: Some(CtFamily::of(source.0)),
        original: tuple(source, destination),
        reply: tuple(destination, source),
        status: Some(Status::CONFIRMED),
        timeout: Some(100),
        id: Some(u32::from(source.1)),
        ..CtFlow::default()
    }
}

/// The same with its source translated.
pub(crate) fn translated(mut flow: CtFlow, outside: (IpAddr, u16)) -> CtFlow {
    (flow.reply.destination, flow.reply.destination_port) = (Some(outside.0), Some(outside.1));
    flow
}

pub(crate) fn tcp(mut flow: CtFlow, state: u8) -> CtFlow {
    flow.protoinfo = CtProtoInfo::Tcp(CtTcpInfo { state: Some(state), ..CtTcpInfo::default() });
    flow
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn web(source: u8, port: u16) -> CtFlow {
    tcp(flow(6, (address(source), port), (address(200), 443)), 3)
}

#[test]
fn groups_say_who_fills_the_table() {
    let mut table = LiveTable::new(1000);
    for port in 0..30 {
        table.event(EventKind::New, &web(1, port), at(1));
    }
    for port in 0..5 {
        table.event(EventKind::New, &flow(17, (address(2), port), (address(201), 53)), at(1));
    }
    let largest = |by| {
        let rows = table.groups(by, 1, at(1));
        (rows[0].label.clone(), rows[0].entries, table.group_count(by))
    };
    assert_eq!(largest(GroupBy::Source), ("10.0.0.1".into(), 30, 2));
    assert_eq!(largest(GroupBy::Service), ("tcp 10.0.0.200:443".into(), 30, 2));
    assert_eq!(largest(GroupBy::State), ("tcp ESTABLISHED".into(), 30, 2));
    assert_eq!(largest(GroupBy::Zone), ("0".into(), 35, 1));
    assert_eq!(table.groups(GroupBy::Source, 5, at(1))[0].new_per_second.round(), 3.0, "30 in the last ten seconds");
    assert!(table.groups(GroupBy::Outside, 5, at(1)).is_empty());
}

#[test]
fn a_groups_words_select_its_connections() {
    let mut table = LiveTable::new(1000);
    for port in 1..20 {
        table.event(EventKind::New, &web(1, port), at(1));
        table.event(EventKind::New, &flow(17, (address(2), port), (address(201), 53)), at(1));
        table.event(EventKind::New, &translated(web(3, port), (address(99), port + 100)), at(1));
        let six = IpAddr::V6("2001:db8::1".parse().unwrap());
        table.event(EventKind::New, &CtFlow { zone: Some(5), ..flow(132, (six, port), (six, 80)) }, at(1));
    }
    for by in GroupBy::ALL {
        for group in table.groups(by, 100, at(1)) {
            let filter = FlowSelection::parse(&group.words).unwrap();
            let query = PageQuery { filter: Some(&filter), sort: FlowSort::Newest, offset: 0, rows: 1 };
            assert_eq!(table.page(&query, at(1)).matched, group.entries, "{by:?}: {}", group.words);
        }
    }
}

#[test]
fn nat_is_shown_from_inside_to_outside_to_peer() {
    let mut table = LiveTable::new(10);
    let shown = |table: &mut LiveTable, flow: &CtFlow| {
        table.event(EventKind::New, flow, at(0));
        table.find(&FlowKey::of(flow).unwrap(), at(0)).unwrap().nat.map(|nat| nat.to_string())
    };
    let plain = web(1, 1);
    assert_eq!(shown(&mut table, &plain), None);
    let masqueraded = translated(web(1, 2), (address(99), 1024));
    assert_eq!(shown(&mut table, &masqueraded).unwrap(), "10.0.0.1:2 → 10.0.0.99:1024 → 10.0.0.200:443");
    let mut forwarded = web(1, 3);
    (forwarded.reply.source, forwarded.reply.source_port) = (Some(address(50)), Some(8443));
    assert_eq!(shown(&mut table, &forwarded).unwrap(), "10.0.0.50:8443 → 10.0.0.200:443 → 10.0.0.1:3");
    let both = translated(
        CtFlow { original: CtTuple { source_port: Some(4), ..forwarded.original }, ..forwarded },
        (address(99), 9),
    );
    assert_eq!(shown(&mut table, &both).unwrap(), "10.0.0.1:4 → 10.0.0.200:443 ⇒ 10.0.0.99:9 → 10.0.0.50:8443");
    let use_of_ports = table.nat_ports();
    assert_eq!((use_of_ports[0].connections, use_of_ports[0].addresses, use_of_ports[0].most_to_one_peer), (2, 1, 1));
    table.event(EventKind::Destroy, &masqueraded, at(1));
    table.event(EventKind::Destroy, &both, at(1));
    assert!(table.nat_ports().is_empty());
}

#[test]
fn a_page_is_filtered_in_the_words_of_conntrack_and_sorted() {
    let mut table = LiveTable::new(1000);
    for port in 0..50 {
        table.event(EventKind::New, &web(1, port), at(u64::from(port)));
        table.event(EventKind::New, &flow(17, (address(2), port), (address(201), 53)), at(u64::from(port)));
    }
    let filter = FlowSelection::parse("-p tcp --dport 443").unwrap();
    let ports = |sort, offset| {
        let query = PageQuery { filter: Some(&filter), sort, offset, rows: 3 };
        let page = table.page(&query, at(60));
        assert_eq!(page.matched, 50);
        page.rows.iter().map(|row| row.key.ports[0]).collect::<Vec<_>>()
    };
    assert_eq!(ports(FlowSort::Newest, 0), [49, 48, 47]);
    assert_eq!(ports(FlowSort::Oldest, 10), [10, 11, 12]);
    assert_eq!(ports(FlowSort::Source, 48), [48, 49]);
    assert_eq!(ports(FlowSort::Timeout, 0), [0, 1, 2]);
    assert!(ports(FlowSort::Newest, 500_000).is_empty());
}

#[test]
fn byte_rates_come_from_two_readings() {
    let counted = |bytes| {
        let count = CtCounters { packets: bytes / 100, bytes };
        CtFlow { counters: [Some(count), Some(count)], ..web(1, 1) }
    };
    let mut table = LiveTable::new(10);
    assert_eq!(table.has_counts(), None);
    table.begin_dump();
    table.dump_flow(&counted(1000), at(10));
    table.end_dump(at(10));
    table.begin_dump();
    table.dump_flow(&counted(6000), at(15));
    table.end_dump(at(15));
    let row = table.find(&FlowKey::of(&counted(0)).unwrap(), at(15)).unwrap();
    assert_eq!((row.bytes, row.bytes_per_second, row.packets_per_second), (Some(12_000), 2000, 20));
    assert_eq!((table.has_counts(), table.groups(GroupBy::Source, 1, at(15))[0].bytes_per_second), (Some(true), 2000));
    table.event(EventKind::Destroy, &web(1, 1), at(16));
    assert_eq!((table.has_counts(), table.len()), (None, 0));
}

#[test]
fn there_is_room_for_so_many_and_the_rest_is_counted() {
    let mut table = LiveTable::new(10);
    for port in 0..25 {
        table.event(EventKind::New, &web(1, port), at(0));
    }
    assert_eq!((table.len(), table.state().left_out, table.group_count(GroupBy::Service)), (10, 15, 1));
    table.event(EventKind::Destroy, &web(1, 3), at(0));
    table.event(EventKind::New, &web(1, 30), at(0));
    assert_eq!(table.len(), 10);
}

#[test]
fn lost_events_are_said_until_a_whole_dump_has_passed() {
    let mut table = LiveTable::new(10);
    assert!(!table.state().is_complete);
    table.begin_dump();
    table.end_dump(at(1));
    assert!(table.state().is_complete);
    table.event(EventKind::New, &web(1, 1), at(1));
    table.events_lost(at(2));
    assert_eq!((table.state().is_complete, table.state().overruns), (false, 1));
    table.begin_dump();
    table.events_lost(at(3));
    assert_eq!(table.end_dump(at(3)), 1, "neither dump nor event named it");
    assert!(!table.state().is_complete, "events were lost during the dump too");
    table.begin_dump();
    table.end_dump(at(4));
    assert!(table.state().is_complete && table.is_empty());
}

#[test]
fn an_id_tells_a_connection_from_the_next_of_the_same_addresses() {
    let mut table = LiveTable::new(10);
    let (first, second) = (web(1, 1), CtFlow { id: Some(77), ..web(1, 1) });
    table.event(EventKind::New, &first, at(0));
    table.event(EventKind::New, &second, at(5));
    table.event(EventKind::Destroy, &first, at(6));
    assert_eq!(table.find(&FlowKey::of(&second).unwrap(), at(6)).unwrap().age, 1);
}

#[test]
fn size_rates_and_prediction_come_from_samples() {
    let mut table = LiveTable::new(10);
    for second in 0..100 {
        for port in 0..4 {
            table.event(EventKind::New, &web(1, port), at(second));
        }
        table.sample(OccupancySample { at: at(second), entries: 100 + second * 10, limit: Some(2000) });
    }
    assert_eq!(table.rates().new_per_second, 4.0);
    assert!(matches!(table.time_to_full(), TimeToFull::In(time) if time.as_secs().abs_diff(91) <= 1));
    assert_eq!((table.history().len(), table.long_history().len()), (100, 2));
}
