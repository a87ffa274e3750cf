//! The TFTP helper: the answer to a request comes from another port, and is translated as the request was. Beside the kernel: keepstate/tests/tc_beside_netfilter/ftp.rs.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, udp};
use keepstate_engine::{ConnSnapshot, CtInfo, Engine, Helper, Instant, Manip, NatRange, Secret, Sysctls, Zone};
use keepstate_wire::Packet;

const NOW: Instant = Instant::from_secs(1000);
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const REQUEST: &[u8] = b"\0\x01file\0octet\0";

/// A datagram of a client, which a rule gives the helper; masqueraded if asked.
fn send(engine: &mut Engine, data: &[u8], is_translated: bool) -> Vec<u8> {
    let mut bytes = udp((CLIENT, 4001), (SERVER, 69), data);
    let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), NOW);
    if let Some(fresh) = ctx.unconfirmed() {
        fresh.attach_helper(Helper::Tftp);
        fresh.attach_helper(Helper::Ftp);
    }
    if is_translated {
        engine.translate(&mut ctx, Manip::Source, &NatRange::to(OUTSIDE.into()), NOW);
        engine.nat_rewrite(&ctx, Manip::Source).apply(&mut bytes);
    }
    engine.confirm_and_rewrite(ctx, &mut bytes, NOW);
    engine.check_invariants().unwrap();
    bytes
}

fn expected(engine: &Engine) -> Vec<String> {
    let show = |one: keepstate_engine::ExpectationEntry| {
        format!("{} to {}:{}", one.tuple.source, one.tuple.destination, one.tuple.destination_key)
    };
    engine.expectations(NOW).map(show).collect()
}

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([3; 16]))
}

#[test]
fn an_answer_from_another_port_is_related() {
    let mut engine = engine();
    send(&mut engine, REQUEST, false);
    assert_eq!(expected(&engine), ["10.2.0.9 to 10.1.0.2:4001"]);
    // A request that is repeated expects the same.
    send(&mut engine, REQUEST, false);
    assert_eq!(expected(&engine).len(), 1);
    let answer = udp((SERVER, 7000), (CLIENT, 4001), b"\0\x03\0\x01");
    let outcome = engine.handle(&Packet::parse(&answer).unwrap(), Zone::default(), NOW);
    assert_eq!(outcome.info, CtInfo::Related);
    assert!(expected(&engine).is_empty());
    // The next request of the same port.
    send(&mut engine, b"\0\x02file\0octet\0", false);
    assert_eq!(expected(&engine).len(), 1);
}

#[test]
fn what_is_no_request_expects_nothing() {
    let mut engine = engine();
    send(&mut engine, b"\0\x04\0\x01", false);
    assert!(expected(&engine).is_empty());
}

#[test]
fn an_answer_is_translated_as_its_request() {
    let mut engine = engine();
    send(&mut engine, REQUEST, true);
    assert_eq!(expected(&engine), ["10.2.0.9 to 192.0.2.1:4001"]);
    let mut answer = udp((SERVER, 7000), (OUTSIDE, 4001), b"\0\x03\0\x01");
    let ctx = engine.track(&Packet::parse(&answer).unwrap(), Zone::default(), NOW);
    assert_eq!(ctx.info(), CtInfo::Related);
    engine.nat_rewrite(&ctx, Manip::Destination).apply(&mut answer);
    engine.confirm_and_rewrite(ctx, &mut answer, NOW);
    assert_eq!(answer[16..20], CLIENT);
    engine.check_invariants().unwrap();
}

#[test]
fn the_helper_survives_a_snapshot() {
    let mut engine = engine();
    send(&mut engine, REQUEST, false);
    let snapshot = engine.export_all(NOW).next().unwrap();
    let mut bytes = Vec::new();
    snapshot.encode(&mut bytes);
    assert_eq!(ConnSnapshot::decode(&bytes).unwrap().helper(), Some(Helper::Tftp));
}
