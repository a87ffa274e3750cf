//! Which connections may be imported, and how a connection with unknown windows continues.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]
mod common;

use common::ftp_session::{ACK, RST, SYN, SYN_ACK, Sender, TestEngine};
use common::{CLIENT, SERVER, Segment, tcp, udp};
use keepstate_engine::{
    ConnId, ConnSnapshot, CtInfo, Engine, Helper, ImportError, Instant, Outcome, ProtocolInfo, Secret, SnapshotAge,
    SnapshotDecodeError, Status, Sysctl, Sysctls, TcpState, WindowTrust, Zone,
};
use keepstate_wire::Packet;
use std::time::Duration;

const NOW: Instant = Instant::from_secs(1_000);

fn engine() -> Engine {
    Engine::new(Sysctls::default(), Secret([5; 16]))
}

fn track_and_confirm(engine: &mut Engine, packet: &[u8], now: Instant) -> Outcome {
    // `track` and `confirm` separately, as with rules.
    let ctx = engine.track(&Packet::parse(packet).unwrap(), Zone::default(), now);
    engine.confirm(ctx, now)
}

fn client_segment(flags: u8, seq: u32, ack: u32, data: usize) -> Vec<u8> {
    tcp((CLIENT, 4000), (SERVER, 80), &Segment { flags, seq, ack, window: 1000, data, ..Segment::default() })
}

fn server_segment(flags: u8, seq: u32, ack: u32, data: usize) -> Vec<u8> {
    tcp((SERVER, 80), (CLIENT, 4000), &Segment { flags, seq, ack, window: 1000, data, ..Segment::default() })
}

/// An engine with one established TCP connection, and a snapshot of that connection.
fn established() -> (Engine, ConnSnapshot) {
    let mut first = engine();
    for packet in [
        client_segment(SYN, 1000, 0, 0),
        server_segment(SYN_ACK, 5000, 1001, 0),
        client_segment(ACK, 1001, 5001, 0),
        server_segment(ACK, 5001, 1001, 10),
    ] {
        assert_ne!(track_and_confirm(&mut first, &packet, NOW).info, CtInfo::Invalid);
    }
    let described = first.export_all(NOW).next().unwrap();
    (first, described)
}

fn udp_snapshot() -> ConnSnapshot {
    let mut first = engine();
    track_and_confirm(&mut first, &udp((CLIENT, 4000), (SERVER, 53), b"?"), NOW);
    first.export_all(NOW).next().unwrap()
}

fn modified(described: &ConnSnapshot, change: impl FnOnce(&mut ConnSnapshot)) -> ConnSnapshot {
    let mut changed = described.clone();
    change(&mut changed);
    changed
}

fn is_liberal(engine: &Engine, conn_id: ConnId, now: Instant) -> bool {
    match engine.entry(conn_id, now).unwrap().protocol {
        ProtocolInfo::Tcp { sides, .. } => sides[0].flags & 8 != 0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn lenient_import_relearns_windows_then_enforces_them() {
    let (_, described) = established();
    let mut second = engine();
    let conn_id = second.import(&described, Duration::from_secs(3), WindowTrust::Lenient, NOW).unwrap();
    let mut strict = engine();
    strict.import(&described, Duration::from_secs(3), WindowTrust::Exact, NOW).unwrap();
    // Meanwhile the server sent a megabyte.
    let (mut client, mut server) = (1001u32, 1_050_000u32);
    assert_eq!(
        track_and_confirm(&mut strict, &server_segment(ACK, server, client, 500), NOW).info,
        CtInfo::Invalid,
        "it would be beyond its window"
    );
    for round in 0..16 {
        assert!(is_liberal(&second, conn_id, NOW), "round {round}");
        for _ in 0..3 {
            assert_eq!(
                track_and_confirm(&mut second, &server_segment(ACK, server, client, 500), NOW).info,
                CtInfo::Established
            );
            server += 500;
        }
        assert_eq!(
            track_and_confirm(&mut second, &client_segment(ACK, client, server, 7), NOW).info,
            CtInfo::Established
        );
        client += 7;
    }
    assert!(!is_liberal(&second, conn_id, NOW));
    assert_eq!(
        track_and_confirm(&mut second, &server_segment(ACK, server + 900_000, client, 500), NOW).info,
        CtInfo::Invalid
    );
    assert_eq!(
        track_and_confirm(&mut second, &server_segment(ACK, server, client, 500), NOW).info,
        CtInfo::Established
    );
    second.check_invariants().unwrap();
}

#[test]
fn second_lenient_import_does_not_stay_liberal() {
    let (_, mut described) = established();
    for _ in 0..3 {
        let mut next = engine();
        let conn_id = next.import(&described, Duration::from_secs(1), WindowTrust::Lenient, NOW).unwrap();
        track_and_confirm(&mut next, &client_segment(ACK, 1001, 5011, 7), NOW);
        assert!(is_liberal(&next, conn_id, NOW));
        let mut bytes = Vec::new();
        next.export(conn_id, NOW).unwrap().encode(&mut bytes);
        described = ConnSnapshot::decode(&bytes).unwrap();
    }
    let mut last = engine();
    let conn_id = last.import(&described, Duration::ZERO, WindowTrust::Lenient, NOW).unwrap();
    for round in 0..16 {
        track_and_confirm(&mut last, &server_segment(ACK, 5011, 1001 + round, 0), NOW);
        track_and_confirm(&mut last, &client_segment(ACK, 1001 + round, 5011, 1), NOW);
    }
    assert!(!is_liberal(&last, conn_id, NOW));
}

#[test]
fn transfer_with_lost_segments_recovers_after_lenient_import() {
    let (_, described) = established();
    let mut second = engine();
    let conn_id = second.import(&described, Duration::from_secs(1), WindowTrust::Lenient, NOW).unwrap();
    // The server retransmits what was lost; the client has everything after it, and acknowledges that first by SACK, then cumulatively.
    let sack = |ack: u32, from: u32, to: u32| {
        let options = [&[1, 1, 5, 10][..], &from.to_be_bytes(), &to.to_be_bytes()].concat();
        tcp(
            (CLIENT, 4000),
            (SERVER, 80),
            &Segment { flags: ACK, seq: 1001, ack, window: 1000, options, ..Segment::default() },
        )
    };
    for round in 0..40 {
        let lost = 20_000 + round * 500;
        assert_eq!(
            track_and_confirm(&mut second, &server_segment(ACK, lost, 1001, 500), NOW).info,
            CtInfo::Established,
            "{round}"
        );
        assert_eq!(
            track_and_confirm(&mut second, &sack(lost + 500, 60_000, 400_000), NOW).info,
            CtInfo::Established,
            "{round}"
        );
    }
    assert!(is_liberal(&second, conn_id, NOW), "nothing was as expected yet");
    let (mut server, mut rounds) = (400_000u32, 0);
    assert_eq!(track_and_confirm(&mut second, &client_segment(ACK, 1001, server, 0), NOW).info, CtInfo::Established);
    while is_liberal(&second, conn_id, NOW) {
        assert_eq!(
            track_and_confirm(&mut second, &server_segment(ACK, server, 1001, 500), NOW).info,
            CtInfo::Established
        );
        server += 500;
        assert_eq!(
            track_and_confirm(&mut second, &client_segment(ACK, 1001, server, 0), NOW).info,
            CtInfo::Established
        );
        rounds += 1;
        assert!(rounds < 30, "it never holds again");
    }
    assert_eq!(
        track_and_confirm(&mut second, &server_segment(ACK, server + 900_000, 1001, 500), NOW).info,
        CtInfo::Invalid
    );
}

#[test]
fn imported_handshake_continues() {
    let mut first = engine();
    track_and_confirm(&mut first, &client_segment(SYN, 1000, 0, 0), NOW);
    for answer in [server_segment(SYN_ACK, 5000, 1001, 0), server_segment(RST | ACK, 0, 1001, 0)] {
        let mut second = engine();
        let described = first.export_all(NOW).next().unwrap();
        second.import(&described, Duration::from_secs(2), WindowTrust::Lenient, NOW).unwrap();
        assert_eq!(track_and_confirm(&mut second, &answer, NOW).info, CtInfo::Established);
    }
}

#[test]
fn import_gap_counts_toward_the_timeout() {
    let described = udp_snapshot();
    let mut second = engine();
    let over = second.import(&described, Duration::from_secs(30), WindowTrust::Lenient, NOW);
    assert_eq!(over, Err(ImportError::Expired));
    let conn_id = second.import(&described, Duration::from_secs(29), WindowTrust::Lenient, NOW).unwrap();
    assert_eq!(second.entry(conn_id, NOW).unwrap().timeout, 1);
    let later = NOW.after(Duration::from_millis(1001));
    second.poll(later);
    assert_eq!(second.count(), 0);
}

/// Nothing has come since the snapshot was taken.
fn unseen_for(seconds: u64) -> SnapshotAge {
    let since = Duration::from_secs(seconds);
    SnapshotAge { since_taken: since, since_seen: since }
}

/// A UDP connection that was younger than two seconds, and was forwarded until it was older: it is what its packets would have made it.
#[test]
fn a_young_connection_that_went_on_is_adopted_as_a_stream() {
    let mut first = engine();
    let (question, answer) = (udp((CLIENT, 4000), (SERVER, 53), b"?"), udp((SERVER, 53), (CLIENT, 4000), b"!"));
    for packet in [&question, &answer] {
        track_and_confirm(&mut first, packet, NOW);
    }
    let young = first.export_all(NOW).next().unwrap();
    let age = |since_taken, since_seen| SnapshotAge {
        since_taken: Duration::from_millis(since_taken),
        since_seen: Duration::from_millis(since_seen),
    };
    for (taken, seen, expected) in [
        (0, 0, Some((30, false))),
        (5_000, 5_000, Some((25, false))),
        (5_000, 4_000, Some((26, false))),
        (5_000, 1_000, Some((119, true))),
        (60_000, 1_000, Some((119, true))),
        (60_000, 50_000, Some((70, true))),
        (60_000, 59_000, None),
        (200_000, 130_000, None),
    ] {
        let mut second = engine();
        let adopted = second.adopt(&young, age(taken, seen), NOW);
        let found = adopted.ok().and_then(|conn_id| second.entry(conn_id, NOW));
        let found = found.map(|entry| (entry.timeout, entry.status.contains(Status::ASSURED)));
        assert_eq!(found, expected, "taken {taken} ms ago, seen {seen} ms ago");
        // Its next packet finds it as old as it is.
        if let Ok(conn_id) = adopted {
            let next = NOW.after(Duration::from_millis(1_500));
            track_and_confirm(&mut second, &answer, next);
            let is_stream = taken + 1_500 > 2_000;
            let timeout = second.entry(conn_id, next).unwrap().timeout;
            assert_eq!(timeout, if is_stream { 120 } else { 30 }, "taken {taken} ms ago, seen {seen} ms ago");
        }
    }
}

/// A connection that went on without us, and that a file of before has restored already: the later deadline and the higher counts hold.
#[test]
fn adopted_connection_updates_the_one_that_is_there() {
    let mut first = engine();
    first.set_sysctl(Sysctl::Acct, 1).unwrap();
    track_and_confirm(&mut first, &udp((CLIENT, 4000), (SERVER, 53), b"?"), NOW);
    let old = first.export_all(NOW).next().unwrap();
    let newer = modified(&old, |one| one.accounting.as_mut().unwrap()[0].packets = 9);
    let mut second = engine();
    let restored = second.import(&old, Duration::from_secs(20), WindowTrust::Lenient, NOW).unwrap();
    assert_eq!(second.adopt(&newer, unseen_for(2), NOW), Ok(restored));
    let entry = second.entry(restored, NOW).unwrap();
    assert_eq!((entry.timeout, entry.accounting.unwrap()[0].packets), (28, 9));
    assert_eq!(second.adopt(&old, unseen_for(25), NOW), Ok(restored));
    let entry = second.entry(restored, NOW).unwrap();
    assert_eq!((entry.timeout, entry.accounting.unwrap()[0].packets), (28, 9), "what is older changes nothing");
    // Another connection with one of its tuples is not it.
    let other = modified(&old, |one| (one.original, one.reply) = (old.reply, old.original));
    assert_eq!(second.adopt(&other, unseen_for(0), NOW), Err(ImportError::Clash));
    assert_eq!(second.count(), 1);
    // Where there is none it is imported.
    let conn_id = engine().adopt(&established().1, unseen_for(0), NOW);
    assert!(conn_id.is_ok());
    second.check_invariants().unwrap();
}

#[test]
fn import_rejects_invalid_snapshots() {
    let (_, tcp) = established();
    let udp = udp_snapshot();
    let dead = udp.status | Status::DYING;
    let cases = [
        (modified(&udp, |one| one.reply = udp.original), "translated, and not marked so"),
        (modified(&udp, |one| (one.original, one.reply) = (tcp.original, tcp.reply)), "the state of another protocol"),
        (modified(&udp, |one| one.status = Status::empty()), "never confirmed"),
        (modified(&udp, |one| one.status = dead), "dying"),
        (modified(&udp, |one| one.status = udp.status | Status::SRC_NAT), "without a decision"),
        (modified(&udp, |one| one.status = udp.status | Status::HELPER), "helper"),
        (modified(&udp, |one| one.master = Some(tcp.original)), "expected"),
        (modified(&udp, |one| one.remaining_ms = u64::MAX), "a timeout longer"),
        (modified(&udp, |one| one.reply = tcp.reply), "different protocols"),
    ];
    for (described, wanted) in cases {
        let mut second = engine();
        match second.import(&described, Duration::ZERO, WindowTrust::Exact, NOW) {
            Err(ImportError::Invalid(what)) => assert!(what.contains(wanted), "{wanted}: {what}"),
            other => panic!("{wanted}: {other:?}"),
        }
        assert_eq!(second.count(), 0);
        second.check_invariants().unwrap();
    }
    let mut second = engine();
    second.import(&udp, Duration::ZERO, WindowTrust::Exact, NOW).unwrap();
    assert_eq!(second.import(&udp, Duration::ZERO, WindowTrust::Exact, NOW), Err(ImportError::Clash));
    let turned = modified(&udp, |one| (one.original, one.reply) = (udp.reply, udp.original));
    assert_eq!(second.import(&turned, Duration::ZERO, WindowTrust::Exact, NOW), Err(ImportError::Clash));
    second.set_sysctl(Sysctl::Max, 1).unwrap();
    assert_eq!(second.import(&tcp, Duration::ZERO, WindowTrust::Exact, NOW), Err(ImportError::TableFull));
    second.set_sysctl(Sysctl::Max, 2).unwrap();
    second.import(&tcp, Duration::ZERO, WindowTrust::Exact, NOW).unwrap();
}

#[test]
fn timeout_policy_is_exported_and_imported() {
    let own = vec![(Sysctl::UdpTimeout, 5), (Sysctl::UdpTimeoutStream, 7)];
    let described = modified(&udp_snapshot(), |one| one.timeouts = own.clone());
    let mut bytes = Vec::new();
    described.encode(&mut bytes);
    let mut second = engine();
    let described = ConnSnapshot::decode(&bytes).unwrap();
    let conn_id = second.import(&described, Duration::ZERO, WindowTrust::Lenient, NOW).unwrap();
    track_and_confirm(&mut second, &udp((SERVER, 53), (CLIENT, 4000), b"!"), NOW);
    assert_eq!(second.entry(conn_id, NOW).unwrap().timeout, 5);
    assert_eq!(second.export(conn_id, NOW).unwrap().timeouts, own);
    let name = b"nf_conntrack_max";
    let field = [&[18, name.len() as u8 + 4, 0, 0, 0, 9][..], name].concat();
    assert_eq!(
        ConnSnapshot::decode(&[bytes, field].concat()),
        Err(SnapshotDecodeError::InvalidValue(18)),
        "no timeout"
    );
}

#[test]
fn decode_errors_are_distinguished() {
    let (_, described) = established();
    let mut bytes = Vec::new();
    described.encode(&mut bytes);
    assert_eq!(ConnSnapshot::decode(&bytes), Ok(described.clone()));
    assert!(bytes.len() < 100, "{} bytes", bytes.len());
    assert_eq!(ConnSnapshot::decode(&[]), Err(SnapshotDecodeError::Truncated));
    assert_eq!(ConnSnapshot::decode(&bytes[..bytes.len() - 1]), Err(SnapshotDecodeError::Truncated));
    assert_eq!(ConnSnapshot::decode(&[9]), Err(SnapshotDecodeError::UnsupportedVersion(9)));
    assert_eq!(ConnSnapshot::decode(&bytes[..16]), Err(SnapshotDecodeError::MissingField(4)));
    // A field of a future version: a critical one, and one that may be ignored.
    assert_eq!(ConnSnapshot::decode(&[&bytes[..], &[99, 1, 0]].concat()), Err(SnapshotDecodeError::UnknownField(99)));
    assert_eq!(ConnSnapshot::decode(&[&bytes[..], &[200, 1, 0]].concat()), Ok(described.clone()));
    assert_eq!(ConnSnapshot::decode(&[&bytes[..], &[6, 1, 0]].concat()), Err(SnapshotDecodeError::InvalidValue(6)));
}

#[test]
fn imported_child_finds_master_and_helper_continues() {
    let mut world = TestEngine::new();
    let mut control = world.open_logged_in("10.1.0.2:40000", "10.2.0.9:21");
    control.send_line(&mut world, Sender::Client, "PORT 10,1,0,2,7,208\r\n");
    let child = world.send_empty_segment("10.2.0.9:20", "10.1.0.2:2000", SYN).connection.unwrap();
    let (master, child) = (control.conn_id(&world), child);
    let described = [master, child].map(|conn_id| world.engine.export(conn_id, world.now).unwrap());
    assert_eq!(described[0].helper(), Some(Helper::Ftp));

    let mut heir = TestEngine::new();
    heir.now = world.now;
    let [master, child] =
        described.clone().map(|one| heir.engine.import(&one, Duration::ZERO, WindowTrust::Lenient, heir.now).unwrap());
    heir.engine.check_invariants().unwrap();
    assert_eq!((heir.entry(master).uses, heir.entry(child).master), (2, Some(heir.entry(master).original)));
    // Each side has completed a line before, so the very next command is parsed.
    control.send_line(&mut heir, Sender::Client, "PORT 10,1,0,2,7,209\r\n");
    assert_eq!(heir.expectations(), ["10.2.0.9 → 10.1.0.2:2001"]);
    heir.engine.remove(child, heir.now);
    assert_eq!(heir.entry(master).uses, 1);

    // Without its master the child lives on, and keeps the master's tuple.
    let mut orphan = TestEngine::new();
    let child = orphan.engine.import(&described[1], Duration::ZERO, WindowTrust::Lenient, world.now).unwrap();
    assert_eq!(orphan.engine.entry(child, world.now).unwrap().master, Some(described[0].original));
    orphan.engine.check_invariants().unwrap();
}

#[test]
fn imported_closed_connection_can_be_reopened() {
    let (mut first, _) = established();
    for packet in
        [client_segment(17, 1001, 5011, 0), server_segment(17, 5011, 1002, 0), client_segment(ACK, 1002, 5012, 0)]
    {
        track_and_confirm(&mut first, &packet, NOW);
    }
    let described = first.export_all(NOW).next().unwrap();
    let mut second = engine();
    second.import(&described, Duration::from_secs(5), WindowTrust::Lenient, NOW).unwrap();
    let again = track_and_confirm(&mut second, &client_segment(SYN, 90_000, 0, 0), NOW);
    assert_eq!(again.info, CtInfo::New);
    let entry = second.entries(NOW).next().unwrap();
    assert!(matches!(entry.protocol, ProtocolInfo::Tcp { state: TcpState::SynSent, .. }));
}

/// Nobody removes it while no packet comes and no time passes, as on a standby: it must not keep its tuples.
#[test]
fn a_connection_that_has_expired_does_not_stand_in_the_way() {
    let snapshot = udp_snapshot();
    let mut second = engine();
    let old = second.import(&snapshot, Duration::ZERO, WindowTrust::Lenient, NOW).unwrap();
    assert_eq!(second.import(&snapshot, Duration::ZERO, WindowTrust::Lenient, NOW), Err(ImportError::Clash));
    let later = Instant::from_secs(1_000 + snapshot.remaining_ms / 1000 + 1);
    let new = second.import(&snapshot, Duration::ZERO, WindowTrust::Lenient, later).unwrap();
    assert!(second.entry(old, later).is_none() && second.entry(new, later).is_some());
    assert_eq!(second.count(), 1);
}
