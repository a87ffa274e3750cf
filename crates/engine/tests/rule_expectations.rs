//! Connections that a rule expects (`ct expectation`): how many, how long, and of whom. What the kernel does with the same rules and packets: router/tests/diff_nft/expectations.rs.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, Segment, tcp, udp};
use keepstate_engine::{
    CtInfo, Engine, ExpectResult, ExpectationPolicy, Helper, Instant, Secret, Sysctl, Sysctls, Tuple, Zone,
};
use keepstate_wire::Packet;

const POLICY: ExpectationPolicy =
    ExpectationPolicy { protocol: 17, port: 7000, v6: false, timeout_millis: 2500, size: 2 };

/// Address and port of source and destination.
type Ends = (([u8; 4], u16), ([u8; 4], u16));

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

/// Sends a packet whose connection expects by the policies.
fn send(engine: &mut Engine, ends: Ends, policies: &[ExpectationPolicy], now: Instant) -> Vec<ExpectResult> {
    let bytes = udp(ends.0, ends.1, b"?");
    let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), now);
    let results = policies.iter().map(|policy| engine.expect_by_policy(&mut ctx, policy, now)).collect();
    engine.confirm(ctx, now);
    engine.check_invariants().unwrap();
    results
}

fn expected(engine: &Engine, now: Instant) -> Vec<Tuple> {
    engine.expectations(now).map(|one| one.tuple).collect()
}

fn state(engine: &mut Engine, ends: Ends, now: Instant) -> CtInfo {
    let bytes = udp(ends.0, ends.1, b"!");
    let info = engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), now).info;
    engine.check_invariants().unwrap();
    info
}

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([3; 16]))
}

#[test]
fn expectation_of_a_rule_ends_when_it_says() {
    let mut engine = engine();
    assert_eq!(send(&mut engine, ((CLIENT, 9), (SERVER, 7)), &[POLICY], at(0)), [ExpectResult::Expected]);
    let [tuple] = expected(&engine, at(2400))[..] else { panic!("one is expected") };
    assert_eq!((tuple.source, tuple.destination, tuple.destination_key), (SERVER.into(), CLIENT.into(), 7000));
    assert_eq!(expected(&engine, at(2500)), [], "after two and a half seconds");
    assert_eq!(state(&mut engine, ((SERVER, 1), (CLIENT, 7000)), at(2500)), CtInfo::New);
}

#[test]
fn known_connection_expects_nothing_and_a_full_one_no_more() {
    let mut engine = engine();
    let other = ExpectationPolicy { port: 7001, ..POLICY };
    let more = ExpectationPolicy { port: 7002, ..POLICY };
    use ExpectResult::{Expected, NotApplicable, Refused};
    let ends = ((CLIENT, 9), (SERVER, 7));
    assert_eq!(send(&mut engine, ends, &[POLICY, other, more], at(0)), [Expected, Expected, NotApplicable]);
    assert_eq!(send(&mut engine, ends, &[POLICY], at(1)), [NotApplicable]);
    // Another connection of the same ends would expect the same packets.
    assert_eq!(send(&mut engine, ((CLIENT, 10), (SERVER, 7)), &[POLICY, more], at(2)), [Refused, Expected]);
    assert_eq!(state(&mut engine, ((SERVER, 1), (CLIENT, 7000)), at(3)), CtInfo::Related);
    assert_eq!(state(&mut engine, ((SERVER, 2), (CLIENT, 7000)), at(4)), CtInfo::New, "it was expected once");
    assert_eq!(expected(&engine, at(5)).len(), 2);
}

#[test]
fn expectations_end_with_their_master() {
    let mut engine = engine();
    let packet = udp((CLIENT, 9), (SERVER, 7), b"?");
    let mut ctx = engine.track(&Packet::parse(&packet).unwrap(), Zone::default(), at(0));
    assert_eq!(engine.expect_by_policy(&mut ctx, &POLICY, at(0)), ExpectResult::Expected);
    assert_eq!(expected(&engine, at(0)), [], "its packet may be dropped yet");
    drop(ctx);
    assert_eq!(expected(&engine, at(0)), []);
    send(&mut engine, ((CLIENT, 9), (SERVER, 7)), &[POLICY], at(1));
    assert_eq!(expected(&engine, at(1)).len(), 1);
    let master = engine.entries(at(1)).next().unwrap();
    engine.remove(master.conn_id, at(2));
    assert_eq!((expected(&engine, at(2)), engine.counters().expect_delete), (Vec::new(), 1));
    engine.check_invariants().unwrap();
}

#[test]
fn limits_of_the_table_and_of_a_helper_apply() {
    let mut engine = engine();
    engine.set_sysctl(Sysctl::ExpectMax, 1).unwrap();
    let other = ExpectationPolicy { port: 7001, ..POLICY };
    let results = send(&mut engine, ((CLIENT, 9), (SERVER, 7)), &[POLICY, other], at(0));
    assert_eq!(results, [ExpectResult::Expected, ExpectResult::Refused]);
    assert!(engine.poll_log().is_some_and(|line| line.contains("expectation table full")));
    let v6 = ExpectationPolicy { v6: true, ..POLICY };
    send(&mut engine, ((CLIENT, 10), (SERVER, 8)), &[v6], at(0));
    assert_eq!(expected(&engine, at(0)).len(), 1, "an IPv4 connection expects none of IPv6");
    // A helper's policy counts for all that is expected of its connection: one, for 300 seconds.
    engine.set_sysctl(Sysctl::ExpectMax, 4).unwrap();
    engine.set_auto_helper(6, 21, Helper::Ftp);
    let syn = Segment { flags: 2, seq: 1, window: 100, ..Segment::default() };
    let bytes = tcp((CLIENT, 9), (SERVER, 21), &syn);
    let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), at(0));
    for port in [1, 2] {
        let policy = ExpectationPolicy { port, ..POLICY };
        assert_eq!(engine.expect_by_policy(&mut ctx, &policy, at(0)), ExpectResult::Expected);
    }
    engine.confirm(ctx, at(0));
    let of_helper: Vec<(u16, u32)> = engine
        .expectations(at(0))
        .filter(|one| one.helper == Some(Helper::Ftp))
        .map(|one| (one.tuple.destination_key, one.timeout))
        .collect();
    assert_eq!(of_helper, [(2, 300)]);
    engine.check_invariants().unwrap();
}
