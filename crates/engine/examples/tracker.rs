//! A minimal tracker: builds a few packets, tracks them and prints the events as `conntrack -E` does.
#![allow(clippy::unwrap_used, reason = "an example: the packets are its own")]

use keepstate_engine::wire::{Packet, checksum};
use keepstate_engine::{Engine, EventKind, EventMask, Instant, Secret, Sysctls, Zone};

/// A UDP packet over IPv4 without payload (and without a UDP checksum, which IPv4 permits).
fn udp_packet(source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    bytes.extend(source.0);
    bytes.extend(destination.0);
    let header_checksum = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&header_checksum.to_be_bytes());
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

fn print_events(engine: &mut Engine) {
    while let Some(event) = engine.poll_event() {
        let kind = match event.kind {
            EventKind::New => "NEW",
            EventKind::Update => "UPDATE",
            EventKind::Destroy => "DESTROY",
        };
        let entry = event.entry;
        println!("[{kind:>7}] {} {} timeout={} status={}", entry.original, entry.reply, entry.timeout, entry.status);
    }
}

fn main() {
    let client = ([10, 0, 0, 2], 40_000);
    let server = ([192, 0, 2, 53], 53);
    let mut engine = Engine::new(Sysctls::default(), Secret([7; 16]));
    engine.subscribe(EventMask::ALL, 1024);

    for (second, packet) in [(0, udp_packet(client, server)), (1, udp_packet(server, client))] {
        let now = Instant::from_secs(second);
        let outcome = engine.handle(&Packet::parse(&packet).unwrap(), Zone::default(), now);
        println!("t={second} packet: {:?}, direction {:?}", outcome.info, outcome.direction);
        print_events(&mut engine);
    }

    // The driver calls `poll` when `next_wake` says so: here, until the connection has expired.
    let mut now = Instant::from_secs(1);
    while let Some(wake) = engine.next_wake(now) {
        now = wake;
        engine.poll(now);
    }
    println!("t={}", now.0 / 1_000_000_000);
    print_events(&mut engine);
}
