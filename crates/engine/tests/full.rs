//! A full table: who is refused, who makes room, and that the limit holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its packet must fail")]
mod common;

use common::{CLIENT, SERVER, Segment, tcp};
use keepstate_engine::{Engine, Info, Instant, Knob, Knobs, Secret, Why, Zone};
use keepstate_wire::Packet;

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;
const MAX: u16 = 200;

fn engine() -> Engine {
    let mut knobs = Knobs::default();
    knobs.set(Knob::Max, u64::from(MAX)).unwrap();
    // Early drop looks at eight buckets: in a larger index it would find them empty.
    knobs.set(Knob::Buckets, u64::from(MAX)).unwrap();
    Engine::new(knobs, Secret([7; 16]), Instant(0))
}

/// What becomes of one segment between the client's `port` and the server's 80.
fn say(engine: &mut Engine, port: u16, reply: bool, flags: u8, (seq, ack): (u32, u32)) -> (Info, Option<Why>) {
    let segment = Segment { flags, seq, ack, window: 1000, ..Segment::default() };
    let (client, server) = ((CLIENT, port), (SERVER, 80));
    let bytes = if reply { tcp(server, client, &segment) } else { tcp(client, server, &segment) };
    let outcome = engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), Instant(0));
    (outcome.info, outcome.why)
}

fn establish(engine: &mut Engine, port: u16) {
    say(engine, port, false, SYN, (99, 0));
    say(engine, port, true, SYN | ACK, (499, 100));
    say(engine, port, false, ACK, (100, 500));
}

fn close(engine: &mut Engine, port: u16) {
    say(engine, port, false, FIN | ACK, (100, 500));
    say(engine, port, true, FIN | ACK, (500, 101));
    say(engine, port, false, ACK, (101, 501));
}

const REFUSED: (Info, Option<Why>) = (Info::Invalid, Some(Why::TableFull));

#[test]
fn established_connections_stay_and_the_new_one_is_refused() {
    let mut engine = engine();
    (0..MAX).for_each(|port| establish(&mut engine, port));
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), REFUSED);
    engine.poll(Instant(0));
    assert_eq!((engine.count(), engine.counters().drop, engine.counters().early_drop), (200, 1, 0));
    assert_eq!(engine.poll_log().as_deref(), Some("nf_conntrack: table full, dropping packet"));
    assert_eq!(say(&mut engine, 0, true, ACK, (500, 100)), (Info::Established, None));
    engine.check().unwrap();
}

#[test]
fn an_unassured_connection_makes_room_at_once() {
    let mut engine = engine();
    (0..MAX / 2).for_each(|port| establish(&mut engine, port));
    for port in MAX / 2..MAX {
        say(&mut engine, port, false, SYN, (99, 0));
    }
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), (Info::New, None));
    assert_eq!((engine.count(), engine.counters().drop, engine.counters().early_drop), (200, 0, 1));
    engine.check().unwrap();
}

#[test]
fn after_a_refusal_closing_connections_make_room() {
    let mut engine = engine();
    for port in 0..MAX {
        establish(&mut engine, port);
        if port % 2 == 0 {
            close(&mut engine, port);
        }
    }
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), REFUSED);
    assert_eq!(engine.next_wake(Instant(0)), Some(Instant(0)), "there is something to do at once");
    engine.poll(Instant(0));
    // Linux 6.18 with a limit of 600, full of TIME_WAIT: 600 until its next round, then 569 (95 % are 570); `early_drop` counts none of it.
    assert_eq!((engine.count(), engine.counters().early_drop), (189, 0));
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), (Info::New, None));
    assert_eq!(say(&mut engine, 1, true, ACK, (500, 100)), (Info::Established, None));
    assert_ne!(engine.next_wake(Instant(0)), Some(Instant(0)));
    engine.check().unwrap();
}

#[test]
fn refusals_do_not_make_us_search_the_table_for_each() {
    let mut engine = engine();
    (0..MAX).for_each(|port| establish(&mut engine, port));
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), REFUSED);
    engine.poll(Instant(0));
    assert_eq!(say(&mut engine, MAX, false, SYN, (99, 0)), REFUSED);
    assert_eq!(engine.next_wake(Instant(0)), Some(Instant::from_secs(10)));
    engine.poll(Instant::from_secs(10));
    assert_eq!(engine.count(), usize::from(MAX));
}
