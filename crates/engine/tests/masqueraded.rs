//! Masqueraded connections end when their address is no longer this machine's, also after a restart; those translated to a fixed address do not.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
use keepstate_engine::{ConnSnapshot, Engine, Instant, Manip, NatRange, NatResult, Secret, Sysctls, WindowTrust, Zone};
use keepstate_wire::{Packet, checksum};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const NOW: Instant = Instant(1_000_000_000);
const OLD: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

/// A UDP packet from this port of 10.1.0.2.
fn udp(port: u16) -> [u8; 28] {
    let [high, low] = port.to_be_bytes();
    let mut packet = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9, high, low, 0, 53, 0, 8, 0, 0];
    let check = checksum::internet(&packet[..20]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

fn open(engine: &mut Engine, port: u16, range: &NatRange) {
    let bytes = udp(port);
    let mut ctx = engine.track(&Packet::parse(&bytes).unwrap(), Zone::default(), NOW);
    assert_eq!(engine.translate(&mut ctx, Manip::Source, range, NOW), NatResult::Changed);
    assert!(engine.confirm(ctx, NOW).connection.is_some());
}

/// Masqueraded from port 1000, by a fixed address from port 1001, masqueraded as another address from port 1002.
fn engine() -> Engine {
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    open(&mut engine, 1000, &NatRange::masquerade(OLD));
    open(&mut engine, 1001, &NatRange::to(OLD));
    open(&mut engine, 1002, &NatRange::masquerade(OTHER));
    engine
}

fn ports_left(engine: &mut Engine, own: IpAddr) -> Vec<u16> {
    let mut from = Some(0);
    while let Some(slot) = from {
        from = engine.end_masqueraded(slot, 4096, |_, address| address != own, NOW);
    }
    let mut ports: Vec<u16> = engine.entries(NOW).map(|entry| entry.original.source_key).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn masqueraded_connections_end_with_their_address() {
    let mut engine = engine();
    assert_eq!(ports_left(&mut engine, OLD), [1000, 1001], "the other address is gone");
    assert_eq!(ports_left(&mut engine, OTHER), [1001]);
    assert!(engine.entries(NOW).all(|entry| entry.status.bits() & 1 << 11 == 0), "it is no status bit");
    assert_eq!(engine.check_invariants(), Ok(()));
}

#[test]
fn restored_connections_know_that_they_are_masqueraded() {
    let before = engine();
    let mut after = Engine::new(Sysctls::default(), Secret([8; 16]));
    for snapshot in before.export_all(NOW) {
        let mut bytes = Vec::new();
        snapshot.encode(&mut bytes);
        let decoded = ConnSnapshot::decode(&bytes).unwrap();
        assert_eq!(decoded, snapshot);
        after.import(&decoded, Duration::ZERO, WindowTrust::Lenient, NOW).unwrap();
    }
    assert_eq!(ports_left(&mut after, OTHER), [1001, 1002]);
}

#[test]
fn a_reply_changes_nothing_about_it() {
    let mut engine = engine();
    // The second packet of the original direction refreshes and the status is written again.
    let bytes = udp(1000);
    engine.handle(&Packet::parse(&bytes).unwrap(), Zone::default(), NOW);
    assert_eq!(ports_left(&mut engine, OTHER), [1001, 1002]);
}
