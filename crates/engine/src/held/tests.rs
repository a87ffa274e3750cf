//! What is held does not expire, whatever time passes, and has afterwards what it had.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use super::*;
use crate::{ConnSnapshot, ConnUpdate, NewConnection, Secret, Sysctl, Sysctls, Tuple, WindowTrust, Zone};
use alloc::vec::Vec;
use core::time::Duration;
use keepstate_types::ipproto;

const START: Instant = Instant::from_secs(1);
/// Longer than half of what a held connection's deadline is away.
const DAYS: u64 = 20;

fn create(engine: &mut Engine, number: u16, timeout: u32) -> ConnId {
    let original = Tuple {
        source: [10, 0, 0, 1].into(),
        destination: [192, 0, 2, 1].into(),
        protocol: ipproto::UDP,
        source_key: number,
        destination_key: 53,
    };
    let attributes = ConnUpdate { timeout: Some(timeout), ..ConnUpdate::default() };
    let reply = original.invert().unwrap();
    let new = NewConnection { original, reply, zone: Zone::default(), attributes, dst_nat: None, src_nat: None };
    engine.create(&new, START).unwrap()
}

fn after_days(days: u64) -> Instant {
    Instant::from_secs(1 + days * 86_400)
}

fn poll_all(engine: &mut Engine, now: Instant) {
    while engine.next_wake(now).is_some_and(|wake| wake <= now) {
        engine.poll(now);
    }
}

#[test]
fn a_held_connection_outlives_any_time_and_goes_on_with_what_it_had_left() {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let held: Vec<ConnId> = (0..40).map(|number| create(&mut engine, number, 30 + u32::from(number))).collect();
    let other = create(&mut engine, 100, 30);
    let later = Instant::from_secs(11);
    held.iter().for_each(|conn_id| assert!(engine.hold(*conn_id, later) && engine.hold(*conn_id, later)));
    assert_eq!(engine.held_count(), 40);
    engine.check_invariants().unwrap();
    // In steps, as a gateway polls; after twenty steps the clock of 32 bits has gone round three times.
    for step in 1..=20 {
        let now = after_days(step * DAYS);
        poll_all(&mut engine, now);
        assert_eq!(engine.count(), 40, "the one that is not held has expired; day {}", step * DAYS);
        engine.check_invariants().unwrap();
    }
    assert!(engine.entry(other, after_days(1)).is_none());
    let now = after_days(20 * DAYS);
    for (number, conn_id) in held.iter().enumerate() {
        let entry = engine.entry(*conn_id, now).unwrap();
        assert_eq!(entry.timeout as usize, 20 + number, "as it was when it was held");
        let exported = engine.export(*conn_id, now).unwrap();
        assert_eq!(exported.remaining_ms, 1000 * (20 + number as u64));
        engine.release(*conn_id, now);
        assert_eq!(engine.entry(*conn_id, now).unwrap().timeout as usize, 20 + number);
    }
    assert_eq!(engine.held_count(), 0);
    engine.release(held[0], Instant(now.0 + 5_000_000_000));
    poll_all(&mut engine, Instant(now.0 + 20_000_000_000));
    assert_eq!(engine.count(), 39, "the first has expired");
    poll_all(&mut engine, Instant(now.0 + 60_000_000_000));
    assert_eq!(engine.count(), 0);
    engine.check_invariants().unwrap();
}

#[test]
fn what_is_removed_updated_or_unknown_leaves_nothing_held_behind() {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    let first = create(&mut engine, 1, 30);
    assert!(engine.hold(first, START));
    let longer = ConnUpdate { timeout: Some(500), ..ConnUpdate::default() };
    engine.update(first, &longer, START).unwrap();
    assert_eq!(engine.entry(first, after_days(1)).unwrap().timeout, 500);
    let snapshot: ConnSnapshot = engine.export(first, after_days(1)).unwrap();
    assert!(engine.remove(first, after_days(1)));
    assert_eq!(engine.held_count(), 0);
    assert!(!engine.hold(first, after_days(1)) && !engine.is_held(first));
    // Another one in the same slot is its own.
    let second = engine.import(&snapshot, Duration::ZERO, WindowTrust::Lenient, after_days(1)).unwrap();
    assert!(!engine.is_held(second));
    engine.release(second, after_days(1));
    assert_eq!(engine.entry(second, after_days(1)).unwrap().timeout, 500);
    engine.check_invariants().unwrap();
}

#[test]
fn a_full_table_makes_no_room_at_the_expense_of_a_held_connection() {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Max, 8).unwrap();
    let mut engine = Engine::new(sysctls, Secret([7; 16]));
    for number in 0..8 {
        let conn_id = create(&mut engine, number, 30);
        assert!(engine.hold(conn_id, START));
    }
    let mut packet =
        [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 9, 10, 2, 0, 9, 0x13, 0x88, 0, 53, 0, 8, 0, 0];
    let sum: u32 = packet.chunks(2).take(10).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let packet = keepstate_wire::Packet::parse(&packet).unwrap();
    let outcome = engine.handle(&packet, Zone::default(), START);
    assert!(outcome.connection.is_none(), "{outcome:?}");
    assert_eq!(engine.held_count(), 8);
    let victims = engine.counters().early_drop;
    assert_eq!(victims, 0);
}
