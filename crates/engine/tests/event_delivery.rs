//! An event is told when the packet that caused it has passed the last rule, with the connection as it is then.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, udp};
use keepstate_engine::{Engine, Event, EventBits, EventKind, EventMask, Instant, Secret, Status, Sysctls, Zone};
use keepstate_wire::Packet;

const NOW: Instant = Instant::from_secs(1000);

fn engine() -> Engine {
    let mut engine = Engine::new(Sysctls::default(), Secret([3; 16]));
    engine.subscribe(EventMask::ALL, 10);
    engine
}

fn events(engine: &mut Engine) -> Vec<Event> {
    std::iter::from_fn(|| engine.poll_event()).collect()
}

fn kinds(engine: &mut Engine) -> Vec<EventKind> {
    events(engine).iter().map(|event| event.kind).collect()
}

#[test]
fn change_by_a_dropped_packet_is_told_with_the_next_that_passes() {
    let mut engine = engine();
    let (query, answer) = (udp((CLIENT, 9), (SERVER, 7), b"?"), udp((SERVER, 7), (CLIENT, 9), b"!"));
    let (query, answer) = (Packet::parse(&query).unwrap(), Packet::parse(&answer).unwrap());
    engine.handle(&query, Zone::default(), NOW);
    assert_eq!(kinds(&mut engine), [EventKind::New]);
    // A rule drops the answer.
    drop(engine.track(&answer, Zone::default(), NOW));
    assert_eq!(kinds(&mut engine), []);
    engine.handle(&query, Zone::default(), NOW);
    let told = events(&mut engine);
    assert!(matches!(told[..], [Event { kind: EventKind::Update, .. }]), "{told:?}");
    assert!(told[0].entry.status.contains(Status::SEEN_REPLY), "{told:?}");
    engine.handle(&query, Zone::default(), NOW);
    assert_eq!(kinds(&mut engine), [], "it is told once");
}

#[test]
fn mark_set_by_a_rule_is_told() {
    let mut engine = engine();
    let query = udp((CLIENT, 9), (SERVER, 7), b"?");
    let query = Packet::parse(&query).unwrap();
    for (mark, expected) in [(0, vec![EventKind::New]), (5, vec![EventKind::Update]), (5, vec![])] {
        let mut ctx = engine.track(&query, Zone::default(), NOW);
        assert!(engine.set_mark(&mut ctx, mark));
        engine.confirm(ctx, NOW);
        let told = events(&mut engine);
        assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), expected);
        assert!(told.iter().all(|event| event.entry.mark == mark), "{told:?}");
    }
}

#[test]
fn ended_connection_is_dying() {
    let mut engine = engine();
    let query = udp((CLIENT, 9), (SERVER, 7), b"?");
    let query = Packet::parse(&query).unwrap();
    let conn_id = engine.handle(&query, Zone::default(), NOW).connection.unwrap();
    engine.remove(conn_id, NOW);
    let told = events(&mut engine);
    assert_eq!(told.last().map(|event| event.kind), Some(EventKind::Destroy));
    assert!(told.last().unwrap().entry.status.contains(Status::DYING), "{told:?}");
}

/// The kinds of event of a whole UDP conversation with a mark, of whose connection only these bits are told.
fn told_of(told: EventBits) -> Vec<EventKind> {
    let mut engine = engine();
    let (query, answer) = (udp((CLIENT, 9), (SERVER, 7), b"?"), udp((SERVER, 7), (CLIENT, 9), b"!"));
    let (query, answer) = (Packet::parse(&query).unwrap(), Packet::parse(&answer).unwrap());
    let mut ctx = engine.track(&query, Zone::default(), NOW);
    assert!(engine.set_event_bits(&mut ctx, told));
    assert_eq!(engine.event_bits(&mut ctx), Some(told));
    engine.confirm(ctx, NOW);
    let conn_id = engine.handle(&answer, Zone::default(), NOW).connection.unwrap();
    let mut ctx = engine.track(&query, Zone::default(), NOW);
    engine.set_mark(&mut ctx, 7);
    assert_eq!(engine.event_bits(&mut ctx), Some(told));
    engine.confirm(ctx, NOW);
    engine.remove(conn_id, NOW);
    kinds(&mut engine)
}

#[test]
fn chosen_events_are_told_and_no_others() {
    use EventKind::{Destroy, New, Update};
    assert_eq!(told_of(EventBits(u16::MAX)), [New, Update, Update, Destroy]);
    assert_eq!(told_of(EventBits(0)), []);
    assert_eq!(told_of(EventBits::NEW.union(EventBits::DESTROY)), [New, Destroy]);
    assert_eq!(told_of(EventBits::REPLY), [Update]);
    assert_eq!(told_of(EventBits::MARK), [Update]);
    assert_eq!(told_of(EventBits::RELATED), []);
    // The next connection of a slot has all its events again.
    let mut engine = engine();
    let query = udp((CLIENT, 9), (SERVER, 7), b"?");
    let query = Packet::parse(&query).unwrap();
    for chosen in [true, false] {
        let mut ctx = engine.track(&query, Zone::default(), NOW);
        if chosen {
            engine.set_event_bits(&mut ctx, EventBits(0));
        }
        let conn_id = engine.confirm(ctx, NOW).connection.unwrap();
        engine.remove(conn_id, NOW);
    }
    assert_eq!(kinds(&mut engine), [New, Destroy]);
}
