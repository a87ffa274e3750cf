use super::*;
use crate::{CtInfo, EventKind, EventMask, NatRange, Secret, Sysctls};
use alloc::vec;
use keepstate_wire::{Packet, checksum};

const CLIENT: [u8; 4] = [10, 0, 0, 2];
const SERVER: [u8; 4] = [198, 51, 100, 9];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];
const SECOND: u64 = 1_000_000_000;

fn ipv4_packet(source: [u8; 4], destination: [u8; 4], protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0];
    bytes.extend(source);
    bytes.extend(destination);
    let total = (20 + transport.len()) as u16;
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    let check = checksum::internet(&bytes);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes.extend(transport);
    bytes
}

fn tcp(reply: bool, seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let (source, destination, from, to) =
        if reply { (SERVER, OUTSIDE, 80_u16, 4000_u16) } else { (CLIENT, SERVER, 4000, 80) };
    let mut segment = vec![];
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
    ipv4_packet(source, destination, 6, &segment)
}

fn engine() -> Engine {
    let mut sysctls = Sysctls::default();
    sysctls.set(Sysctl::Checksum, 0).unwrap();
    sysctls.set(Sysctl::Acct, 1).unwrap();
    let mut engine = Engine::new(sysctls, Secret([3; 16]));
    engine.subscribe(EventMask::ALL, 64);
    engine
}

/// Sends a packet through the engine with masquerading; returns its `ct state` and connection.
fn masquerade(engine: &mut Engine, bytes: &[u8], at: u64) -> (CtInfo, Option<ConnId>) {
    let now = Instant(at * SECOND);
    let mut ctx = engine.track(&Packet::parse(bytes).unwrap(), Zone::default(), now);
    engine.translate(&mut ctx, Manip::Source, &NatRange::to(OUTSIDE.into()), now);
    let outcome = engine.confirm(ctx, now);
    (outcome.info, outcome.connection)
}

fn establish(engine: &mut Engine) -> ConnId {
    masquerade(engine, &tcp(false, 1000, 0, 0x02), 1);
    masquerade(engine, &tcp(true, 5000, 1001, 0x12), 1);
    masquerade(engine, &tcp(false, 1001, 5001, 0x10), 1).1.unwrap()
}

#[test]
fn only_an_established_connection_is_offloaded_with_its_rewrites() {
    let mut engine = engine();
    masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 1);
    let young = masquerade(&mut engine, &tcp(true, 5000, 1001, 0x12), 1).1.unwrap();
    assert_eq!(engine.offload(young, Instant(SECOND)), Err(OffloadError::NotEstablished));
    let conn_id = masquerade(&mut engine, &tcp(false, 1001, 5001, 0x10), 1).1.unwrap();
    let flow = engine.offload(conn_id, Instant(SECOND)).unwrap();
    assert_eq!(engine.offload(conn_id, Instant(SECOND)), Err(OffloadError::AlreadyOffloaded));
    assert_eq!(engine.offloaded_count(), 1);
    let entry = engine.entry(conn_id, Instant(SECOND)).unwrap();
    assert!(entry.status.contains(Status::OFFLOAD));
    assert_eq!(flow.tuples, [entry.original, entry.reply]);
    // The flow's rewrites do what the router would have done.
    let mut out = tcp(false, 1001, 5001, 0x10);
    assert!(flow.rewrites[0].iter().all(|edits| edits.apply(&mut out)));
    assert_eq!(out[12..20], [192, 0, 2, 1, 198, 51, 100, 9]);
    let mut back = tcp(true, 5001, 1001, 0x10);
    assert!(flow.rewrites[1].iter().all(|edits| edits.apply(&mut back)));
    assert_eq!(back[12..20], [198, 51, 100, 9, 10, 0, 0, 2]);
}

#[test]
fn flow_stats_update_counters_and_timeout() {
    let mut engine = engine();
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    let last = Instant(3600 * SECOND);
    let seen = FlowStats { conn_id, direction: Direction::Reply, packets: 10, bytes: 15_000, last_seen: last };
    assert_eq!(engine.update_stats(&[seen]), 0);
    let entry = engine.entry(conn_id, Instant(3601 * SECOND)).unwrap();
    let [original, reply] = entry.accounting.unwrap();
    assert_eq!((original.packets, reply.packets, reply.bytes), (2, 11, 15_040));
    assert_eq!(entry.timeout, 431_999);
    // A late report does not shorten the timeout.
    let late = FlowStats { last_seen: Instant(2 * SECOND), ..seen };
    assert_eq!(engine.update_stats(&[late]), 0);
    assert_eq!(engine.entry(conn_id, Instant(3601 * SECOND)).unwrap().timeout, 431_999);
    assert!(engine.revoke(conn_id));
    // What the data path had forwarded before it heard of that still counts, and refreshes nothing.
    let rest = FlowStats { last_seen: Instant(3601 * SECOND), packets: 1, bytes: 40, ..seen };
    assert_eq!(engine.update_stats(&[rest]), 0);
    let entry = engine.entry(conn_id, Instant(3602 * SECOND)).unwrap();
    assert_eq!((entry.accounting.unwrap()[1].packets, entry.timeout), (22, 431_998));
    engine.flush(Instant(3602 * SECOND));
    assert_eq!(engine.update_stats(&[seen]), 1, "it is not in the table");
}

#[test]
fn a_closing_segment_unoffloads_the_flow_at_any_sequence_number() {
    let mut engine = engine();
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    // Gigabytes later: far outside any known window. It changes nothing.
    let (info, same) = masquerade(&mut engine, &tcp(false, 900_001_001, 800_005_001, 0x10), 60);
    assert_eq!((info, same), (CtInfo::Established, Some(conn_id)));
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (None, 1));
    let (info, same) = masquerade(&mut engine, &tcp(false, 1_900_001_001, 1_800_005_001, 0x11), 60);
    assert_eq!((info, same), (CtInfo::Established, Some(conn_id)));
    assert_eq!(engine.poll_revoked(), Some(conn_id));
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (None, 0));
    let (info, _) = masquerade(&mut engine, &tcp(true, 1_800_005_001, 1_900_001_002, 0x11), 61);
    assert_eq!(info, CtInfo::Established, "the other direction is picked up mid-stream too");
    engine.check_invariants().unwrap();
}

#[test]
fn destroyed_and_flushed_flows_are_revoked() {
    let mut engine = engine();
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    engine.flush(Instant(2 * SECOND));
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (Some(conn_id), 0));
    assert_eq!(engine.offload(conn_id, Instant(2 * SECOND)), Err(OffloadError::NotFound));
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(2 * SECOND)).unwrap();
    engine.revoke_all();
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (Some(conn_id), 0));
    assert!(!engine.revoke(conn_id));
}

/// A segment of the client or the server: bytes sent by itself, and by its peer, before.
fn later(reply: bool, own: u32, peers: u32) -> Vec<u8> {
    let (seq, ack) = if reply { (5001 + own, 1001 + peers) } else { (1001 + own, 5001 + peers) };
    tcp(reply, seq, ack, 0x10)
}

#[test]
fn segments_seen_while_offloaded_say_nothing_of_the_others() {
    let mut engine = engine();
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    // One of the server's was on its way to us; all others pass elsewhere.
    assert_eq!(masquerade(&mut engine, &later(true, 0, 0), 2).0, CtInfo::Established);
    assert!(engine.revoke(conn_id));
    // The client acknowledges what we have not seen, and the server waits for it.
    for _ in 0..3 {
        assert_eq!(masquerade(&mut engine, &later(false, 7_000_000, 50_000), 3).0, CtInfo::Established);
    }
    // Again, from the other side.
    assert_eq!(engine.offload(conn_id, Instant(3 * SECOND)).map(|flow| flow.conn_id), Ok(conn_id));
    assert_eq!(masquerade(&mut engine, &later(false, 7_000_000, 50_000), 4).0, CtInfo::Established);
    assert!(engine.revoke(conn_id));
    assert_eq!(masquerade(&mut engine, &later(true, 800_000_000, 900_000_000), 5).0, CtInfo::Established);
    engine.check_invariants().unwrap();
}

#[test]
fn a_flow_that_came_back_is_judged_leniently_for_sixteen_segments_each_way() {
    let mut engine = engine();
    let conn_id = establish(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    assert!(engine.revoke(conn_id));
    let outside = later(false, 1_000_000_000, 20_000_000);
    for round in 0..18 {
        // Twice the learned windows turn out to be old: they are learned afresh, and the count starts again.
        let sent = round.min(2) * 10_000_000;
        assert_eq!(engine.extensions.find(conn_id.slot).is_some(), round > 0, "{round}");
        assert_eq!(masquerade(&mut engine, &later(false, sent, sent), 2).0, CtInfo::Established, "{round}");
        assert_eq!(masquerade(&mut engine, &later(true, sent, sent), 2).0, CtInfo::Established, "{round}");
    }
    assert!(engine.extensions.find(conn_id.slot).is_none(), "as cheap as before");
    assert_eq!(masquerade(&mut engine, &outside, 3).0, CtInfo::Invalid, "and strict");
    engine.check_invariants().unwrap();
}

/// The kinds of the events since the last time, with the state of TCP.
fn events(engine: &mut Engine) -> Vec<(EventKind, TcpState)> {
    let state = |protocol: crate::ProtocolInfo| match protocol {
        crate::ProtocolInfo::Tcp { state, .. } => state,
        _ => TcpState::None,
    };
    core::iter::from_fn(|| engine.poll_event()).map(|event| (event.kind, state(event.entry.protocol))).collect()
}

fn segment(bytes: &[u8]) -> Packet<'_> {
    Packet::parse(bytes).unwrap()
}

/// A connection whose handshake and end pass elsewhere is, noted segment by noted segment, what it would be here; only its packets are counted by the data path.
#[test]
fn noted_segments_open_and_close_a_connection_as_if_they_had_come() {
    let (mut engine, mut twin) = (engine(), engine());
    let conn_id = masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 1).1.unwrap();
    let same = masquerade(&mut twin, &tcp(false, 1000, 0, 0x02), 1).1.unwrap();
    assert_eq!(engine.offload(conn_id, Instant(SECOND)), Err(OffloadError::NotEstablished));
    engine.offload_opening(conn_id, Instant(SECOND)).unwrap();
    assert_eq!(engine.offload_opening(conn_id, Instant(SECOND)), Err(OffloadError::AlreadyOffloaded));
    let segments = [
        (tcp(true, 5000, 1001, 0x12), TcpState::SynRecv),
        (tcp(false, 1001, 5001, 0x10), TcpState::Established),
        (tcp(false, 1001, 5001, 0x11), TcpState::FinWait),
        (tcp(true, 5001, 1002, 0x10), TcpState::CloseWait),
        (tcp(true, 5001, 1002, 0x11), TcpState::LastAck),
        (tcp(false, 1002, 5002, 0x10), TcpState::TimeWait),
    ];
    for (number, (bytes, state)) in segments.iter().enumerate() {
        let (at, reply) = (2 + number as u64, bytes[12..16] == SERVER);
        let direction = if reply { Direction::Reply } else { Direction::Original };
        let now = Instant(at * SECOND);
        assert!(engine.note_segment(&segment(bytes), (conn_id, direction), now));
        masquerade(&mut twin, bytes, at);
        let (ours, expected) = (engine.entry(conn_id, now).unwrap(), twin.entry(same, now).unwrap());
        let crate::ProtocolInfo::Tcp { state: reached, .. } = ours.protocol else { panic!() };
        assert_eq!(reached, *state);
        let visible = if *state == TcpState::Established { Status::OFFLOAD } else { Status::default() };
        assert_eq!((ours.status - visible, ours.timeout), (expected.status, expected.timeout), "{state:?}");
        assert_eq!(ours.status.contains(Status::OFFLOAD), *state == TcpState::Established);
        assert_eq!(ours.accounting.unwrap().map(|counts| counts.packets), [1, 0]);
    }
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (Some(conn_id), 0), "nothing more is expected of it");
    let told = events(&mut engine);
    assert_eq!(told.len(), 7, "{told:?}");
    assert_eq!(told, events(&mut twin));
    engine.check_invariants().unwrap();
}

/// What is not part of a handshake ends the offload, and the handshake is judged here, by the windows that it has.
#[test]
fn a_handshake_comes_back_with_its_windows() {
    let mut engine = engine();
    let conn_id = masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 1).1.unwrap();
    engine.offload_opening(conn_id, Instant(SECOND)).unwrap();
    assert!(engine.note_segment(&segment(&tcp(true, 5000, 1001, 0x12)), (conn_id, Direction::Reply), Instant(SECOND)));
    // The client has not got it.
    assert_eq!(masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 2).1, Some(conn_id));
    assert_eq!(engine.poll_revoked(), Some(conn_id));
    let outside = tcp(false, 900_001_001, 5001, 0x10);
    assert_eq!(masquerade(&mut engine, &outside, 3).0, CtInfo::Invalid, "its windows are known");
    assert_eq!(masquerade(&mut engine, &tcp(true, 5000, 1001, 0x12), 3).1, Some(conn_id));
    assert_eq!(masquerade(&mut engine, &tcp(false, 1001, 5001, 0x10), 3).1, Some(conn_id));
    assert!(engine.entry(conn_id, Instant(3 * SECOND)).unwrap().status.contains(Status::ASSURED));
    // A note that comes late is of no harm.
    engine.flush(Instant(4 * SECOND));
    assert!(!engine.note_segment(
        &segment(&tcp(true, 5000, 1001, 0x12)),
        (conn_id, Direction::Reply),
        Instant(4 * SECOND)
    ));
    engine.check_invariants().unwrap();
}

/// The first segment of another client.
fn first_of(client: u8) -> Vec<u8> {
    let mut bytes = tcp(false, 1000, 0, 0x02);
    (bytes[15], bytes[10], bytes[11]) = (client, 0, 0);
    let check = checksum::internet(&bytes[..20]);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// A flood of SYNs takes no room from others because its handshakes are elsewhere.
#[test]
fn handshakes_elsewhere_are_dropped_early() {
    let mut engine = engine();
    engine.set_sysctl(Sysctl::Max, 200).unwrap();
    for client in 0..200 {
        let conn_id = masquerade(&mut engine, &first_of(client), 1).1.unwrap();
        engine.offload_opening(conn_id, Instant(SECOND)).unwrap();
    }
    assert!((200..240).any(|client| masquerade(&mut engine, &first_of(client), 2).1.is_some()));
    assert!(engine.poll_revoked().is_some());
}

/// Segments that the data path could not tell come here in their place: the rest of a handshake is judged here, and the last one of an end closes the connection.
#[test]
fn what_could_not_be_told_comes_here() {
    let mut engine = engine();
    let conn_id = masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 1).1.unwrap();
    engine.offload_opening(conn_id, Instant(SECOND)).unwrap();
    assert!(engine.note_segment(&segment(&tcp(true, 5000, 1001, 0x12)), (conn_id, Direction::Reply), Instant(SECOND)));
    assert_eq!(masquerade(&mut engine, &tcp(false, 1001, 5001, 0x10), 1).1, Some(conn_id));
    assert_eq!(engine.poll_revoked(), Some(conn_id), "it may be offered again");
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    for (bytes, direction) in
        [(tcp(false, 1001, 5001, 0x11), Direction::Original), (tcp(true, 5001, 1002, 0x11), Direction::Reply)]
    {
        assert!(engine.note_segment(&segment(&bytes), (conn_id, direction), Instant(2 * SECOND)));
        assert_eq!(engine.poll_revoked(), None);
    }
    assert_eq!(masquerade(&mut engine, &tcp(false, 1002, 5002, 0x10), 3).1, Some(conn_id));
    assert_eq!((engine.poll_revoked(), engine.offloaded_count()), (Some(conn_id), 0));
    engine.check_invariants().unwrap();
}

/// The offload ends before the handshake is told: data has passed since, and the windows of the handshake say nothing of it.
#[test]
fn a_handshake_told_after_the_offload_has_ended_leaves_no_windows() {
    let mut engine = engine();
    let conn_id = masquerade(&mut engine, &tcp(false, 1000, 0, 0x02), 1).1.unwrap();
    engine.offload_opening(conn_id, Instant(SECOND)).unwrap();
    engine.revoke_all();
    assert!(engine.note_segment(&segment(&tcp(true, 5000, 1001, 0x12)), (conn_id, Direction::Reply), Instant(SECOND)));
    assert!(engine.note_segment(
        &segment(&tcp(false, 1001, 5001, 0x10)),
        (conn_id, Direction::Original),
        Instant(SECOND)
    ));
    assert_eq!(masquerade(&mut engine, &later(false, 7_000_000, 900_000), 2).0, CtInfo::Established);
    assert_eq!(masquerade(&mut engine, &later(true, 900_000, 7_000_000), 2).0, CtInfo::Established);
    engine.check_invariants().unwrap();
}

fn datagram(reply: bool) -> Vec<u8> {
    let (source, destination, from, to) =
        if reply { (SERVER, OUTSIDE, 53_u16, 4000_u16) } else { (CLIENT, SERVER, 4000, 53) };
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes(), 8_u16.to_be_bytes()].concat();
    bytes.extend([0, 0]);
    ipv4_packet(source, destination, 17, &bytes)
}

/// A datagram connection as young as can be: asked and answered in its first second.
fn answered(engine: &mut Engine) -> ConnId {
    masquerade(engine, &datagram(false), 1);
    masquerade(engine, &datagram(true), 1).1.unwrap()
}

fn stats(conn_id: ConnId, at: u64) -> FlowStats {
    FlowStats { conn_id, direction: Direction::Original, packets: 3, bytes: 90, last_seen: Instant(at * SECOND) }
}

/// What the data path reports of an answered UDP connection assures it as packets would: once one came more than two seconds after the first.
#[test]
fn a_young_datagram_connection_is_offloaded_and_assured_by_what_is_reported() {
    let (mut engine, mut twin) = (engine(), engine());
    let unanswered = masquerade(&mut engine, &datagram(false), 1).1.unwrap();
    assert_eq!(engine.offload(unanswered, Instant(SECOND)), Err(OffloadError::NotEstablished));
    let (conn_id, same) = (answered(&mut engine), answered(&mut twin));
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    for engine in [&mut engine, &mut twin] {
        while engine.poll_event().is_some() {}
    }
    for (seen, reported, is_assured) in [(2, 9, false), (3, 9, false), (4, 9, true), (20, 21, true)] {
        engine.update_stats(&[stats(conn_id, seen)]);
        masquerade(&mut twin, &datagram(false), seen);
        let now = Instant(reported * SECOND);
        let (ours, expected) = (engine.entry(conn_id, now).unwrap(), twin.entry(same, now).unwrap());
        assert_eq!((ours.status - Status::OFFLOAD, ours.timeout), (expected.status, expected.timeout), "{seen}");
        assert_eq!(ours.status.contains(Status::ASSURED), is_assured, "{seen}");
    }
    assert_eq!(events(&mut engine), [(EventKind::Update, TcpState::None)]);
    assert_eq!(events(&mut twin), [(EventKind::Update, TcpState::None)]);
    engine.check_invariants().unwrap();
}

#[test]
fn a_young_datagram_connection_is_dropped_early_although_it_is_offloaded() {
    let mut engine = engine();
    let conn_id = answered(&mut engine);
    engine.offload(conn_id, Instant(SECOND)).unwrap();
    assert!(!is_protected_by_offload(engine.table.records.hot(conn_id.slot).unwrap()));
    engine.update_stats(&[stats(conn_id, 4)]);
    assert!(is_protected_by_offload(engine.table.records.hot(conn_id.slot).unwrap()));
}

/// Between two reports a connection must not end although its packets pass.
#[test]
fn connections_that_end_between_two_reports_stay_here() {
    for (sysctl, is_tcp) in
        [(Sysctl::UdpTimeout, false), (Sysctl::UdpTimeoutStream, false), (Sysctl::TcpTimeoutEstablished, true)]
    {
        let mut engine = engine();
        let conn_id = if is_tcp { establish(&mut engine) } else { answered(&mut engine) };
        engine.offload(conn_id, Instant(SECOND)).unwrap();
        engine.set_sysctl(sysctl, 4).unwrap();
        assert_eq!(engine.poll_revoked(), None);
        engine.set_sysctl(sysctl, 3).unwrap();
        assert_eq!(engine.poll_revoked(), Some(conn_id), "{sysctl:?}");
        assert_eq!(engine.offload(conn_id, Instant(SECOND)), Err(OffloadError::NeedsSlowPath));
        engine.set_sysctl(sysctl, 4).unwrap();
        engine.offload(conn_id, Instant(SECOND)).unwrap();
    }
}
