//! Packets that are unusual and legal, or that the kernel's IP layer drops around tracking. Each result was observed on Linux 6.18.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod common;

use common::{CLIENT, SERVER, Segment, tcp, udp};
use keepstate_engine::{
    CtInfo, CtVerdict, Direction, Engine, EventKind, EventMask, Instant, Outcome, ProtocolInfo, Reason, Secret,
    Sysctls, TcpState, Zone,
};
use keepstate_wire::{Packet, ParseError};

const SYN: u8 = 2;
const ACK: u8 = 16;

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([7; 16]))
}

fn handle(engine: &mut Engine, packet: &Packet<'_>) -> Outcome {
    engine.handle(packet, Zone::default(), Instant(0))
}

fn send(engine: &mut Engine, bytes: &[u8]) -> (CtInfo, Option<Direction>) {
    let outcome = handle(engine, &Packet::parse(bytes).unwrap());
    (outcome.info, outcome.direction)
}

fn only_tcp_state(engine: &Engine) -> TcpState {
    let entry = engine.entries(Instant(0)).next().unwrap();
    let ProtocolInfo::Tcp { state, .. } = entry.protocol else { unreachable!("{entry:?}") };
    state
}

const NEW: (CtInfo, Option<Direction>) = (CtInfo::New, Some(Direction::Original));
const REPLY: (CtInfo, Option<Direction>) = (CtInfo::Established, Some(Direction::Reply));

#[test]
fn second_packet_of_a_tuple_that_is_its_own_reply_is_the_reply() {
    let mut engine = engine();
    let ntp = udp((CLIENT, 123), (CLIENT, 123), b"time");
    assert_eq!([send(&mut engine, &ntp), send(&mut engine, &ntp), send(&mut engine, &ntp)], [NEW, REPLY, REPLY]);
    let batch = [Packet::parse(&ntp).unwrap(); 3];
    let mut outcomes = Vec::new();
    engine.handle_batch(&batch, Zone::default(), Instant(0), &mut outcomes);
    assert!(outcomes.iter().all(|outcome| outcome.direction == Some(Direction::Reply)), "{outcomes:?}");
    // Another port at one end makes it an ordinary tuple.
    let ordinary = udp((CLIENT, 123), (CLIENT, 124), b"time");
    assert_eq!([send(&mut engine, &ordinary), send(&mut engine, &ordinary)], [NEW, NEW]);
    engine.check_invariants().unwrap();
}

#[test]
fn tcp_connection_to_itself_is_a_simultaneous_open() {
    let mut engine = engine();
    let segment = |flags, seq, ack| {
        tcp((SERVER, 7000), (SERVER, 7000), &Segment { flags, seq, ack, window: 9000, ..Segment::default() })
    };
    assert_eq!(send(&mut engine, &segment(SYN, 99, 0)), NEW);
    assert_eq!(send(&mut engine, &segment(SYN, 99, 0)), REPLY);
    assert_eq!(only_tcp_state(&engine), TcpState::SynSent2);
    assert_eq!(send(&mut engine, &segment(SYN | ACK, 99, 100)), REPLY);
    assert_eq!(send(&mut engine, &segment(ACK, 100, 100)), REPLY);
    assert_eq!(only_tcp_state(&engine), TcpState::Established);
}

#[test]
fn simultaneous_open_is_told_by_an_event_with_its_state() {
    let mut engine = engine();
    engine.subscribe(EventMask::ALL, 10);
    let segment = Segment { flags: SYN, seq: 99, window: 9000, ..Segment::default() };
    send(&mut engine, &tcp((CLIENT, 1), (SERVER, 2), &segment));
    send(&mut engine, &tcp((SERVER, 2), (CLIENT, 1), &segment));
    let events = core::iter::from_fn(|| engine.poll_event()).map(|event| match event.entry.protocol {
        ProtocolInfo::Tcp { state, .. } => (event.kind, Some(state)),
        _ => (event.kind, None),
    });
    let expected = [(EventKind::New, Some(TcpState::SynSent)), (EventKind::Update, Some(TcpState::SynSent2))];
    assert_eq!(events.collect::<Vec<_>>(), expected);
}

/// `packet` with IPv4 options, whose length is a multiple of four.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], options, &packet[20..]].concat();
    packet[0] += u8::try_from(options.len() / 4).unwrap();
    let length = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].fill(0);
    let check = keepstate_wire::checksum::internet(&packet[..20 + options.len()]);
    packet[10..12].copy_from_slice(&check.to_be_bytes());
    packet
}

#[test]
fn packet_with_malformed_ipv4_options_is_dropped_and_its_connection_not_confirmed() {
    let mut engine = engine();
    let segment = |flags, seq, ack, reply: bool| {
        let segment = Segment { flags, seq, ack, window: 9000, ..Segment::default() };
        let (client, server) = ((CLIENT, 1), (SERVER, 2));
        if reply { tcp(server, client, &segment) } else { tcp(client, server, &segment) }
    };
    let mut options = |bytes: &[u8], options: &[u8]| {
        let bytes = with_options(bytes, options);
        let outcome = handle(&mut engine, &Packet::parse(&bytes).unwrap());
        (outcome.verdict, outcome.reason, engine.count())
    };
    let (router_alert, malformed) = ([148, 4, 0, 0], [148, 3, 0, 0]);
    let dropped = |count| (CtVerdict::Drop, Some(Reason::Ipv4Options), count);
    assert_eq!(options(&segment(SYN, 99, 0, false), &malformed), dropped(0));
    assert_eq!(options(&segment(SYN, 99, 0, false), &router_alert), (CtVerdict::Accept, None, 1));
    // A known connection is tracked before the packet is dropped.
    assert_eq!(options(&segment(SYN | ACK, 499, 100, true), &malformed), dropped(1));
    assert_eq!(options(&segment(ACK, 100, 500, false), &router_alert), (CtVerdict::Accept, None, 1));
    assert_eq!(options(&segment(ACK, 100, 500, false), &malformed), dropped(1));
    assert_eq!(only_tcp_state(&engine), TcpState::Established);
    assert_eq!(engine.counters().invalid, 0);
}

#[test]
fn options_that_were_not_captured_make_a_connection_liberal() {
    let mut engine = engine();
    let scale = vec![2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut track = |reply: bool, segment: &Segment, captured: usize| {
        let (client, server) = ((CLIENT, 1), (SERVER, 2));
        let bytes = if reply { tcp(server, client, segment) } else { tcp(client, server, segment) };
        let packet = Packet::parse_snapped(&bytes[..captured.min(bytes.len())], bytes.len()).unwrap();
        let outcome = handle(&mut engine, &packet);
        (outcome.info, outcome.reason)
    };
    let segment = |flags, seq, ack| Segment { flags, seq, ack, window: 500, ..Segment::default() };
    // 68 bytes of an Ethernet frame hold 14 bytes of TCP options.
    track(false, &Segment { options: scale.clone(), ..segment(SYN, 99, 0) }, 54);
    track(true, &Segment { options: scale, ..segment(SYN | ACK, 499, 100) }, 54);
    track(false, &segment(ACK, 100, 500), 54);
    // More than 500 bytes in flight: only a scaled window allows it.
    for seq in [500, 1900, 3300] {
        let data = Segment { data: 1400, ..segment(ACK, seq, 100) };
        assert_eq!(track(true, &data, 54), (CtInfo::Established, None), "{seq}");
    }
}

#[test]
fn packet_of_which_too_little_was_captured_is_not_invalid() {
    let mut engine = engine();
    let whole = tcp((CLIENT, 1), (SERVER, 2), &Segment { flags: SYN, window: 1, ..Segment::default() });
    for captured in [22, 30] {
        let outcome = handle(&mut engine, &Packet::parse_snapped(&whole[..captured], whole.len()).unwrap());
        let reason = Some(Reason::ParseError(ParseError::NotCaptured));
        assert_eq!((outcome.info, outcome.reason), (CtInfo::Untracked, reason), "{captured}");
    }
    assert_eq!((engine.counters().invalid, engine.count()), (0, 0));
}
