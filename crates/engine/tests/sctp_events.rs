//! The events of SCTP connections. Their states are tested by the scenarios beside the tracker.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, ipv4};
use keepstate_engine::{Engine, EventKind, EventMask, Instant, ProtocolInfo, SctpState, Secret, Sysctl, Sysctls, Zone};
use keepstate_wire::Packet;

const SHUTDOWN: &[u8] = &[7, 0, 0, 8, 0, 0, 0, 0];
const HEARTBEAT: &[u8] = &[4, 0, 0, 4];

/// A packet between two fixed ports, with an unchecked checksum.
fn packet(from_client: bool, tag: u32, chunks: &[&[u8]]) -> Vec<u8> {
    let (from, to, ports) = if from_client { (CLIENT, SERVER, [9, 7]) } else { (SERVER, CLIENT, [7, 9]) };
    let mut payload = vec![0, ports[0], 0, ports[1]];
    payload.extend(tag.to_be_bytes());
    payload.extend([0; 4]);
    payload.extend(chunks.concat());
    ipv4(from, to, 132, &payload)
}

/// INIT or INIT ACK with initiate tag `tag`.
fn init_chunk(kind: u8, tag: u8) -> Vec<u8> {
    let mut chunk = vec![kind, 0, 0, 20, 0, 0, 0, tag];
    chunk.resize(20, 0);
    chunk
}

#[test]
fn ignored_packet_that_changed_state_emits_an_update() {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Checksum, 0).unwrap();
    let mut engine = Engine::new(sysctls, Secret([3; 16]));
    let now = Instant::from_secs(1000);
    let send = |engine: &mut Engine, bytes: &[u8]| {
        engine.handle(&Packet::parse(bytes).unwrap(), Zone::default(), now);
        engine.subscribe(EventMask::ALL, 10);
    };
    send(&mut engine, &packet(true, 0, &[&init_chunk(1, 0x11)]));
    send(&mut engine, &packet(false, 0x11, &[&init_chunk(2, 0x22)]));
    send(&mut engine, &packet(true, 0x22, &[&[10, 0, 0, 4]]));
    send(&mut engine, &packet(false, 0x11, &[&[11, 0, 0, 4]]));
    while engine.poll_event().is_some() {}

    let timeout = engine.entries(now).next().unwrap().timeout;
    send(&mut engine, &packet(true, 0x99, &[SHUTDOWN, HEARTBEAT]));
    let event = engine.poll_event().unwrap();
    let ProtocolInfo::Sctp { state, .. } = event.entry.protocol else { unreachable!("{event:?}") };
    assert_eq!((event.kind, state), (EventKind::Update, SctpState::ShutdownSent));
    assert_eq!(event.entry.timeout, timeout, "the strange heartbeat left the timer alone");
    send(&mut engine, &packet(true, 0x99, &[HEARTBEAT]));
    assert_eq!(engine.poll_event(), None, "ignored, and nothing else");
}
