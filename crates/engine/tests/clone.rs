//! A cloned engine has the same connections, and nothing that happens to it is seen by the first.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its packet must fail")]
mod common;

use common::{CLIENT, SERVER, Segment, tcp, udp};
use keepstate_engine::{Counters, CtInfo, Engine, Instant, Secret, Sysctls, Zone};
use keepstate_wire::Packet;

fn send(engine: &mut Engine, bytes: &[u8]) -> CtInfo {
    engine.handle(&Packet::parse(bytes).unwrap(), Zone::default(), Instant(0)).info
}

fn entries(engine: &Engine) -> Vec<String> {
    let mut lines: Vec<String> = engine.entries(Instant(0)).map(|entry| format!("{entry:?}")).collect();
    lines.sort();
    lines
}

#[test]
fn clone_has_the_same_connections_and_lives_apart() {
    let mut first = Engine::new(Sysctls::default(), Secret([7; 16]));
    for port in 0..5000 {
        send(&mut first, &tcp((CLIENT, port), (SERVER, 80), &Segment { flags: 2, seq: 99, ..Segment::default() }));
        send(&mut first, &udp((CLIENT, port), (SERVER, 53), b"query"));
    }
    let mut second = first.clone();
    second.check_invariants().unwrap();
    assert_eq!(entries(&second), entries(&first));
    assert_eq!(entries(&second).len(), 10_000);

    let answer = udp((SERVER, 53), (CLIENT, 7), b"answer");
    let before: (Vec<String>, Counters) = (entries(&first), *first.counters());
    assert_eq!(send(&mut second, &answer), CtInfo::Established);
    second.flush(Instant(0));
    assert_eq!(second.count(), 0);
    assert_eq!((entries(&first), *first.counters()), before);
    assert_eq!(send(&mut first, &answer), CtInfo::Established);
    first.check_invariants().unwrap();
}
