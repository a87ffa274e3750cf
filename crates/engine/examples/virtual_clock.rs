//! A simulation on a virtual clock: a TCP handshake, five idle days, expiry. It takes no real time.
#![allow(clippy::unwrap_used, reason = "an example: the packets are its own")]

use keepstate_engine::wire::{Packet, checksum};
use keepstate_engine::{Engine, Instant, ProtocolInfo, Secret, Sysctl, Sysctls, Zone};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP segment over IPv4, without payload or checksum (the checksum sysctl is off).
fn segment(source: ([u8; 4], u16), destination: ([u8; 4], u16), seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    bytes.extend(source.0);
    bytes.extend(destination.0);
    let header_checksum = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&header_checksum.to_be_bytes());
    bytes.extend(source.1.to_be_bytes());
    bytes.extend(destination.1.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

fn main() {
    let client = ([10, 0, 0, 2], 40_000);
    let server = ([192, 0, 2, 80], 80);
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Checksum, 0).unwrap();
    let mut engine = Engine::new(sysctls, Secret([7; 16]));

    let handshake = [
        (0, segment(client, server, 1000, 0, SYN)),
        (50, segment(server, client, 5000, 1001, SYN | ACK)),
        (100, segment(client, server, 1001, 5001, ACK)),
    ];
    let mut now = Instant(0);
    for (milliseconds, packet) in handshake {
        now = Instant::from_millis(milliseconds);
        engine.handle(&Packet::parse(&packet).unwrap(), Zone::default(), now);
        for entry in engine.entries(now) {
            if let ProtocolInfo::Tcp { state, .. } = entry.protocol {
                println!("t={milliseconds} ms: {state} timeout={} {}", entry.timeout, entry.original);
            }
        }
    }

    let mut wakes = 0;
    while let Some(wake) = engine.next_wake(now) {
        now = wake;
        engine.poll(now);
        wakes += 1;
    }
    println!("expired at t={} s after {wakes} calls of poll; connections: {}", now.0 / 1_000_000_000, engine.count());
}
