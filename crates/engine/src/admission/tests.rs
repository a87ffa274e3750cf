//! Each choice by itself, and all together beside a model of one page.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use super::*;
use crate::{ConnId, ConnUpdate, NewConnection, Secret, Status, Sysctls, Tuple, UpdateError, Zone};
use alloc::vec;
use core::net::Ipv4Addr;
use keepstate_types::ipproto;
use proptest::prelude::*;

fn engine(limit: u64, policy: AdmissionPolicy) -> Engine {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, limit).unwrap();
    sysctls.set(Sysctl::Buckets, 16).unwrap();
    let mut engine = Engine::new(sysctls, Secret([7; 16]));
    engine.set_admission(policy, Instant(0)).unwrap();
    engine
}

fn reserve(text: &str) -> AdmissionPolicy {
    AdmissionPolicy { reserves: vec![text.parse().unwrap()], ..AdmissionPolicy::default() }
}

fn source_limit(text: &str) -> AdmissionPolicy {
    AdmissionPolicy { source_limits: vec![text.parse().unwrap()], ..AdmissionPolicy::default() }
}

fn tuple(source: u32, source_key: u16, port: u16) -> Tuple {
    Tuple {
        source: Ipv4Addr::from_bits(0x0a00_0000 | source).into(),
        destination: [192, 0, 2, 1].into(),
        protocol: ipproto::TCP,
        source_key,
        destination_key: port,
    }
}

/// Begins an established connection, which is never dropped early, or one that may be.
fn begin(engine: &mut Engine, original: Tuple, is_assured: bool, now: Instant) -> Result<ConnId, UpdateError> {
    let status = is_assured.then_some(Status::SEEN_REPLY | Status::ASSURED);
    let attributes = ConnUpdate { timeout: Some(600), status, ..ConnUpdate::default() };
    let reply = original.invert().unwrap();
    engine.create(
        &NewConnection { original, reply, zone: Zone::default(), attributes, dst_nat: None, src_nat: None },
        now,
    )
}

fn refused(engine: &Engine, wanted: Reason) -> u64 {
    engine.reason_counts().find(|(reason, _)| *reason == wanted).map_or(0, |(_, count)| count)
}

/// A SYN of this tuple, through `handle`.
fn send_syn(engine: &mut Engine, tuple: &Tuple, now: Instant) -> Option<Reason> {
    let (core::net::IpAddr::V4(source), core::net::IpAddr::V4(destination)) = (tuple.source, tuple.destination) else {
        return None;
    };
    let mut tcp = [tuple.source_key.to_be_bytes(), tuple.destination_key.to_be_bytes()].concat();
    tcp.extend([0, 0, 0, 9, 0, 0, 0, 0, 5 << 4, 2, 3, 232, 0, 0, 0, 0]);
    let sum = keepstate_wire::checksum::Sum::new()
        .add_bytes(&source.octets())
        .add_bytes(&destination.octets())
        .add_u16(6)
        .add_u16(20)
        .add_bytes(&tcp);
    tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0];
    bytes.extend(source.octets().iter().chain(&destination.octets()));
    let check = keepstate_wire::checksum::internet(&bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&check);
    bytes.extend(tcp);
    engine.handle(&keepstate_wire::Packet::parse(&bytes).unwrap(), Zone::default(), now).reason
}

#[test]
fn a_reserve_is_kept_for_those_it_names() {
    let now = Instant(0);
    let mut engine = engine(100, reserve("10 for tcp 22"));
    for source in 0..90 {
        begin(&mut engine, tuple(source, 4000, 1883), true, now).unwrap();
    }
    assert_eq!(send_syn(&mut engine, &tuple(90, 4000, 1883), now), Some(Reason::TableReserved));
    assert_eq!(engine.poll_log().unwrap(), "keepstate: table full but for its reserves, dropping packet");
    for source in 0..10 {
        assert_eq!(send_syn(&mut engine, &tuple(source, 4000, 22), now), None);
    }
    assert_eq!(engine.reserve_counts().map(|(_, count)| count).collect::<Vec<_>>(), [10]);
    // An unassured connection of the reserve gives its entry to another of the reserve, never to others.
    assert_eq!(send_syn(&mut engine, &tuple(91, 4000, 1883), now), Some(Reason::TableFull));
    assert_eq!((engine.count(), engine.counters().early_drop), (100, 0));
    assert_eq!((refused(&engine, Reason::TableReserved), refused(&engine, Reason::TableFull)), (1, 1));
    assert_eq!(engine.counters().drop, 2);
    // Nor are they collected after the table was full.
    while engine.next_wake(now) == Some(now) {
        engine.poll(now);
    }
    assert_eq!(engine.count(), 100);
    engine.check_invariants().unwrap();
}

#[test]
fn more_than_reserved_take_the_entries_of_all() {
    let now = Instant(0);
    let mut engine = engine(20, reserve("5 for tcp 22"));
    for source in 0..20 {
        begin(&mut engine, tuple(source, 4000, 22), true, now).unwrap();
    }
    assert_eq!(begin(&mut engine, tuple(99, 4000, 22), true, now), Err(UpdateError::TableFull));
    assert_eq!(begin(&mut engine, tuple(99, 4000, 80), true, now), Err(UpdateError::TableFull));
    engine.check_invariants().unwrap();
}

#[test]
fn closing_connections_make_room_below_the_reserve() {
    let now = Instant(0);
    let mut engine = engine(1000, reserve("500 for tcp 22"));
    for source in 0..500 {
        begin(&mut engine, tuple(source, 4000, 80), source % 2 == 0, now).unwrap();
    }
    // Half of the table is used, which is all that is for these.
    engine.poll(now);
    assert_eq!(engine.count(), 500);
    drop(engine.drop_table_full(now));
    while engine.next_wake(now) == Some(now) {
        engine.poll(now);
    }
    assert_eq!(engine.count(), 474, "collected to less than 95 % of the entries for all");
}

#[test]
fn a_source_has_as_many_connections_as_it_may() {
    let now = Instant(0);
    let mut engine = engine(1000, source_limit("3 connections per 24,64 for tcp 443"));
    for port in 0..3 {
        assert_eq!(send_syn(&mut engine, &tuple(0x0105, 4000 + port, 443), now), None);
    }
    assert_eq!(send_syn(&mut engine, &tuple(0x01ff, 4000, 443), now), Some(Reason::SourceConnections));
    assert_eq!(send_syn(&mut engine, &tuple(0x0205, 4000, 443), now), None, "another network");
    assert_eq!(send_syn(&mut engine, &tuple(0x0105, 4000, 80), now), None, "another port");
    let (first, _) = engine.find(&tuple(0x0105, 4000, 443), Zone::default(), now).unwrap();
    assert!(engine.remove(first, now));
    assert_eq!(send_syn(&mut engine, &tuple(0x01ff, 4000, 443), now), None);
    assert_eq!((refused(&engine, Reason::SourceConnections), engine.counters().drop), (1, 1));
    assert_eq!(engine.admission_stats().sources, 2);
    engine.flush(now);
    assert_eq!(engine.admission_stats().sources, 0);
    engine.check_invariants().unwrap();
}

#[test]
fn a_source_begins_as_many_a_second_as_it_may() {
    let at = Instant::from_millis;
    let mut engine = engine(1000, source_limit("10 new/s burst 3"));
    let mut send = |port, now| send_syn(&mut engine, &tuple(1, port, 443), now);
    assert_eq!([send(1, at(1000)), send(2, at(1000)), send(3, at(1000))], [None; 3]);
    assert_eq!(send(4, at(1000)), Some(Reason::SourceRate));
    assert_eq!(send(4, at(1099)), Some(Reason::SourceRate));
    assert_eq!(send(4, at(1100)), None);
    assert_eq!(send(5, at(1100)), Some(Reason::SourceRate));
    assert_eq!(send(1, at(1100)), None, "a known connection is no new one");
    assert_eq!([send(5, at(1400)), send(6, at(1400)), send(7, at(1400))], [None; 3]);
    assert_eq!(send(8, at(1400)), Some(Reason::SourceRate));
    engine.flush(at(1400));
    assert_eq!(engine.admission_stats().sources, 1, "its allowance is not whole yet");
    assert_eq!(
        send_syn(&mut engine, &tuple(1, 9, 443), at(1400)),
        Some(Reason::SourceRate),
        "ending gives nothing back"
    );
    assert_eq!(send_syn(&mut engine, &tuple(2, 9, 443), at(1800)), None);
    assert_eq!(engine.admission_stats().sources, 1, "the first is forgotten");
}

#[test]
fn sources_without_connections_are_bounded() {
    let policy = source_limit("1 new/s");
    let mut sources = SourceTable::new(SipKey::new(1, 2));
    let most = sources::MAX_IDLE_SOURCES as u32;
    for source in 0..most {
        sources.add(&policy, &tuple(source, 1, 443), true, Instant(0));
        sources.remove(&policy, &tuple(source, 1, 443), Instant(0));
    }
    let next = tuple(most, 1, 443);
    assert_eq!(sources.check(&policy, &next, Instant(0)), Err(Reason::SourceTableFull));
    assert_eq!(sources.check(&policy, &tuple(0, 1, 443), Instant(0)), Err(Reason::SourceRate), "it is known");
    let later = Instant::from_secs(1);
    assert_eq!(sources.check(&policy, &next, later), Ok(()));
    sources.add(&policy, &next, true, later);
    assert_eq!(sources.length(), sources::MAX_IDLE_SOURCES - 1);
}

#[test]
fn timeouts_shrink_while_the_table_fills() {
    let policy = AdmissionPolicy { adaptive_timeouts: Some("100-200".parse().unwrap()), ..AdmissionPolicy::default() };
    let mut engine = engine(1000, policy);
    let now = Instant::from_secs(1);
    let idle = begin(&mut engine, tuple(0, 1, 443), true, now).unwrap();
    let left = |engine: &Engine, id| engine.entry(id, now).unwrap().timeout;
    assert_eq!(left(&engine, idle), 600);
    for source in 1..150 {
        assert_eq!(send_syn(&mut engine, &tuple(source, 1, 443), now), None);
    }
    while engine.next_wake(now) == Some(now) {
        engine.poll(now);
    }
    assert_eq!(engine.admission_stats().timeout_percent, 50);
    // SYN_SENT takes 120 seconds, half of it now. The idle connection is in state NONE, whose timeout is that of SYN_SENT.
    assert_eq!(left(&engine, idle), 60);
    let (last, _) = engine.find(&tuple(149, 1, 443), Zone::default(), now).unwrap();
    assert!((60..=67).contains(&left(&engine, last)), "{}", left(&engine, last));
    assert_eq!(engine.sysctls()[Sysctl::TcpTimeoutSynSent], 120, "what is set does not change");
    assert!(engine.admission_stats().timeouts_cut > 100);
    engine.set_sysctl(Sysctl::TcpTimeoutSynSent, 60).unwrap();
    send_syn(&mut engine, &tuple(150, 1, 443), now);
    let (last, _) = engine.find(&tuple(150, 1, 443), Zone::default(), now).unwrap();
    assert_eq!(left(&engine, last), 30, "a timeout set meanwhile is cut too");
    // The table empties: timeouts are whole again.
    let later = Instant::from_secs(70);
    while engine.next_wake(later).is_some_and(|wake| wake <= later) {
        engine.poll(later);
    }
    assert_eq!((engine.count(), engine.admission_stats().timeout_percent), (0, 100));
    engine.check_invariants().unwrap();
}

#[test]
fn timeouts_are_never_nothing() {
    let timeouts: AdaptiveTimeouts = "10-20".parse().unwrap();
    let policy = AdmissionPolicy { adaptive_timeouts: Some(timeouts), ..AdmissionPolicy::default() };
    let mut engine = engine(1000, policy);
    engine.set_sysctl(Sysctl::UdpTimeout, 0).unwrap();
    for source in 0..30 {
        assert_eq!(send_syn(&mut engine, &tuple(source, 1, 443), Instant(0)), None);
    }
    assert_eq!(engine.admission_stats().timeout_percent, 100 / 32);
    assert_eq!(engine.sysctls[Sysctl::TcpTimeoutClose], 1);
    assert_eq!(engine.sysctls[Sysctl::UdpTimeout], 0, "nothing stays nothing");
    assert_eq!(engine.sysctls[Sysctl::TcpTimeoutEstablished], 432_000 / 32);
}

#[test]
fn a_full_table_grows_up_to_its_ceiling() {
    let policy = AdmissionPolicy { grow_to: Some(35), ..AdmissionPolicy::default() };
    let mut engine = engine(10, policy);
    let now = Instant(0);
    for source in 0..35 {
        // They could be dropped early, but nothing is while the table may grow.
        assert_eq!(send_syn(&mut engine, &tuple(source, 1, 443), now), None);
    }
    assert_eq!((engine.count(), engine.sysctls()[Sysctl::Max]), (35, 35));
    assert_eq!((engine.admission_stats().limit_raised, engine.counters().early_drop), (2, 0));
    assert_eq!(engine.poll_log().unwrap(), "keepstate: table full, nf_conntrack_max raised from 10 to 20");
    assert_eq!(send_syn(&mut engine, &tuple(35, 1, 443), now), None);
    assert_eq!((engine.count(), engine.counters().early_drop), (35, 1), "now it is full");
    engine.set_sysctl(Sysctl::Max, 50).unwrap();
    assert_eq!(engine.sysctls()[Sysctl::Max], 50);
}

#[test]
fn a_policy_that_does_not_fit_is_refused() {
    let check = |policy: AdmissionPolicy| policy.check(100).map_err(|error| alloc::string::ToString::to_string(&error));
    assert_eq!(
        check(reserve("100 for tcp 22")).unwrap_err(),
        "the reserves take 100 entries of a table of 100 (nf_conntrack_max); leave some for the others"
    );
    let adaptive = AdaptiveTimeouts { start: 5, end: 5 };
    let policy = AdmissionPolicy { adaptive_timeouts: Some(adaptive), ..AdmissionPolicy::default() };
    assert_eq!(check(policy).unwrap_err(), "adaptive timeouts need an end above the start, not 5-5");
    assert!(check(reserve("99 for tcp 22")).is_ok());
    let mut kept = engine(100, reserve("10 for tcp 22"));
    assert!(kept.set_admission(reserve("100 for tcp 22"), Instant(0)).is_err());
    assert_eq!(kept.admission(), Some(&reserve("10 for tcp 22")));
}

#[test]
fn texts_of_a_policy() {
    let parsed: TableReserve = "1000 for tcp 22,8000-8100 from 10.0.0.0/8 to fd00::1".parse().unwrap();
    let prefix = |address: &str, length| AddressPrefix::new(address.parse().unwrap(), length);
    assert_eq!(parsed.entries, 1000);
    assert_eq!(parsed.selector.protocol, Some(ipproto::TCP));
    assert_eq!(parsed.selector.ports, [22..=22, 8000..=8100]);
    assert_eq!((parsed.selector.source, parsed.selector.destination), (prefix("10.0.0.0", 8), prefix("fd00::1", 128)));
    let parsed: SourceLimit = "100 connections 20 new/s burst 40 per 24,56 for 253".parse().unwrap();
    assert_eq!((parsed.connections, parsed.new_per_second, parsed.burst), (Some(100), Some(20), 40));
    assert_eq!((parsed.ipv4_length, parsed.ipv6_length, parsed.selector.protocol), (24, 56, Some(253)));
    let exempt: SourceLimit = "for from 10.0.0.0/8".parse().unwrap();
    assert_eq!((exempt.connections, exempt.new_per_second, exempt.burst), (None, None, 1));
    for (text, wanted) in [
        ("", "ENTRIES for CONNECTIONS"),
        ("many for tcp", "many is not a number of entries"),
        ("5 tcp 22", "ENTRIES for CONNECTIONS"),
        ("5 for", "connections are PROTOCOL"),
        ("5 for tpc 22", "tpc is no protocol"),
        ("5 for icmp 8", "icmp has no ports"),
        ("5 for tcp 70000", "70000 is no port"),
        ("5 for tcp 90-80", "90-80 is no port"),
        ("5 for tcp 22 from 10.0.0.1/8", "write 10.0.0.0/8"),
        ("5 for tcp from 10.0.0.0/33", "10.0.0.0/33 is no prefix"),
        ("5 for from ::/0 tcp", "tcp is not understood"),
    ] {
        let error = text.parse::<TableReserve>().unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    for (text, wanted) in [
        ("100", "write like"),
        ("x connections", "x is not a number of connections"),
        ("0 new/s", "1 or more"),
        ("5 connections burst 3", "a burst needs"),
        ("5 new/s burst 0", "1 or more"),
        ("5 new/s per 0,64", "per 0,64"),
        ("5 new/s per 24,129", "per 24,129"),
        ("5 new/s for", "connections are PROTOCOL"),
    ] {
        let error = text.parse::<SourceLimit>().unwrap_err();
        assert!(error.contains(wanted), "{text}: {error}");
    }
    for text in ["5", "5-5", "9-5", "a-b", "-5"] {
        assert!(text.parse::<AdaptiveTimeouts>().unwrap_err().contains("START-END"), "{text}");
    }
}

#[test]
fn a_prefix_contains_its_addresses() {
    let prefix = |text: &str, length| AddressPrefix::new(text.parse().unwrap(), length).unwrap();
    assert!(
        prefix("10.0.0.0", 8).contains([10, 255, 0, 1].into()) && !prefix("10.0.0.0", 8).contains([11, 0, 0, 0].into())
    );
    assert!(prefix("0.0.0.0", 0).contains([255; 4].into()) && !prefix("0.0.0.0", 0).contains([0; 16].into()));
    assert!(prefix("fd00::", 128).contains("fd00::".parse().unwrap()) && prefix("::", 0).contains([255; 16].into()));
    assert_eq!(AddressPrefix::new([10, 0, 0, 1].into(), 33), None);
}

/// What a connection may do, as the documentation says it.
struct Model {
    limit: usize,
    reserve: usize,
    per_source: usize,
    connections: Vec<(Tuple, ConnId)>,
    /// When each new connection of a source began, of the last second.
    begun: Vec<(core::net::IpAddr, u64)>,
}

impl Model {
    /// 5 in each second, at most 5 at once, that is: a bucket of 5 that fills with one each 200 ms.
    fn is_too_fast(&self, source: core::net::IpAddr, now: u64) -> bool {
        let mut filled_at = 0;
        for (_, begun) in self.begun.iter().filter(|(known, _)| *known == source) {
            filled_at = (*begun).max(filled_at) + 200_000_000;
        }
        filled_at > now + 4 * 200_000_000
    }

    fn may_begin(&self, tuple: &Tuple, now: u64) -> bool {
        let is_reserved = |tuple: &Tuple| tuple.destination_key == 22;
        let of_source = self.connections.iter().filter(|(known, _)| known.source == tuple.source).count();
        let reserved = self.connections.iter().filter(|(known, _)| is_reserved(known)).count();
        let others = self.connections.len() - reserved.min(self.reserve);
        let has_room = is_reserved(tuple) && reserved < self.reserve || others < self.limit - self.reserve;
        of_source < self.per_source && !self.is_too_fast(tuple.source, now) && has_room
    }
}

proptest! {
    /// Reserves and limits by source, with connections that cannot be dropped early, decide as a model that counts everything each time.
    #[test]
    fn the_table_admits_what_the_model_does(steps in proptest::collection::vec((0u32..6, 1u16..30, 0u8..4, 0u64..150), 1..300)) {
        let policy = AdmissionPolicy {
            reserves: vec!["4 for tcp 22".parse().unwrap()],
            source_limits: vec!["9 connections 5 new/s".parse().unwrap()],
            ..AdmissionPolicy::default()
        };
        let mut engine = engine(20, policy);
        let mut model = Model { limit: 20, reserve: 4, per_source: 9, connections: Vec::new(), begun: Vec::new() };
        let mut now = Instant::from_secs(1);
        for (source, key, what, wait) in steps {
            now = Instant(now.0 + wait * 1_000_000);
            if what == 3 {
                if !model.connections.is_empty() {
                    let (_, id) = model.connections.remove(usize::from(key) % model.connections.len());
                    prop_assert!(engine.remove(id, now));
                }
            } else {
                let tuple = tuple(source, key, if what == 0 { 22 } else { 80 });
                if engine.find(&tuple, Zone::default(), now).is_some() {
                    continue;
                }
                let begun = begin(&mut engine, tuple, true, now);
                prop_assert_eq!(begun.is_ok(), model.may_begin(&tuple, now.0), "{:?} of {} connections", tuple, model.connections.len());
                if let Ok(id) = begun {
                    model.connections.push((tuple, id));
                    model.begun.push((tuple.source, now.0));
                }
            }
            prop_assert_eq!(engine.count(), model.connections.len());
        }
        // It reads the whole table: once is enough.
        engine.check_invariants().unwrap();
    }
}
